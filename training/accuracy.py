"""Accuracy of multi-horizon quantile forecasts. Owns the definitions of the figures; knows no model and no file.

    MASE      mean over series of  mean |y - median| / scale           (Hyndman & Koehler 2006; M4 averages over series)
    sMAPE     mean over series of  mean 200 |y - median| / (|y| + |median|), 0/0 = 0               (M4's, per cent)
    WQL       mean over levels of  2 sum pinball / sum |y|, sums over all series, origins and steps
    coverage  share of targets within the outermost quantiles, to be compared with `nominal_coverage`

`scale` is the series' in-sample seasonal-naive mean absolute error. A target that was never observed counts nowhere; a
series without a scale (constant, or shorter than a season) counts nowhere in MASE.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from pipeline.errors import DataError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Accuracy:
    """The figures; see the module's docstring. NaN where nothing could be counted."""

    mase: float
    smape: float
    wql: float
    coverage: float
    nominal_coverage: float
    targets: int
    series: int
    series_without_scale: int

    def as_dict(self) -> dict[str, float]:
        """Return plain numbers by name."""
        return asdict(self)


def accuracy(actual: Floats, forecast: Floats, levels: Sequence[float], series: Ints, scale: Floats) -> Accuracy:
    """Score forecasts against what came.

    Args:
        actual: `[n, H]`, NaN = never observed.
        forecast: `[n, H, Q]`.
        levels: the Q quantile levels; 0.5 must be among them.
        series: `[n]` in `[0, S)`, which series each origin belongs to.
        scale: `[S]`, NaN or 0 = none.

    Raises:
        DataError: there is no median, or nothing was observed.
    """
    if 0.5 not in levels:
        raise DataError(f"quantile levels {list(levels)} lack 0.5, which MASE and sMAPE are made of")
    known = ~np.isnan(actual)
    if not known.any():
        raise DataError("no forecast has an observation to be compared with")
    y = np.where(known, actual, 0.0)
    median = forecast[..., list(levels).index(0.5)]
    error = np.where(known, np.abs(y - median), 0.0)
    size = np.abs(y) + np.abs(median)
    relative = np.where(known & (size > 0), 200 * error / np.where(size > 0, size, 1), 0.0)
    tau = np.asarray(levels, np.float64)
    difference = y[..., None] - forecast
    pinball = np.maximum(tau * difference, (tau - 1) * difference) * known[..., None]
    inside = known & (forecast[..., 0] <= y) & (y <= forecast[..., -1])

    per_series = np.bincount(series, known.sum(1), minlength=scale.size)
    scored = np.flatnonzero(per_series > 0)
    mean_error = np.bincount(series, error.sum(1), minlength=scale.size)[scored] / per_series[scored]
    mean_relative = np.bincount(series, relative.sum(1), minlength=scale.size)[scored] / per_series[scored]
    with np.errstate(invalid="ignore"):
        has_scale = scale[scored] > 0
    volume = np.abs(y).sum()
    return Accuracy(
        mase=float(np.mean(mean_error[has_scale] / scale[scored][has_scale])) if has_scale.any() else float("nan"),
        smape=float(np.mean(mean_relative)),
        wql=float(2 * pinball.sum((0, 1)).mean() / volume) if volume > 0 else float("nan"),
        coverage=float(inside.sum() / known.sum()),
        nominal_coverage=float(levels[-1] - levels[0]),
        targets=int(known.sum()),
        series=int(scored.size),
        series_without_scale=int(np.count_nonzero(~has_scale)),
    )


class SeasonalNaive:
    """The forecast to beat: what was one season ago, with the in-sample seasonal differences as its errors.

    Quantiles are the empirical ones of the differences, moved so that the median stands on the point forecast, and
    wider by the square root of the number of seasons ahead (the errors of a seasonal random walk; Hyndman &
    Athanasopoulos, Forecasting: principles and practice, 5.5).
    """

    def __init__(self, grid: Floats, season: int, levels: Sequence[float]) -> None:
        """Learn the errors.

        Args:
            grid: `[n]` in-sample observations by slot, NaN = none.
            season: slots.
            levels: quantile levels.
        """
        self._season = season
        differences = grid[season:] - grid[:-season] if grid.size > season else np.empty(0)
        differences = differences[~np.isnan(differences)]
        self.scale = float(np.abs(differences).mean()) if differences.size else float("nan")
        if differences.size:
            self._offsets = np.quantile(differences, levels) - np.median(differences)
        else:
            self._offsets = np.zeros(len(levels))

    def forecast(self, grid: Floats, horizon: int) -> Floats:
        """Return `[horizon, Q]` after the last slot of `grid`; a hole takes the season before, or else the last value.

        Args:
            grid: `[n]` observations by slot up to the origin, at least one not NaN.
            horizon: slots ahead.
        """
        observed = grid[~np.isnan(grid)]
        if not observed.size:
            raise DataError("seasonal naive: nothing was observed before the origin")
        points = np.full(horizon, observed[-1])
        for step in range(horizon):
            at = grid.size + step
            while (at := at - self._season) >= 0:
                if at < grid.size and not np.isnan(grid[at]):
                    points[step] = grid[at]
                    break
        seasons_ahead = np.arange(horizon) // self._season + 1
        result: Floats = points[:, None] + self._offsets * np.sqrt(seasons_ahead)[:, None]
        return result
