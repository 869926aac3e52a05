"""Split of series by time: the last part of each is for validation.

Owns: where each series is cut, its scale and its weight, and why a series cannot be validated on. Does not know:
windows, the model, the loss.

Invariant: a series that is cut has an observation from its cut on, and an event at most a horizon before it, so there
is a forecast to validate.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from rillcast.arrays import IntArray
from rillcast.errors import DataError
from rillcast_training.data.scratch import Scratch
from rillcast_training.data.series import Segment, Series, seasonal_scale, segments
from rillcast_training.model.forecaster import ForecasterConfig

_MIN_TRAINING_HORIZONS: Final = 2  # a series with less before the cut is trained on in full and not validated
_MAX_WEIGHT: Final = 20.0
_ZERO: Final = "has no value but 0"
_MISSING: Final = "has no observation"
_ONE_PERIOD: Final = "lies in one period (check --freq and the unit of the times)"


@dataclass(frozen=True, slots=True)
class SplitSeries:
    """A series' segments, the start of its validation part, and its scale.

    Attributes:
        segments: Segments in time order.
        cut: First period of the validation part; after the end if the series is too short to split.
        scale: Mean |y_t - y_(t - season)| before the cut, the unit of its losses; > 0.
        weight: Weight of its losses, one on average over all series.
    """

    segments: tuple[Segment, ...]
    cut: int
    scale: float
    weight: float = 1.0

    @property
    def validated(self) -> bool:
        """Whether it has a validation part."""
        return self.cut <= int(self.segments[-1].periods[-1])

    def whole(self) -> SplitSeries:
        """Return the series without a validation part."""
        return replace(self, cut=int(self.segments[-1].periods[-1]) + 1)


def split(
    series: Sequence[Series],
    config: ForecasterConfig,
    validation: float,
    balance: float = 0.0,
    scratch: Scratch | None = None,
) -> list[SplitSeries]:
    """Cut off the last share `validation` of every series, in periods, and at least one horizon.

    Periods without a forecast to score do not count: those without an observation, and gaps longer than a horizon. A
    series without any observation but zero before its cut is left out. With a `balance`, series count by their scale to
    this power: at 0 equally, as in MASE; at 1 by the size of their errors, as in a pooled loss (WQL). None counts more
    than `_MAX_WEIGHT` times the average one. The segments' arrays are in memory, or in a `scratch`.
    """
    parts = []
    for one in series:
        found = _segments(one, config)
        cut = _cut(found, config.horizon, validation)
        if (scale := _scale(found, config.seasons[0], cut)) > 0:
            kept = found if scratch is None else [segment.kept(scratch) for segment in found]
            parts.append(SplitSeries(tuple(kept), cut, scale))
    return _balanced(parts, balance)


def split_to_validate(
    series: Sequence[Series],
    config: ForecasterConfig,
    validation: float,
    balance: float = 0.0,
    scratch: Scratch | None = None,
    *,
    source: str,
) -> list[SplitSeries]:
    """Split as `split` does, and refuse data without anything to validate on.

    Args:
        series: The series.
        config: The forecaster's shape.
        validation: Share of each series that is for validation.
        balance: Power of its scale by which a series counts.
        scratch: Keeps the segments' arrays; None = memory does.
        source: Name of the data, for messages.

    Raises:
        DataError: no series can be validated on; it says why.
    """
    parts = split(series, config, validation, balance, scratch)
    if not any(part.validated for part in parts):
        causes = Counter(_cause(one, config, validation) for one in series)
        listed = "; ".join(f"{count:,} of {len(series):,} {cause}" for cause, count in causes.most_common())
        raise DataError(f"{source}: no series can be validated on: {listed}")
    return parts


def left_out(series: Sequence[Series], config: ForecasterConfig, validation: float) -> str:
    """Say how many series `split` leaves out, and why; empty if none."""
    causes = Counter(_cause(one, config, validation) for one in series)
    listed = [f"{count:,} {cause}" for cause, count in causes.most_common() if cause in (_ZERO, _MISSING)]
    return ", ".join(listed) and f"of {len(series):,} series are left out: {', '.join(listed)}"


def _cause(one: Series, config: ForecasterConfig, validation: float) -> str:
    """Return why a series cannot be validated on; of one that can, that it can."""
    found = _segments(one, config)
    observed = np.concatenate([segment.truth for segment in found])
    observed = observed[np.isfinite(observed)]
    cut = _cut(found, config.horizon, validation)
    if not observed.size:
        return _MISSING
    if one.periods[0] == one.periods[-1]:
        return _ONE_PERIOD
    if not observed.any() or not _scale(found, config.seasons[0], cut):
        return _ZERO
    if cut <= int(found[-1].periods[-1]):
        return "is usable"
    if not sum(_targets(segment, config.horizon).shape[1] for segment in found):
        return f"never has two observations within a horizon ({config.horizon} periods; check --freq)"
    needed = (_MIN_TRAINING_HORIZONS + 1) * config.horizon
    return f"is not long enough: one needs three horizons ({needed} periods) with observations"


def _segments(one: Series, config: ForecasterConfig) -> list[Segment]:
    return segments(
        one.periods,
        one.y,
        season=config.seasons[0],
        max_gap=config.max_gap,
        rule=config.fill,
        covariates=one.covariates,
    )


def _targets(segment: Segment, horizon: int) -> IntArray:
    """Return `[2, n]` periods with an observation that an event of the segment can forecast, and those since it."""
    since = np.diff(segment.periods)
    there = segment.observed[1:] & (since <= horizon) & (segment.known[:-1] > 0)
    return np.stack((segment.periods[1:][there], since[there]))


def _cut(found: Sequence[Segment], horizon: int, validation: float) -> int:
    """Return the first period of the validation part; after the end if too little is left to train on."""
    periods, since = np.concatenate([_targets(segment, horizon) for segment in found], axis=1)
    covered = int(since.sum())
    from_the_end = np.cumsum(since[::-1])
    needed = max(horizon, round(validation * (covered + 1)))
    at = int(np.searchsorted(from_the_end, needed))
    if at == len(since) or covered - int(from_the_end[at]) < _MIN_TRAINING_HORIZONS * horizon - 1:
        return int(found[-1].periods[-1]) + 1
    return int(periods[-1 - at])


def _balanced(parts: list[SplitSeries], balance: float) -> list[SplitSeries]:
    if not balance or not parts:
        return parts
    logs = balance * np.log([part.scale for part in parts])
    powers = np.exp(logs - logs.max())  # scales differ by many orders of magnitude; only their ratios count
    weights = np.minimum(powers / powers.mean(), _MAX_WEIGHT)
    return [replace(part, weight=float(w)) for part, w in zip(parts, weights / weights.mean(), strict=True)]


def _scale(segments: Sequence[Segment], season: int, cut: int) -> float:
    """Return the seasonal-naive error before the cut, or a substitute where there is no full season."""
    for lag in (season, 1):
        sums = [seasonal_scale(segment, lag, cut) for segment in segments]
        total, pairs = sum(s for s, _ in sums), sum(n for _, n in sums)
        if total > 0:
            break
    seen = np.concatenate([np.abs(c.truth[: max(0, int(cut - c.periods[0]))]) for c in segments])
    seen = seen[np.isfinite(seen)].astype(np.float64)
    level = float(seen.mean()) if len(seen) else 0.0
    return max(total / max(pairs, 1), 1e-6 * level)
