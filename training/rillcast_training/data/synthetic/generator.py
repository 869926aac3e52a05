"""Synthetic data sets: many series of many families, each in its own units, with the defects of real input.

Owns: the family of each series, mixtures, units, time stamps, missing values; the recipe that reproduces a data set.
Does not know: how a family is made (`families`), files, models.

Invariant: series `i` of a recipe is a function of the recipe alone, independent of earlier draws; so a larger data set
begins with the smaller one.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.random import Generator

from rillcast.bundle.frequency import parse
from rillcast.errors import SettingsError
from rillcast_training.data.series import Series
from rillcast_training.data.synthetic.components import Floats
from rillcast_training.data.synthetic.cycles import cycles
from rillcast_training.data.synthetic.families import FAMILIES, Rhythm
from rillcast_training.model.features import WEEK_MS, default_context, default_seasons

MIX_SHARE: Final = 0.25
"""Share of the series that are mixtures of others."""
_MAX_MIXED: Final = 3
_MIX_CONCENTRATION: Final = 1.5
_FIRST_MS: Final = 946_684_800_000  # 2000-01-01
_LAST_MS: Final = 1_735_689_600_000  # 2025-01-01
_CONTEXTS: Final = 6  # default length, in lag windows
_SHORTEST: Final = 16
_WITHOUT_CYCLES: Final = Rhythm(main=1, cycles=(), days=False)
_DRAWS: Final = 20  # at most, until a series is fit to learn from
_LEAST_CHANGE: Final = 0.003  # share of the spread, from season to season: less is a constant or an exact repetition
_LEAST_SHARE: Final = 0.2  # share of the change of the whole, in each third: less is a nearly constant stream


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Recipe of a data set."""

    freq: str
    """Frequency of the periods, which also gives the natural cycles."""
    series: int = 1_000
    """Number of series."""
    length: int | None = None
    """Periods per series; by default six lag windows of the frequency."""
    seed: int = 0
    """Seed of everything random."""
    missing: float = 0.1
    """Share of the series that have holes: values missing, or periods without an event."""
    seasonless: float = 0.0
    """Share of the series that are drawn without any cycle."""

    def __post_init__(self) -> None:
        try:
            parse(self.freq)
        except ValueError as error:
            raise SettingsError(str(error)) from error
        if self.series < 1 or self.periods < _SHORTEST:
            raise SettingsError(
                f"synthetic data: {self.series} series of {self.periods} periods; expected at least 1 of {_SHORTEST}"
            )
        if not 0 <= self.missing <= 1:
            raise SettingsError(f"synthetic data: missing is {self.missing}, expected a share between 0 and 1")
        if not 0 <= self.seasonless <= 1:
            raise SettingsError(f"synthetic data: seasonless is {self.seasonless}, expected a share between 0 and 1")

    @property
    def periods(self) -> int:
        """Periods per series."""
        return self.length if self.length is not None else _CONTEXTS * default_context(default_seasons(self.freq))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that reproduce the recipe."""
        return asdict(self) | {"length": self.periods}


def synthesize(recipe: Recipe) -> list[Series]:
    """Return the series of a recipe; their names hold number and family, such as `synthetic/000017/seasonal`."""
    main = default_seasons(recipe.freq)[0]
    natural = cycles(recipe.freq)
    rhythm = Rhythm(main, natural, days=main * parse(recipe.freq).nominal_ms * 7 == WEEK_MS and 7 * main in natural)
    return [_one(recipe, rhythm, number) for number in range(recipe.series)]


def _one(recipe: Recipe, rhythm: Rhythm, number: int) -> Series:
    rng = np.random.default_rng((recipe.seed, number))
    if recipe.seasonless and rng.random() < recipe.seasonless:
        rhythm = _WITHOUT_CYCLES
    kind, values = _draw(rng, recipe.periods, rhythm)
    for _ in range(_DRAWS):
        if _is_alive(values, rhythm.main):
            break
        kind, values = _draw(rng, recipe.periods, rhythm)
    values = _in_a_unit(rng, values, counts=kind == "intermittent")
    period_of = parse(recipe.freq).period_of
    n = recipe.periods
    earliest = period_of(_FIRST_MS)
    first = int(rng.integers(earliest, max(period_of(_LAST_MS) - n, earliest) + 1))
    periods = np.arange(first, first + n, dtype=np.int64)
    values, periods = _with_holes(rng, recipe.missing, values, periods)
    return Series(f"synthetic/{number:06d}/{kind}", periods, values.astype(np.float32))


def _draw(rng: Generator, n: int, rhythm: Rhythm) -> tuple[str, Floats]:
    """Return a family's name and a series of it."""
    names, shares = list(FAMILIES), [share for _, share in FAMILIES.values()]
    if rng.random() < MIX_SHARE:
        return "mixture", _mixture(rng, n, rhythm, names, shares)
    kind = str(rng.choice(names, p=shares))
    return kind, FAMILIES[kind][0](rng, n, rhythm)


