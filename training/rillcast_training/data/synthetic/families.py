"""Families of synthetic series: kinds of process behind a stream.

Owns: one function per family, `(rng, n, Rhythm) -> [n] float64` in arbitrary units, and how often each is drawn. Does
not know: units, time stamps, missing values (`generator` adds those), files. `docs/synthetic.md` describes each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.random import Generator

from rillcast_training.data.synthetic import components, kernels
from rillcast_training.data.synthetic.components import Floats


@dataclass(frozen=True, slots=True)
class Rhythm:
    """Cycles that a frequency suggests for a series.

    Attributes:
        main: Periods in the main season; 1 = none.
        cycles: All natural cycles in periods, shortest first, with the main season.
        days: Whether the main season is a day whose seven-fold is a cycle too, so that days of the week may differ.
    """

    main: int
    cycles: tuple[int, ...]
    days: bool


Family = Callable[[Generator, int, Rhythm], Floats]


def seasonal(rng: Generator, n: int, rhythm: Rhythm) -> Floats:
    """A strong cycle, additive or multiplicative, with trend and noise: load, traffic, demand."""
    wave = _rhythm(rng, n, rhythm)
    noise = components.noise(rng, n) * _log_uniform(rng, 0.01, 0.7)
    if rng.random() < 0.3:
        noise *= np.exp(0.5 * wave)  # noise grows with the level
    drift = components.trend(rng, n) * _log_uniform(rng, 0.05, 4) if rng.random() < 0.6 else np.zeros(n)
    if rng.random() < 0.4:
        depth = rng.uniform(0.1, 0.9)
        return np.exp(depth * wave + 0.3 * drift + depth * noise)
    return wave + drift + noise


def noisy(rng: Generator, n: int, rhythm: Rhythm) -> Floats:
    """A weak cycle under correlated noise, with a level that wanders: sensors, transformer loads, weather."""
    wave = _rhythm(rng, n, rhythm) * _log_uniform(rng, 0.1, 1.5)
    memory = 1 - _log_uniform(rng, 0.02, 0.8)
    wander = components.autoregression(rng, n, memory) * rng.uniform(0.2, 1)
    slow = components.smooth(rng, n, max(3.0, rhythm.main * _log_uniform(rng, 0.5, 20))) * rng.uniform(0, 2)
    return wave + wander + slow + components.noise(rng, n) * _log_uniform(rng, 0.05, 0.8)


def kernel(rng: Generator, n: int, rhythm: Rhythm) -> Floats:
    """A Gaussian process with a random composition of kernels (KernelSynth), sometimes through an exponential."""
    values = kernels.sample(rng, n, rhythm.cycles)
    if rng.random() < 0.4:
        values = values + components.trend(rng, n) * _log_uniform(rng, 0.1, 5)
    return np.exp(rng.uniform(0.2, 1.0) * values) if rng.random() < 0.2 else values


def wandering(rng: Generator, n: int, rhythm: Rhythm) -> Floats:
    """A random walk or an autoregression with a trace of a cycle: prices, pressure, levels of a tank."""
    if rng.random() < 0.6:
        values = components.random_walk(rng, n)
        if rng.random() < 0.4:
            values = values * components.regimes(rng, n).mean() + np.cumsum(
                rng.normal(size=n) * components.regimes(rng, n)
            )
    else:
        values = components.autoregression(rng, n, 1 - _log_uniform(rng, 0.002, 0.3)) * _log_uniform(rng, 1, 20)
    if rng.random() < 0.5:
        values = values + _rhythm(rng, n, rhythm) * _log_uniform(rng, 0.1, 5)
    return values + components.noise(rng, n) * _log_uniform(rng, 0.01, 1)


def regimes(rng: Generator, n: int, rhythm: Rhythm) -> Floats:
    """Level shifts, noise regimes and bursts on top of a cycle: server metrics."""
    values = components.shifts(rng, n, int(rng.integers(0, 6))) * _log_uniform(rng, 0.5, 6)
    values = values + components.noise(rng, n) * components.regimes(rng, n) * _log_uniform(rng, 0.05, 1)
    if rng.random() < 0.7:
        values = values + _rhythm(rng, n, rhythm)
    if rng.random() < 0.6:
        values = values + components.bursts(rng, n, int(rng.integers(1, 12))) * _log_uniform(rng, 1, 10)
    return values


def intermittent(rng: Generator, n: int, rhythm: Rhythm) -> Floats:
    """Counts, many of them zero: Poisson or negative binomial around an intensity with a cycle. Spare parts, clicks."""
    intensity = np.exp(rng.uniform(0, 1.2) * _rhythm(rng, n, rhythm) + 0.5 * components.trend(rng, n))
    intensity *= _log_uniform(rng, 0.05, 40) / intensity.mean()
    intensity = intensity.clip(max=1e6)
    if rng.random() < 0.5:
        shape = _log_uniform(rng, 0.3, 20)
        intensity = rng.gamma(shape, intensity / shape)
    return rng.poisson(intensity).astype(np.float64)


def bounded(rng: Generator, n: int, rhythm: Rhythm) -> Floats:
    """A cycle cut off at a floor, a ceiling or both: solar power at night, occupancy, a percentage."""
    values = seasonal(rng, n, rhythm) if rng.random() < 0.6 else noisy(rng, n, rhythm)
    low, high = np.quantile(values, sorted(rng.uniform((0.05, 0.6), (0.6, 1.0))))
    if rng.random() < 0.3:
        return values.clip(low, high)
    floor: Floats = values.clip(min=low) - low
    if rng.random() < 0.4:  # the weather lets only part of it through
        share = 1 / (1 + np.exp(-components.smooth(rng, n, max(2.0, rhythm.main * rng.uniform(0.1, 2))) - 1))
        floor = floor * share
    return floor


FAMILIES: Final[dict[str, tuple[Family, float]]] = {
    "seasonal": (seasonal, 0.30),
    "noisy": (noisy, 0.20),
    "kernel": (kernel, 0.20),
    "wandering": (wandering, 0.08),
    "regimes": (regimes, 0.08),
    "intermittent": (intermittent, 0.06),
    "bounded": (bounded, 0.08),
}
"""Each family by name, and how often it is drawn; the shares sum to 1."""


def _rhythm(rng: Generator, n: int, rhythm: Rhythm) -> Floats:
    """Return cycles of unit size: usually the main one, and others with it or instead of it."""
    if not rhythm.cycles:
        return components.smooth(rng, n, n * rng.uniform(0.02, 0.3))
    if rhythm.days and rng.random() < 0.6:
        wave = components.week_of_days(rng, n, rhythm.main)
    else:
        main = rhythm.main if rhythm.main > 1 and rng.random() < 0.9 else int(rng.choice(rhythm.cycles))
        wave = components.season(rng, n, main)
    others = [cycle for cycle in rhythm.cycles if cycle != rhythm.main]
    if others and rng.random() < 0.4:
        wave = wave + components.season(rng, n, int(rng.choice(others))) * rng.uniform(0.1, 0.8)
    return wave / max(float(wave.std()), 1e-9)


def _log_uniform(rng: Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))
