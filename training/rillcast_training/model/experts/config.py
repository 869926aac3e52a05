"""Shape and constants of the experts.

Owns: which experts there are, the anchor horizons, the resolution of a season's memory, and every constant. Does not
know: tensors, states, graphs. A bundle carries all of it in its metadata.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field, fields, replace
from typing import Final

from rillcast.bundle.frequency import parse
from rillcast_training.model.experts.priors import Prior, usual_prior

MAX_BINS: Final = 168
"""A longer season is kept in as many bins of equal length at most."""
CORRECTIONS: Final = 3
"""Corrections of a network that are to be judged, at each anchor; the newest one is kept too."""
LEVELS: Final = tuple(n / 10 for n in range(1, 10))
_ANCHORS: Final = (1, 2, 4, 8, 16, 24, 36, 48)
_SHORT: Final = 20  # a horizon up to here has more anchors, and all of its forecasts are judged: the state stays small
_MORE_ANCHORS: Final = (1, 2, 3, 4, 6, 8, 12, 16)
_SMOOTHING: Final = 48  # the smoothed part of a season is a mean over 1 / 48 of it
_STRIDE: Final = 4  # between those of a longer one, beyond the dense anchors
_DENSE: Final = 8  # anchors up to here are judged at every period
_POSITIVE: Final = ("power", "evidence_start", "prior_errors", "prior_shift", "prior_growth", "prior_misses")
_DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class Constants:
    """Rates and powers. A rate is the weight of the newest value; with an age, it is at least 1 / age.

    Attributes:
        power: Power of an expert's error in its weight on a stream that has been followed for very long.
        evidence: Stretches as long as the horizon after which the power is half of that.
        evidence_start: Slots that count as followed when a stream begins.
        prior_errors: Errors of each expert at each anchor that the prior counts as.
        prior_shift: Errors, in units of the reference, until an expert's own ones move its prior half of the way.
        prior_growth: Errors that the growth of the reference error with the horizon counts as.
        prior_misses: Misses that a unit of width starts from.
        forget: Share of the sums of errors and misses that is kept at each event.
        neighbour: Weight of the errors at the neighbouring anchors.
        reference: Share of its long mean in the reference error, so that one period without an error is no proof.
        level: Rate of the level.
        slow: Rate of the level under the two seasons.
        drift: Rate of the mean change.
        spread: Rate of the mean distance from the median.
        median: Largest move of the median in units of that distance.
        holt: Rate of the level with trend.
        trend: Rate of the trend.
        damping: Share of the trend that is left a period later.
        phase: Rate of the mean of a phase; 0 = by frequency.
        parts: Rates of the two seasons' parts; 0 = by frequency.
        part_start: Share of its first value that the longer season's part starts with.
        season_drift: Rate of the change over a season.
        anomaly: Rate of the mean distance from the phase.
        size: Rate of the mean size of the values.
        width: Rate of the relative width of a phase.
        unit_power: Power of a unit's loss in its weight; a positive whole number.
        newest: Share of the sum of the newest misses that is kept at each event.
        quantile: Rate of the quantiles of the next period, in units of the width; that of period h is divided by the
            root of h, because errors of as many forecasts in a row are alike.
        ramp: Width of the step of the quantiles' loss, in units of the width, so that roundings have small effects.
        pin: Share of the running median of the errors that is taken out of the quantiles.
        prior: Width before any error is known, relative to the value.
    """

    power: float = 20.0
    evidence: float = 80.0
    evidence_start: float = 200.0
    prior_errors: float = 10.0
    prior_shift: float = 25.0
    prior_growth: float = 3.0
    prior_misses: float = 5.0
    forget: float = 0.998
    neighbour: float = 0.5
    reference: float = 0.05
    level: float = 0.4
    slow: float = 0.02
    drift: float = 0.01
    spread: float = 0.05
    median: float = 0.1
    holt: float = 0.5
    trend: float = 0.1
    damping: float = 0.95
    phase: float = 0.0
    parts: tuple[float, float] = (0.0, 0.0)
    part_start: float = 0.5
    season_drift: float = 0.05
    anomaly: float = 0.05
    size: float = 0.02
    width: float = 0.25
    unit_power: int = 20
    newest: float = 0.95
    quantile: float = 0.01
    ramp: float = 0.1
    pin: float = 0.3
    prior: float = 0.05

    def __post_init__(self) -> None:
        for one in fields(self):
            if one.type == "int" and getattr(self, one.name) < 1:
                raise ValueError(f"{one.name} {getattr(self, one.name)}: expected at least 1")
        for name in _POSITIVE:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} {getattr(self, name)}: expected more than 0")


@dataclass(frozen=True, slots=True)
class NetworkShape:
    """Shape of the network on top of the mixture.

    Attributes:
        cell: Recurrent cell, a name of `rillcast_training.model.cells`.
        hidden: Width of a recurrent layer.
        layers: Recurrent layers.
        dropout: Share of what it sees that is left out at random in training.
    """

    cell: str
    hidden: int
    layers: int = 1
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.hidden < 1 or self.layers < 1:
            raise ValueError(f"hidden {self.hidden}, layers {self.layers}: expected at least 1")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout {self.dropout}: expected 0 to below 1")


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
        """Bins after a phase that its smoothed part is a mean of, with its own: those before have learnt since."""
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
        prior: What is known of the experts before a stream begins. Empty = by seasons, from the shipped table.
        network: Shape of the network that corrects the mixture; None = there is none.
        bins: Parts of equal length that a season is kept in at most; None = `MAX_BINS`.
    """

    freq: str
    horizon: int
    seasons: tuple[int, ...]
    quantiles: tuple[float, ...] = LEVELS
    constants: Constants = field(default_factory=Constants)
    experts: tuple[tuple[str, float], ...] = ()
    anchors: tuple[int, ...] = ()
    stride: int = 0
    prior: Prior = field(default_factory=Prior)
    network: NetworkShape | None = None
    bins: int | None = None

    def __post_init__(self) -> None:
        parse(self.freq)
        levels = self.quantiles
        if not levels or any(not 0 < q < 1 for q in levels) or any(b <= a for a, b in itertools.pairwise(levels)):
            raise ValueError(f"quantile levels must increase strictly within (0, 1), got {list(levels)}")
        if self.horizon < 1:
            raise ValueError(f"horizon {self.horizon}: expected at least 1 period")
        if self.bins is not None and self.bins < 1:
            raise ValueError(f"bins {self.bins}: expected at least 1")
        if not 1 <= len(self.seasons) <= 2 or min(self.seasons) < 1 or sorted(set(self.seasons)) != list(self.seasons):
            raise ValueError(f"seasons {list(self.seasons)}: expected one or two lengths in periods, the shorter first")
        if not self.experts:
            object.__setattr__(self, "experts", default_experts(self.seasons))
        if not self.anchors:
            object.__setattr__(self, "anchors", default_anchors(self.horizon))
        if not self.stride:
            object.__setattr__(self, "stride", 1 if self.horizon <= _SHORT else _STRIDE)
        if self.anchors[0] != 1 or self.anchors[-1] != self.horizon or list(self.anchors) != sorted(set(self.anchors)):
            raise ValueError(f"anchors {list(self.anchors)}: expected increasing horizons from 1 to {self.horizon}")
        object.__setattr__(self, "constants", _resolved(self.constants, self.freq))
        if unknown := sorted({base for base, _ in self.experts} - set(bases(len(self.seasons)))):
            raise ValueError(f"experts {unknown}: expected {', '.join(bases(len(self.seasons)))}")
        if not self.prior.relative:
            object.__setattr__(self, "prior", usual_prior(self.seasons, self.experts, self.anchors))
        self.prior.check(len(self.anchors), len(self.experts))

    @property
    def memories(self) -> tuple[Season, ...]:
        """Memories of the seasons."""
        most = self.bins or MAX_BINS
        bins = (math.ceil(periods / math.ceil(periods / most)) for periods in self.seasons)
        return tuple(
            Season(periods, count, math.ceil(self.horizon / periods))
            for periods, count in zip(self.seasons, bins, strict=True)
        )

    @property
    def has_parts(self) -> bool:
        """Whether an expert is the sum of the parts of two seasons, so that these are kept."""
        return any(base == "double" for base, _ in self.experts)

    @property
    def strides(self) -> tuple[int, ...]:
        """For each anchor, the periods between forecasts that are judged at it."""
        return tuple(1 if anchor <= _DENSE else self.stride for anchor in self.anchors)

    @property
    def network_strides(self) -> tuple[int, ...]:
        """For each anchor, the periods between the network's corrections that are judged, so that few are pending."""
        return tuple(
            math.ceil(anchor / (CORRECTIONS * own)) * own
            for anchor, own in zip(self.anchors, self.strides, strict=True)
        )


