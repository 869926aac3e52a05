"""Accuracy by level, by interval and by step.

Owns: the definitions of these breakdowns. Does not know: models, files, plots. Shares are over all observed targets;
widths and losses are in units of each series' scale, so a large series does not dominate the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rillcast.figures import Undefined
from rillcast_training.evaluate.accuracy import NO_SCALE, NO_VOLUME, Floats, Ints, mean, pinball


@dataclass(frozen=True, slots=True)
class LevelShare:
    """A point of the calibration curve: the share of targets at or below the quantile of `level`."""

    level: float
    share: float


@dataclass(frozen=True, slots=True)
class Interval:
    """A central interval, between the quantiles at `low` and `high`; `width` in scales."""

    low: float
    high: float
    nominal: float
    coverage: float
    width: float


@dataclass(frozen=True, slots=True)
class StepFigures:
    """Figures `step` periods ahead: absolute error and quantile loss in scales, WQL, and the outermost interval."""

    step: int
    mase: float
    crps: float
    wql: float
    bias: float
    coverage: float
    width: float


@dataclass(frozen=True, slots=True)
class Diagnostics:
    """The breakdowns of one forecast."""

    levels: tuple[LevelShare, ...]
    intervals: tuple[Interval, ...]
    steps: tuple[StepFigures, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values by name."""
        return asdict(self)


def diagnose(actual: Floats, forecast: Floats, levels: Sequence[float], series: Ints, scale: Floats) -> Diagnostics:
    """Break a forecast's accuracy down; arguments are those of `rillcast_training.evaluate.accuracy.score_series`."""
    known = ~np.isnan(actual)
    below = (actual[..., None] <= forecast)[known].mean(0)
    unit = scale[series]
    unit = np.where(unit > 0, unit, np.nan)[:, None]
    return Diagnostics(
        tuple(LevelShare(level, float(share)) for level, share in zip(levels, below, strict=True)),
        tuple(_interval(actual, forecast, levels, low, high, unit) for low, high in _pairs(levels)),
        tuple(_step(actual, forecast, levels, step, unit[:, 0]) for step in range(actual.shape[1])),
    )


def _pairs(levels: Sequence[float]) -> list[tuple[int, int]]:
    """Return positions of levels that lie symmetrically around one half, outermost first."""
    return [
        (low, high)
        for low, q in enumerate(levels)
        for high, p in enumerate(levels)
        if low < high and abs(q + p - 1) < 1e-9
    ]


def _interval(actual: Floats, forecast: Floats, levels: Sequence[float], low: int, high: int, unit: Floats) -> Interval:
    known = ~np.isnan(actual)
    inside = (forecast[..., low] <= actual) & (actual <= forecast[..., high])
    width = ((forecast[..., high] - forecast[..., low]) / unit)[known]
    return Interval(
        levels[low], levels[high], levels[high] - levels[low], float(inside[known].mean()), mean(width, NO_SCALE)
    )


def _step(actual: Floats, forecast: Floats, levels: Sequence[float], step: int, unit: Floats) -> StepFigures:
    known = ~np.isnan(actual[:, step])
    y, quantiles, scale = actual[known, step], forecast[known, step], unit[known]
    if not y.size:
        return StepFigures(step + 1, *[Undefined("nothing was observed at this step of any forecast")] * 6)
    median = quantiles[:, list(levels).index(0.5)]
    loss = pinball(y, quantiles, levels).mean(1)
    volume = float(np.abs(y).sum())
    inside = (quantiles[:, 0] <= y) & (y <= quantiles[:, -1])
    return StepFigures(
        step + 1,
        mase=mean(np.abs(y - median) / scale, NO_SCALE),
        crps=mean(loss / scale, NO_SCALE),
        wql=float(loss.sum()) / volume if volume > 0 else Undefined(NO_VOLUME),
        bias=mean((median - y) / scale, NO_SCALE),
        coverage=float(inside.mean()),
        width=mean((quantiles[:, -1] - quantiles[:, 0]) / scale, NO_SCALE),
    )
