"""The set that a network is pretrained on: windows of real series, sums of such windows, and synthetic series.

Owns: how a set is drawn, and which real series are held out for validation. Does not know: where real series come from.

A sum of windows of several series, each in its own unit and with weights that sum to one, has patterns of real ones in
combinations that none of them has (TSMixup: Ansari et al. 2024, Chronos: Learning the language of time series). Windows
are added at the same hour of the week, or day of the week, or month, so that work days stay work days.

Invariant: a set is a function of the seed, of the number of series and of the sources.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.random import Generator

from rillcast.arrays import AnyArray
from rillcast_training.data.series import Series
from rillcast_training.data.synthetic.generator import Recipe, synthesize
from rillcast_training.research.pretraining.sources import Source

HELD_OUT: Final = 7
"""One real series in this many is used for validation only."""
_SYNTHETIC: Final = 0.2  # share of the set
_SEASONLESS: Final = 0.4  # share of those without a cycle
_MIXED: Final = 0.7  # share of the real windows that are sums
_KNOWN: Final = 0.3  # least share of a window's periods that have a value
_DRAWS: Final = 50
_FARTHEST: Final = 6.0  # standard deviations, before an exponential is taken


@dataclass(frozen=True, slots=True)
class Shape:
    """What a frequency asks for.

    Attributes:
        shortest: Of the windows, in periods.
        longest: Of the windows, in periods.
        cycle: Periods at whose multiples windows may be moved.
    """

    shortest: int
    longest: int
    cycle: int


SHAPES: Final = {
    "1h": Shape(350, 1_100, 168),
    "1d": Shape(150, 1_200, 7),
    "1w": Shape(60, 600, 1),
    "1mo": Shape(36, 220, 12),
}
"""By frequency."""


def is_held_out(one: Source) -> bool:
    """Whether a real series is for validation; a function of its kind and name."""
    return zlib.crc32(f"{one.kind}/{one.name}".encode()) % HELD_OUT == 0


def validation_set(freq: str, sources: Sequence[Source], seed: int, windows: int) -> list[Series]:
    """Return windows of the real series that are held out, as they are."""
    drawn = _Drawn(freq, [one for one in sources if is_held_out(one)], np.random.default_rng((seed, 1)))
    return [_series(f"held out/{number}", *drawn.window()) for number in range(windows)]


def training_set(freq: str, sources: Sequence[Source], seed: int, series: int) -> list[Series]:
    """Return windows of the other real series, sums of them, and synthetic series."""
    shape, rng = SHAPES[freq], np.random.default_rng((seed, 0))
    drawn = _Drawn(freq, [one for one in sources if not is_held_out(one)], rng)
    synthetic = round(_SYNTHETIC * series)
    recipe = Recipe(freq=freq, series=synthetic, length=shape.longest, seed=seed, seasonless=_SEASONLESS)
    parts = [_cut(one, int(rng.integers(shape.shortest, shape.longest + 1))) for one in synthesize(recipe)]
    for number in range(series - synthetic):
        first, y = drawn.sum() if rng.random() < _MIXED else drawn.window()
        parts.append(_series(f"real/{number}", first, y * 10 ** rng.uniform(-2, 4)))
    return parts


def _cut(one: Series, length: int) -> Series:
    return Series(one.unique_id, one.periods[-length:], one.y[-length:])


def _series(name: str, first: int, y: AnyArray) -> Series:
    return Series(name, first + np.arange(len(y), dtype=np.int64), y.astype(np.float32))


class _Drawn:
    """Draws of windows.

    Args:
        freq: A frequency of `SHAPES`.
        sources: Series to draw from.
        rng: What is random.
    """

    def __init__(self, freq: str, sources: Sequence[Source], rng: Generator) -> None:
        self.shape, self.rng = SHAPES[freq], rng
        self.kinds = sorted({one.kind for one in sources})
        self.of = {kind: [one for one in sources if one.kind == kind] for kind in self.kinds}
        # A kind with many series counts more, but one with a hundred does not leave the others without a place.
        weights = np.array([len(self.of[kind]) ** 0.5 for kind in self.kinds])
        self.shares = weights / weights.sum()

    def window(self) -> tuple[int, AnyArray]:
        """Return the first period and the values of a window that changes."""
        for first, y in self._windows(int(self.rng.integers(self.shape.shortest, self.shape.longest + 1))):
            if _changes(y):
                return first, y
        raise AssertionError("every source has a window that changes")

    def sum(self) -> tuple[int, AnyArray]:
        """Return the first period and the values of a sum of two or three windows, with what else streams have."""
        rng = self.rng
        first, y = self.window()
        others = [self._beside(first, len(y)) for _ in range(int(rng.integers(1, 3)))]
        weights = rng.dirichlet([1.5] * (1 + len(others)))
        z = weights[0] * _standard(y)
        for weight, other in zip(weights[1:], others, strict=True):
            if other is not None:
                z = z + weight * np.nan_to_num(_standard(other))
        return first, self._worn(z)

    def _windows(self, length: int) -> Iterator[tuple[int, AnyArray]]:
        rng = self.rng
        for _ in range(_DRAWS):
            of = self.of[self.kinds[rng.choice(len(self.kinds), p=self.shares)]]
            one = of[rng.integers(len(of))]
            start = int(rng.integers(0, max(len(one.y) - length, 0) + 1))
            yield one.first + start, one.y[start : start + length]

    def _beside(self, first: int, length: int) -> AnyArray | None:
        """Return as long a window of another series, at the same place of the cycle; None = none was found."""
        cycle = self.shape.cycle
        for start, y in self._windows(length + cycle):
            lead = (first - start) % cycle
            if len(y) >= lead + length and _changes(y[lead : lead + length]):
                return y[lead : lead + length]
        return None

    def _worn(self, z: AnyArray) -> AnyArray:
        """Return a sum with a level or an exponential, a trend, noise, counts, or its sign turned."""
        rng, n = self.rng, len(z)
        kind = rng.random()
        if kind < 0.3:
            z = np.exp(np.clip(_standard(z), -_FARTHEST, _FARTHEST) * rng.uniform(0.05, 0.8))
        elif kind < 0.6:
            z = z + rng.uniform(2, 20)
        unit = np.nanstd(z)
        if rng.random() < 0.3:
            z = z + rng.normal() * np.linspace(0, 1, n) * rng.uniform(0.2, 1.5) * unit
        if rng.random() < 0.3:
            z = z + _standard(_autoregressive(rng, n)) * rng.uniform(0.05, 0.5) * unit
        if rng.random() < 0.1:
            rate = np.exp(np.clip(_standard(z) * rng.uniform(0.1, 0.8), -3, 3)) * rng.uniform(1, 30)
            return np.where(np.isfinite(rate), rng.poisson(np.nan_to_num(rate)), np.nan)
        return -z if rng.random() < 0.1 else z


def _autoregressive(rng: Generator, n: int) -> AnyArray:
    share, noise = rng.uniform(0.5, 0.99), rng.normal(size=n)
    for number in range(1, n):
        noise[number] += share * noise[number - 1]
    return noise


def _changes(y: AnyArray) -> bool:
    return bool(np.isfinite(y).mean() > _KNOWN) and float(np.nanstd(y)) > 0


def _standard(y: AnyArray) -> AnyArray:
    standard: AnyArray = (y - np.nanmean(y)) / max(float(np.nanstd(y)), 1e-30)
    return standard