def _resolved(constants: Constants, freq: str) -> Constants:
    """Return the constants with those that the frequency decides: a day's shape changes faster than a year's."""
    frequency = parse(freq)
    daily = not frequency.in_months and frequency.step < _DAY_MS
    short, long = constants.parts
    if daily:
        return replace(constants, phase=constants.phase or 0.1, parts=(short or 0.1, long or 0.12))
    return replace(constants, phase=constants.phase or 0.06, parts=(short or 0.06, long or 0.1))


def bases(seasons: int) -> tuple[str, ...]:
    """Return the names of all bases; those of a season end in its number, 0 or 1."""
    of_seasons = tuple(f"{kind}{n}" for n in range(seasons) for kind in ("naive", "phase"))
    both = ("double",) if seasons == 2 else ()
    return ("level", *of_seasons, *both, "holt", "drift", "median", "naive_drift0", "phase_anomaly0")


def default_experts(seasons: tuple[int, ...]) -> tuple[tuple[str, float], ...]:
    """Return the usual experts for one or two seasons. A slow decay falls to 1 / e within a season."""
    slow = [round(math.exp(-1 / season), 4) for season in seasons]
    chosen: dict[str, tuple[float, ...]] = {
        "level": (0.0, 1.0),
        "naive0": (0.0, 0.9, slow[0], 1.0),
        "phase0": (0.0, 0.9, slow[0], 1.0),
        "naive1": (0.9, 1.0),
        "phase1": (0.0, 0.9, slow[-1], 1.0),
        "double": (0.0, 0.9, slow[0], 1.0),
    }
    each = {base: dict.fromkeys(sorted(decays)) for base, decays in chosen.items()}
    return tuple((base, decay) for base in bases(len(seasons)) for decay in each.get(base, {0.0: None}))


def default_anchors(horizon: int) -> tuple[int, ...]:
    """Return the usual anchors of a horizon."""
    usual = _MORE_ANCHORS if horizon <= _SHORT else _ANCHORS
    return tuple(sorted({anchor for anchor in usual if anchor < horizon} | {horizon}))
