"""Gaussian processes over random compositions of kernels, as KernelSynth draws them.

Owns: the bank of stationary kernels, how they are combined, exact sampling on a grid. Does not know: the use of the
samples. Source: Ansari et al. (2024), Chronos: learning the language of time series, section 4.2 and appendix A: up to
J kernels are drawn from a bank and combined, two by two, by + or x.

A sum or product of stationary kernels is stationary, so its covariance on a grid is a Toeplitz matrix. It is embedded
in a circulant one, which the Fourier transform diagonalises (Dietrich & Newsam 1997, SIAM J. Sci. Comput. 18): O(n log
n) instead of a Cholesky factor's O(n^3), so that thousands of series are drawn in seconds. Eigenvalues below zero,
which an embedding may have, are set to zero. Chronos' linear kernel is not stationary; `components.trend` replaces it.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from rillcast_training.data.synthetic.components import Floats

MAX_KERNELS = 5
_JITTER = 1e-9
_BANK = {"periodic": 0.4, "rbf": 0.16, "quadratic": 0.12, "matern": 0.14, "white": 0.1, "constant": 0.08}


def sample(rng: Generator, n: int, cycles: tuple[int, ...]) -> Floats:
    """Draw a series of unit size from a process with a random kernel.

    Args:
        rng: Source of randomness.
        n: Periods.
        cycles: Lengths in periods that periodic kernels may have.
    """
    size = _embedding(n, cycles)
    lags = np.minimum(np.arange(size), size - np.arange(size)).astype(np.float64)
    covariance = _kernel(rng, lags, n, cycles)
    for _ in range(int(rng.integers(0, MAX_KERNELS))):
        other = _kernel(rng, lags, n, cycles)
        covariance = covariance + other if rng.random() < 0.5 else covariance * other
    return draw(rng, covariance, n)


def draw(rng: Generator, covariance: Floats, n: int) -> Floats:
    """Draw `n` values of a process of mean 0 and variance 1.

    Args:
        rng: Source of randomness.
        covariance: `[M]`, M >= 2n, covariance at lags 0, 1, ..., wrapped around: symmetric in k and M - k.
        n: Periods.
    """
    size = len(covariance)
    spectrum = np.fft.fft(covariance / covariance[0]).real.clip(min=0)
    spectrum *= size / max(spectrum.sum(), _JITTER)  # clipping adds variance; remove it
    white = rng.normal(size=size) + 1j * rng.normal(size=size)
    return np.fft.fft(np.sqrt(spectrum / size) * white).real[:n].copy()


def _embedding(n: int, cycles: tuple[int, ...]) -> int:
    """Return a size of at least 2n that the longest cycle divides, so that a periodic kernel wraps around exactly."""
    unit = max((cycle for cycle in cycles if cycle <= n), default=1)
    return -(-2 * n // unit) * unit


def _kernel(rng: Generator, lags: Floats, n: int, cycles: tuple[int, ...]) -> Floats:
    """Draw a kernel of the bank, evaluated at the lags; k(0) = 1."""
    kind = str(rng.choice(list(_BANK), p=list(_BANK.values())))
    width = n * float(np.exp(rng.uniform(np.log(0.005), np.log(0.5))))
    k: Floats
    if kind == "periodic" and cycles:
        cycle = float(rng.choice(cycles))
        if rng.random() < 0.2:
            cycle = max(2.0, cycle / float(rng.choice((2, 3, 4))))
        k = np.exp(-2 * (np.sin(np.pi * lags / cycle) / np.exp(rng.uniform(np.log(0.3), np.log(3)))) ** 2)
    elif kind == "rbf":
        k = np.exp(-0.5 * (lags / width) ** 2)
    elif kind == "quadratic":
        alpha = float(rng.choice((0.1, 1.0, 10.0)))
        k = (1 + (lags / width) ** 2 / (2 * alpha)) ** -alpha
    elif kind == "white":  # noise on top of the other kernels
        k = np.where(lags == 0, 1.0, rng.uniform(0.2, 0.95))
    elif kind == "constant":
        k = np.ones_like(lags)
    else:  # Matern 1/2; also where no cycle fits
        k = np.exp(-lags / width)
    return k
