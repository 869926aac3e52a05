"""Features of a stream: its scaled lags and the calendar, as the network sees them.

Owns: the default seasons of a frequency, the causal scale, the seasonal-naive base and every input of the cells. Does
not know: cells, quantiles, losses, or where the lags come from. `rillcast_training.model.forecaster` shifts them event
by event, or unfolds them from a whole sequence; both call this module, so they agree.

Invariants: nothing here has parameters. Every figure depends only on the lags, the number of known periods and the
newest period, so a forecast is a function of the state. All values are finite for |y| <= `MAX_ABS_Y`. Differences are
taken in the stream's own unit before the division by the scale: a series whose level dwarfs its daily change keeps that
change in float32.

In the exported graph a row's figures must not depend on its position in the batch, to the last bit, because recovery by
replay relies on it. ONNX Runtime's reductions, sines and logarithms work on groups of four floats from an aligned
address, and treat the rest at the ends differently. So sums are matrix products, and `log1p` and `sin` get rows of
four.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from rillcast.bundle.frequency import Frequency, parse

DAY_MS: Final = 86_400_000
WEEK_MS: Final = 7 * DAY_MS
YEAR_MS: Final = 31_556_952_000  # the mean Gregorian year
MAX_ABS_Y: Final = 1e30  # beyond it sums over the lags could leave float32; such a value counts as missing
_MIN_CONTEXT: Final = 28  # four weeks of days; short seasons are averaged over several of them
_SHORT_SEASON: Final = 12  # a year of months: two of them tell little about a year
_MAX_PROFILE: Final = 48  # points that describe one season to the cells
_LEVEL_FLOOR: Final = 1e-6  # share of the level: some sixteen float32 spacings, so a constant stream scales its noise
_ABSOLUTE_FLOOR: Final = 1e-20
_LEVEL_PRIOR: Final = 0.1  # change per period, relative to the level, for a stream with a single observation
_SOFT_LIMIT: Final = 8.0  # features saturate here, so one outlier has a bounded effect on the cells
_SUMMARIES: Final = (
    "newest seasonal change",
    "newest change",
    "mean",
    "spread",
    "local change",
    "level",
    "known slots",
)
_NUM_SUMMARIES: Final = len(_SUMMARIES)
YEAR_MONTHS: Final = 12
_CYCLE_NAMES: Final = {
    DAY_MS: "time of day",
    WEEK_MS: "time of week",
    YEAR_MS: "time of year",
    YEAR_MONTHS: "time of year",
}
_LANES: Final = 4


def default_seasons(freq: str) -> tuple[int, ...]:
    """Return the usual seasons of a frequency in periods: the main one, then a longer one where it is affordable.

    A day for half an hour and longer (with the week as second season), a day down to five minutes, an hour or a minute
    below that, a week for days, a year for weeks and calendar months, and none (1) where nothing fits.
    """
    frequency = parse(freq)
    step = frequency.step
    if frequency.in_months:
        periods, rest = divmod(YEAR_MONTHS, step)
        return (1,) if rest else (periods,)
    if step % WEEK_MS == 0:
        return (max(1, round(YEAR_MS / step)),)
    if step % DAY_MS == 0:
        return (7,) if step == DAY_MS else (1,)
    for cycle in (DAY_MS, 3_600_000, 60_000, 1_000):
        periods, rest = divmod(cycle, step)
        if rest or not 2 <= periods <= 360:
            continue
        return (periods, 7 * periods) if cycle == DAY_MS and periods <= 48 else (periods,)
    return (1,)


def default_context(seasons: tuple[int, ...]) -> int:
    """Return the length of the lag window: the longest season, and two of the main one, three if it is short."""
    repeats = 3 if seasons[0] <= _SHORT_SEASON else 2
    return max(*seasons, repeats * seasons[0], _MIN_CONTEXT)


@dataclass(frozen=True, slots=True)
class FeatureConfig:
    """Configuration of the features.

    Attributes:
        frequency: Frequency of the periods.
        seasons: Main season in periods and, optionally, a longer one; none exceeds `context`.
        context: Periods in the lag window, L.
        horizon: Periods ahead, H.
        calendar: Whether positions in the day, week and year are features.
    """

    frequency: Frequency
    seasons: tuple[int, ...]
    context: int
    horizon: int
    calendar: bool = True

    def __post_init__(self) -> None:
        if not 1 <= len(self.seasons) <= 2 or any(not 1 <= m <= self.context for m in self.seasons):
            raise ValueError(
                f"seasons {list(self.seasons)}: expected one or two of 1 to {self.context} periods (the context length)"
            )
        if len(self.seasons) == 2 and self.seasons[1] <= self.seasons[0]:
            raise ValueError(f"seasons {list(self.seasons)}: the second must be longer than the first")
        if self.context <= self.seasons[0]:
            raise ValueError(f"context {self.context} must be longer than the main season of {self.seasons[0]} periods")


class LagView(NamedTuple):
    """Lags as the network sees them; `...` are their leading dimensions.

    Attributes:
        features: `[..., F]` inputs of the cells and the head, bounded.
        base: `[..., H]` the seasonal-naive forecast, in the stream's own unit.
        scale: `[..., 1]` causal scale, in the stream's own unit, > 0.
        directions: Corrections that the head may take a share of, each `[..., H]`, or `[..., 1]` for all horizons, in
            units of the scale: towards the newest value, the newest seasonal change, the mean over all whole seasons,
            and the second season if there is one. Then the covariates that are known ahead.
        ahead: `[..., A]` features of the periods ahead, for the head alone; None without covariates known ahead.
    """

    features: Tensor
    base: Tensor
    scale: Tensor
    directions: tuple[Tensor, ...]
    ahead: Tensor | None = None

    def take(self, *where: Tensor) -> LagView:
        """Index the leading dimensions of every part."""
        directions = tuple(direction[where] for direction in self.directions)
        ahead = None if self.ahead is None else self.ahead[where]
        return LagView(self.features[where], self.base[where], self.scale[where], directions, ahead)


class LagFeatures(nn.Module):
    """Turn lags into features, base and scale. No parameters."""

    position: Tensor
    mean: Tensor
    sums_of_changes: Tensor
    lanes: Tensor
    phase_mean: Tensor
    gap_logs: Tensor
    known_changes: Tensor

    def __init__(self, config: FeatureConfig) -> None:
        super().__init__()
        self.config = config
        season = config.seasons[0]
        self.profile_stride = math.ceil(season / _MAX_PROFILE)
        profile = math.ceil(season / self.profile_stride)
        self.cycles = _calendar_cycles(config.frequency) if config.calendar else ()
        self.num_directions = 2 + len(config.seasons)
        self.num_features = profile * len(config.seasons) + _NUM_SUMMARIES + 2 * len(self.cycles)
        self.register_buffer("position", torch.arange(config.context, dtype=torch.float32), persistent=False)
        self.register_buffer("mean", torch.full((config.context, _LANES), 1 / config.context), persistent=False)
        sums = torch.zeros(2 * config.context - 1 - season, _LANES)
        sums[: config.context - 1, 0::2], sums[config.context - 1 :, 1::2] = 1, 1
        self.register_buffer("sums_of_changes", sums, persistent=False)
        self.register_buffer("lanes", torch.ones(_LANES), persistent=False)
        self.register_buffer("phase_mean", _phase_mean(config.context, season), persistent=False)
        gaps = torch.arange(config.context + 1, dtype=torch.float32)
        self.register_buffer("gap_logs", torch.log1p(gaps), persistent=False)
        known_periods = torch.arange(config.context) >= config.context - torch.arange(config.context + 1).unsqueeze(1)
        # As bytes: it is the largest constant of a bundle, and grows with the square of the lags.
        known_changes = torch.cat([known_periods[:, :-1], known_periods[:, :-season]], dim=1)
        self.register_buffer("known_changes", known_changes.to(torch.int8), persistent=False)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the features; those of a group share the part before the bracket, [-k] is k periods ago."""
        season, stride = self.config.seasons[0], self.profile_stride
        groups = ("season", "longer season")[: len(self.config.seasons)]
        profile = (f"{group}[-{lag}]" for group in groups for lag in range(season - 1, -1, -stride))
        calendar = (f"{_CYCLE_NAMES[cycle]}[{wave}]" for wave in ("sin", "cos") for cycle in self.cycles)
        return (*profile, *_SUMMARIES, *calendar)

    def mask_unknown(self, lags: Tensor, known: Tensor) -> Tensor:
        """Replace the periods before the `known` newest ones by the newest value.

        Args:
            lags: `[..., L]`, newest last.
            known: `[...]` int64, periods known since the segment began.
        """
        oldest = self.config.context - known.clamp(max=self.config.context).to(torch.float32).unsqueeze(-1)
        return torch.where(self.position >= oldest, lags, lags[..., -1:])

    def forward(self, lags: Tensor, known: Tensor, period: Tensor) -> LagView:
        """Describe the lags.

        Args:
            lags: `[..., L]` float32 in the stream's own unit, newest last; periods before the known ones hold the
                newest value (`mask_unknown`).
            known: `[...]` int64, periods known since the segment began.
            period: `[...]` int64, the newest period, counted from the epoch.
        """
        length, season = self.config.context, self.config.seasons[0]
        newest = lags[..., -1:]
        within = known.clamp(max=length)
        known_f = within.to(torch.float32).unsqueeze(-1)
        inside = self.known_changes[within].to(torch.float32)

        level = _mean(lags.abs(), self.mean)
        changes = [lags[..., 1:] - lags[..., :-1], lags[..., season:] - lags[..., :-season]]
        sums = torch.matmul(torch.cat(changes, dim=-1).abs() * inside, self.sums_of_changes)
        of_period, seasonal, *_ = torch.split(sums, 1, dim=-1)
        local = (of_period + _LEVEL_PRIOR * level) / known_f.clamp(min=1)
        weight = max(1.0, season / 4)  # pairs that the local change counts as, until there are seasonal ones
        scale = (seasonal + weight * local) / ((known_f - season).clamp(min=0) + weight)
        scale = torch.maximum(scale, level * _LEVEL_FLOOR).clamp(min=_ABSOLUTE_FLOOR)

        base = self._seasonal_naive(lags, season)
        newest_change = newest - lags[..., -1 - season : length - season]
        centred = lags - newest
        phases, overall = torch.split(torch.matmul(centred, self.phase_mean), [season, 1], dim=-1)
        mean = self._repeat(phases, season)
        directions = [(newest - base) / scale, newest_change / scale, (mean + (newest - base)) / scale]
        profile = lags[..., length - season :: self.profile_stride]
        shape = [profile - newest]
        spread = _mean(centred.abs(), self.mean)
        summaries = [newest_change, newest - lags[..., -2:-1], overall, spread, local]
        others = [torch.log1p(level / scale * self.lanes)[..., :1] / 4, known_f / length]
        if len(self.config.seasons) == 2:
            second = self.config.seasons[1]
            directions.append((self._seasonal_naive(lags, second) - base) / scale)
            earlier = lags[..., length - second : length - second + season : self.profile_stride]
            shape.append(earlier - profile)
        features = torch.cat([torch.cat([*shape, *summaries], dim=-1) / scale, *others], dim=-1)
        features = features / (1 + features.abs() / _SOFT_LIMIT)
        if self.cycles:
            features = torch.cat([features, self._calendar(period)], dim=-1)
        return LagView(features, base, scale, tuple(directions))

    def log_gap(self, gap: Tensor) -> Tensor:
        """Return `log(1 + gap)` of gaps, int64 in 0 to `context`, from a table."""
        return self.gap_logs[gap]

    def _seasonal_naive(self, lags: Tensor, season: int) -> Tensor:
        """Repeat the newest `season` lags over the horizon: `[..., H]`."""
        return self._repeat(lags[..., self.config.context - season :], season)

    def _repeat(self, cycle: Tensor, season: int) -> Tensor:
        """Repeat a cycle `[..., season]` over the horizon, `[..., H]`."""
        repeats = math.ceil(self.config.horizon / season)
        repeated = torch.cat([cycle] * repeats, dim=-1) if repeats > 1 else cycle
        return repeated[..., : self.config.horizon]

    def _calendar(self, period: Tensor) -> Tensor:
        """Return `[..., 2 * cycles]` sines and cosines; the phase is taken in int64, never from a float time."""
        time = period * self.config.frequency.step
        phases = [torch.remainder(time, cycle).to(torch.float32) * (2 * math.pi / cycle) for cycle in self.cycles]
        # The sine a quarter of a cycle later is the cosine. Two cycles fill the lanes, a single one fills them twice.
        angles = [*phases, *(phase + math.pi / 2 for phase in phases)]
        waves = torch.sin(torch.stack(angles * (_LANES // len(angles)), dim=-1))
        return waves[..., : len(angles)]


def _mean(values: Tensor, shares: Tensor) -> Tensor:
    """Return the means of `[..., L]`, `[..., 1]`; `shares` is `[L, 4]`, as one column would be a reduction again."""
    return torch.matmul(values, shares)[..., :1]


def _phase_mean(length: int, season: int) -> Tensor:
    """Return `[L, m + 1]`: lags times this are the mean season over their whole seasons, and their overall mean."""
    whole = length // season
    matrix = torch.zeros(length, season + 1)
    matrix[length - whole * season :, :season] = torch.eye(season).repeat(whole, 1) / whole
    matrix[:, season] = 1 / length
    return matrix


def _calendar_cycles(frequency: Frequency) -> tuple[int, ...]:
    """Return the calendar cycles, in the unit of the step, that span at least two periods and are worth their input.

    The year is left out below a day: a few months of training data would only tell the network their dates.
    """
    step = frequency.step
    if frequency.in_months:
        return (YEAR_MONTHS,) if 2 * step <= YEAR_MONTHS else ()
    if step < DAY_MS:
        return (DAY_MS, WEEK_MS)
    return (WEEK_MS, YEAR_MS) if step < WEEK_MS else (YEAR_MS,)