def _is_alive(values: Floats, season: int) -> bool:
    """Whether the series changes from season to season, and in all of its parts.

    A series that does not has a scale near zero, by which its errors are divided: a few such series would dominate the
    loss.
    """
    change = np.abs(values[season:] - values[:-season])
    if len(change) < 3:
        return bool(np.ptp(values) > 0)
    whole = float(change.mean())
    thirds = [float(part.mean()) for part in np.array_split(change, 3)]
    return whole > _LEAST_CHANGE * float(values.std()) and min(thirds) > _LEAST_SHARE * whole


def _mixture(rng: Generator, n: int, rhythm: Rhythm, names: list[str], shares: list[float]) -> Floats:
    """Return a convex mixture of two or three series, each of unit mean size.

    TSMixup of Ansari et al. (2024), Chronos, section 4.1, without mixtures of one.
    """
    weights = rng.dirichlet([_MIX_CONCENTRATION] * int(rng.integers(2, _MAX_MIXED + 1)))
    total = np.zeros(n)
    for weight in weights:
        values = FAMILIES[str(rng.choice(names, p=shares))][0](rng, n, rhythm)
        values = values - values.mean()
        total += weight * values / max(float(np.abs(values).mean()), 1e-9)
    return total


def _in_a_unit(rng: Generator, values: Floats, *, counts: bool) -> Floats:
    """Give the values a level, a unit and sometimes a resolution, as meters have them."""
    if counts and rng.random() < 0.8:
        return values
    spread = float(values.std())
    if not np.isfinite(spread) or spread < 1e-12:
        return np.zeros_like(values)
    if counts:
        return values * float(np.exp(rng.uniform(-3, 6)))
    values = (values - values.mean()) / spread
    kind = rng.random()
    if kind < 0.6:  # above zero, at levels from near its changes to far above them
        values = values - values.min() + np.exp(rng.uniform(np.log(0.01), np.log(100)))
    elif kind < 0.7:
        values = values - values.min()
    else:
        values = values + rng.normal() * 3
    values = values * np.exp(rng.uniform(np.log(1e-2), np.log(1e4)))
    if rng.random() < 0.3:
        resolution = values.std() * np.exp(rng.uniform(np.log(0.002), np.log(0.3)))
        values = np.round(values / resolution) * resolution
    return values


def _with_holes(rng: Generator, share: float, values: Floats, periods: np.ndarray) -> tuple[Floats, np.ndarray]:
    if rng.random() >= share:
        return values, periods
    n = len(values)
    lost = rng.random(n) < np.exp(rng.uniform(np.log(0.002), np.log(0.1)))
    for _ in range(int(rng.integers(0, 4))):
        begin, length = int(rng.integers(1, n)), int(np.exp(rng.uniform(0, np.log(max(2, n / 20)))))
        lost[begin : begin + length] = True
    lost[0] = False
    if rng.random() < 0.5:  # an event without a value; else no event
        return np.where(lost, np.nan, values), periods
    return values[~lost], periods[~lost]
