"""Shape and constants of the experts.

Owns: which experts there are, the anchor horizons, the resolution of a season's memory, and every constant. Does not
know: tensors, states, graphs. A bundle carries all of it in its metadata.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field, fields
from typing import Final

from rillcast.bundle.frequency import parse

MAX_BINS: Final = 168
"""A longer season is kept in as many bins of equal length at most."""
LEVELS: Final = tuple(n / 10 for n in range(1, 10))
_ANCHORS: Final = (1, 2, 4, 8, 16, 24, 36, 48)
_SHORT: Final = 20  # a horizon up to here has more anchors, and all of its forecasts are judged: the state stays small
_MORE_ANCHORS: Final = (1, 2, 3, 4, 6, 8, 12, 16)
_SMOOTHING: Final = 48  # the smoothed phases of a season are means over 2 / 48 of it
_DENSE: Final = 8  # anchors up to here are judged at every period


@dataclass(frozen=True, slots=True)
class Constants:
    """Rates and powers. A rate is the weight of the newest value; with an age, it is at least 1 / age.

    Attributes:
        power: Power of an expert's error in its weight; a positive whole number.
        forget: Share of the errors' sums that is kept at each event.
        neighbour: Weight of the errors at the neighbouring anchors.
        reference: Share of its long mean in the reference error, so that one period without an error is no proof.
        patience: Slots until an expert is trusted; a season's expert takes two cycles more.
        level: Rate of the level.
        slow: Rate of the level under the two seasons.
        drift: Rate of the mean change.
        spread: Rate of the mean distance from the median.
        median: Largest move of the median in units of that distance.
        holt: Rate of the level with trend.
        trend: Rate of the trend.
        damping: Share of the trend that is left a period later.
        phase: Rate of the mean of a phase.
        parts: Rates of the two seasons' parts.
        part_start: Share of its first value that the longer season's part starts with.
        season_drift: Rate of the change over a season.
        anomaly: Rate of the mean distance from the phase.
        size: Rate of the mean size of the values.
        width: Rate of the relative width of a phase.
        unit_power: Power of a unit's loss in its weight; a positive whole number.
        unit_forget: Share of the units' sums that is kept at each event.
        quantile: Rate of the quantiles, in units of the width.
        ramp: Width of the step of the quantiles' loss, in units of the width, so that roundings have small effects.
        pin: Share of the running median of the errors that is taken out of the quantiles.
        prior: Width before any error is known, relative to the value.
    """

    power: int = 12
    forget: float = 0.998
    neighbour: float = 0.5
    reference: float = 0.05
    patience: float = 4.0
    level: float = 0.4
    slow: float = 0.02
    drift: float = 0.01
    spread: float = 0.05
    median: float = 0.1
    holt: float = 0.5
    trend: float = 0.1
    damping: float = 0.95
    phase: float = 0.06
    parts: tuple[float, float] = (0.06, 0.1)
    part_start: float = 0.5
    season_drift: float = 0.05
    anomaly: float = 0.05
    size: float = 0.02
    width: float = 0.25
    unit_power: int = 20
    unit_forget: float = 0.995
    quantile: float = 0.01
    ramp: float = 0.1
    pin: float = 0.3
    prior: float = 0.05


@dataclass(frozen=True, slots=True)
class Season:
    """Memory of one season.

    Attributes:
        periods: Length in periods.
        bins: Parts of equal length that it is kept in.
        kept: Newest values of a phase that are kept, so that the horizon's last period has one.
    """

    periods: int
    bins: int
    kept: int

    @property
    def exact(self) -> bool:
        """Whether each period of the season has a bin of its own."""
        return self.bins == self.periods

    @property
    def reach(self) -> int:
        """Bins on either side that a smoothed phase is a mean of."""
        return max(1, self.bins // _SMOOTHING)


@dataclass(frozen=True, slots=True)
class ExpertsConfig:
    """Everything that fixes the layer.

    Attributes:
        freq: Frequency, such as `1h` or `1mo`.
        horizon: Slots ahead, H.
        seasons: One or two lengths in periods, the shorter first.
        quantiles: Increasing levels in (0, 1), Q of them.
        constants: Rates and powers.
        experts: Base and decay of each: the base's value ahead plus decay^h times the newest distance from it. None =
            the usual ones for the seasons.
        anchors: Horizons at which experts are judged, from 1 to H. None = the usual ones.
        stride: Slots between forecasts that are judged at anchors beyond 8.
    """

    freq: str
    horizon: int
    seasons: tuple[int, ...]
    quantiles: tuple[float, ...] = LEVELS
    constants: Constants = field(default_factory=Constants)
    experts: tuple[tuple[str, float], ...] = ()
    anchors: tuple[int, ...] = ()
    stride: int = 0

    def __post_init__(self) -> None:
        parse(self.freq)
        levels = self.quantiles
        if not levels or any(not 0 < q < 1 for q in levels) or any(b <= a for a, b in itertools.pairwise(levels)):
            raise ValueError(f"quantile levels must increase strictly within (0, 1), got {list(levels)}")
        if self.horizon < 1:
            raise ValueError(f"horizon {self.horizon}: expected at least 1 period")
        if not 1 <= len(self.seasons) <= 2 or min(self.seasons) < 1 or sorted(set(self.seasons)) != list(self.seasons):
            raise ValueError(f"seasons {list(self.seasons)}: expected one or two lengths in periods, the shorter first")
        if not self.experts:
            object.__setattr__(self, "experts", default_experts(len(self.seasons)))
        if not self.anchors:
            object.__setattr__(self, "anchors", default_anchors(self.horizon))
        if not self.stride:
            object.__setattr__(self, "stride", 1 if self.horizon <= _SHORT else 2)
        if self.anchors[0] != 1 or self.anchors[-1] != self.horizon or list(self.anchors) != sorted(set(self.anchors)):
            raise ValueError(f"anchors {list(self.anchors)}: expected increasing horizons from 1 to {self.horizon}")
        if unknown := sorted({base for base, _ in self.experts} - set(bases(len(self.seasons)))):
            raise ValueError(f"experts {unknown}: expected {', '.join(bases(len(self.seasons)))}")
        for one in fields(self.constants):
            if one.type == "int" and getattr(self.constants, one.name) < 1:
                raise ValueError(f"{one.name} {getattr(self.constants, one.name)}: expected at least 1")

    @property
    def memories(self) -> tuple[Season, ...]:
        """Memories of the seasons."""
        bins = (math.ceil(periods / math.ceil(periods / MAX_BINS)) for periods in self.seasons)
        return tuple(
            Season(periods, count, math.ceil(self.horizon / periods))
            for periods, count in zip(self.seasons, bins, strict=True)
        )

    @property
    def strides(self) -> tuple[int, ...]:
        """For each anchor, the periods between forecasts that are judged at it."""
        return tuple(1 if anchor <= _DENSE else self.stride for anchor in self.anchors)

    @property
    def rings(self) -> tuple[int, ...]:
        """For each anchor, the number of the ring of pending forecasts that it shares with others."""
        return self.strides


def bases(seasons: int) -> tuple[str, ...]:
    """Return the names of all bases; those of a season end in its number, 0 or 1."""
    of_seasons = tuple(f"{kind}{n}" for n in range(seasons) for kind in ("naive", "phase", "smooth"))
    both = ("double",) if seasons == 2 else ()
    return ("level", *of_seasons, *both, "holt", "drift", "median", "naive_drift0", "phase_anomaly0")


def default_experts(seasons: int) -> tuple[tuple[str, float], ...]:
    """Return the usual experts for one or two seasons."""
    chosen: dict[str, tuple[float, ...]] = {
        "level": (0.0, 1.0),
        "naive0": (0.0, 0.9, 1.0),
        "phase0": (0.0, 0.9, 1.0),
        "smooth0": (0.0, 0.9),
        "naive1": (0.9, 1.0),
        "phase1": (0.0, 0.9, 1.0),
        "smooth1": (0.9,),
        "double": (0.0, 0.9, 1.0),
    }
    return tuple((base, decay) for base in bases(seasons) for decay in chosen.get(base, (0.0,)))


def default_anchors(horizon: int) -> tuple[int, ...]:
    """Return the usual anchors of a horizon."""
    usual = _MORE_ANCHORS if horizon <= _SHORT else _ANCHORS
    return tuple(sorted({anchor for anchor in usual if anchor < horizon} | {horizon}))
