"""The parts of synthetic series: cycles, trends, shifts, noise.

Owns: one function per part, `(rng, n, ...) -> [n] float64`, each of about unit size, so that the caller sets the amount
of each. Does not know: families, units, time, missing values.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numpy.random import Generator

Floats = npt.NDArray[np.float64]

_WEEK_DAYS = 7


def shape(rng: Generator, m: int) -> Floats:
    """Return one cycle of `m` periods with mean 0 and standard deviation 1: harmonics, humps, or steps."""
    phase = np.arange(m) / m
    kind = rng.choice(("harmonics", "humps", "steps"), p=(0.45, 0.35, 0.2))
    if kind == "harmonics":
        count = int(rng.integers(1, max(2, min(8, m // 2))))
        k = np.arange(1, count + 1)
        amplitude = rng.normal(size=count) / k ** rng.uniform(0.5, 2.0)
        amplitude[0] += np.sign(amplitude[0]) * 0.3
        angles = 2 * np.pi * (np.outer(phase, k) + rng.random(count))
        cycle = np.cos(angles) @ amplitude
    elif kind == "humps":
        count = int(rng.integers(1, 5))
        centres, widths = rng.random(count), np.exp(rng.uniform(np.log(0.02), np.log(0.25), count))
        distance = np.abs(phase[:, None] - centres)
        distance = np.minimum(distance, 1 - distance)
        cycle = (
            np.exp(-0.5 * (distance / widths) ** 2) @ rng.lognormal(0, 0.6, count) * rng.choice((-1, 1), p=(0.2, 0.8))
        )
    else:
        edges = np.sort(rng.random(int(rng.integers(2, 6))))
        levels = rng.normal(size=len(edges) + 1)
        levels[-1] = levels[0]  # the cycle closes
        cycle = levels[np.searchsorted(edges, phase)]
    spread = float(cycle.std())
    if spread < 1e-9:  # steps that all fell between two periods
        cycle, spread = np.cos(2 * np.pi * phase), float(np.sqrt(0.5))
    standard: Floats = (cycle - cycle.mean()) / spread
    return standard


def season(rng: Generator, n: int, m: int) -> Floats:
    """Repeat a shape of `m` periods over `n`, from a random phase on, with an amplitude that may drift."""
    first = int(rng.integers(m))
    wave = np.tile(shape(rng, m), n // m + 2)[first : first + n]
    if rng.random() < 0.4:
        wave = wave * np.exp(rng.uniform(0.05, 0.5) * smooth(rng, n, max(2.0, m * rng.uniform(2, 12))))
    return wave


def week_of_days(rng: Generator, n: int, day: int) -> Floats:
    """Return a daily cycle whose height, level and sometimes shape depend on the day of the week.

    Args:
        rng: Source of randomness.
        n: Periods.
        day: Periods in a day.
    """
    work, rest = shape(rng, day), shape(rng, day)
    if rng.random() < 0.6:
        rest = work
    height = 1 + rng.uniform(0, 0.25) * rng.normal(size=_WEEK_DAYS)
    level = rng.uniform(0, 0.4) * rng.normal(size=_WEEK_DAYS)
    days_off = int(rng.choice((1, 2), p=(0.25, 0.75)))
    height[:days_off] *= rng.uniform(0.2, 1.1)
    level[:days_off] += rng.choice((-1, 1), p=(0.8, 0.2)) * rng.exponential(0.6)
    week = np.concatenate(
        [h * (rest if d < days_off else work) + v for d, (h, v) in enumerate(zip(height, level, strict=True))]
    )
    first = int(rng.integers(len(week)))
    wave: Floats = np.tile((week - week.mean()) / max(float(week.std()), 1e-9), n // len(week) + 2)
    return wave[first : first + n]


def smooth(rng: Generator, n: int, width: float) -> Floats:
    """Return twice-filtered noise of unit size, stationary, with a memory of about `width` periods."""
    decay = np.exp(-2.0 / max(width, 1.0))
    lead = int(min(4 * width, 4 * n)) + 1
    curve = _filter(_filter(rng.normal(size=n + lead), decay), decay)[lead:]
    # Its stationary variance: that of an AR(2) with the double root `decay`.
    variance = (1 + decay**2) / (1 - decay**2) ** 3
    unit: Floats = curve / np.sqrt(variance)
    return unit


def trend(rng: Generator, n: int) -> Floats:
    """Return a trend that moves by about one over the series: linear, saturating, in pieces, or wandering."""
    t = np.linspace(0, 1, n)
    sign = float(rng.choice((-1.0, 1.0)))
    kind = rng.choice(("linear", "saturating", "pieces", "wandering"))
    if kind == "linear":
        return sign * t
    if kind == "saturating":
        return sign * -np.expm1(-rng.uniform(1, 8) * t)
    if kind == "pieces":
        knots = np.sort(rng.random(int(rng.integers(1, 6))))
        slopes = np.cumsum(rng.normal(size=len(knots) + 1))
        return np.cumsum(slopes[np.searchsorted(knots, t)]) / n
    return smooth(rng, n, n * rng.uniform(0.1, 0.5))


def shifts(rng: Generator, n: int, count: int) -> Floats:
    """Return a piecewise constant level with `count` jumps of about unit size."""
    jumps = np.zeros(n)
    jumps[rng.integers(0, n, count)] = rng.standard_t(4, size=count)
    return np.cumsum(jumps)


def bursts(rng: Generator, n: int, count: int) -> Floats:
    """Return `count` sudden excursions of about unit size that die away."""
    impulses = np.zeros(n)
    impulses[rng.integers(0, n, count)] = rng.lognormal(0, 0.7, count) * rng.choice((-1, 1), count, p=(0.25, 0.75))
    return _filter(impulses, np.exp(-1 / np.exp(rng.uniform(np.log(0.3), np.log(20)))))


def noise(rng: Generator, n: int) -> Floats:
    """Return noise of unit size: normal, heavy-tailed or skewed; white or correlated."""
    kind = rng.choice(("normal", "student", "laplace", "skewed"), p=(0.5, 0.2, 0.15, 0.15))
    if kind == "normal":
        white = rng.normal(size=n)
    elif kind == "student":
        white = rng.standard_t(4, size=n) / np.sqrt(2)
    elif kind == "laplace":
        white = rng.laplace(size=n) / np.sqrt(2)
    else:
        white = (rng.gamma(2.0, size=n) - 2.0) / np.sqrt(2)
    if rng.random() < 0.5:
        memory = rng.uniform(0.2, 0.97)
        white = _filter(white, memory) * np.sqrt(1 - memory**2)
    return white


def regimes(rng: Generator, n: int) -> Floats:
    """Return a noise level in `[n]`, > 0, that switches between a few states of about 10 to `n` periods."""
    states = np.exp(rng.normal(0, 0.8, int(rng.integers(2, 4))))
    mean_length = np.exp(rng.uniform(np.log(10), np.log(n)))
    switches = rng.random(n) < 1 / mean_length
    which = rng.integers(0, len(states), n)[np.maximum.accumulate(np.where(switches, np.arange(n), 0))]
    return states[which]


def random_walk(rng: Generator, n: int) -> Floats:
    """Return a walk with normal or heavy-tailed steps of unit size."""
    steps = rng.normal(size=n) if rng.random() < 0.6 else rng.standard_t(3, size=n) / np.sqrt(3)
    return np.cumsum(steps)


def autoregression(rng: Generator, n: int, memory: float) -> Floats:
    """Return an AR(1) process of unit size."""
    return _filter(rng.normal(size=n + 50), memory)[50:] * float(np.sqrt(1 - memory**2))


def _filter(x: Floats, decay: float) -> Floats:
    """Return y_t = decay * y_(t-1) + x_t, in blocks short enough for the powers of `decay` to stay within float64."""
    if decay <= 0:
        return x
    block = max(1, min(len(x), int(300 / max(-np.log(decay), 1e-12))))
    y = np.empty_like(x)
    carried = 0.0
    for begin in range(0, len(x), block):
        part = x[begin : begin + block]
        powers = decay ** np.arange(len(part))
        y[begin : begin + block] = powers * (np.cumsum(part / powers) + decay * carried)
        carried = y[min(begin + block, len(x)) - 1]
    return y
