"""Accuracy of multi-horizon quantile forecasts. Owns the definitions of the figures. Does not know models or files.

    MASE      mean over series of  mean |y - median| / scale           (Hyndman & Koehler 2006; M4 averages over series)
    RMSSE     mean over series of  root of mean (y - median)^2 / squared scale       (that of M5, with a seasonal scale)
    sMAPE     mean over series of  mean 200 |y - median| / (|y| + |median|)                         (M4's, per cent)
    WQL       mean over levels of  2 sum pinball / sum |y|, sums over all series, origins and steps
    CRPS      mean over series of  mean over targets and levels of 2 pinball / scale   (Gneiting & Raftery 2007, section
              4.2: the integral over levels, here a mean over the given levels)
    coverage  share of targets within the outermost quantiles, to be compared with `nominal_coverage`

`scale` is the series' in-sample seasonal-naive mean absolute error, `squared scale` its mean squared error. A target
that was never observed does not count. A series without a scale (constant, or shorter than a season) does not count in
MASE, RMSSE and CRPS. In sMAPE 0/0 = 0, where a sum |y| + |median| counts as 0 that float32 cannot tell from it: of a
stream of zeros, whose forecasts are some 1e-22, and below the spacing of float32 at the series' largest |y|.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from rillcast.errors import DataError
from rillcast.figures import Undefined

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

NO_SCALE: Final = "no series has a scale: each is constant, or shorter than a season, before it is scored"
NO_VOLUME: Final = "every observation that is scored is 0"
_ZERO: Final = 1e-18  # a hundred times the least scale of a stream in the model
_SPACING: Final = 2.0**-23  # of float32, as a share


@dataclass(frozen=True, slots=True)
class Accuracy:
    """The figures; see the module's docstring. One without a value is `Undefined`."""

    mase: float
    rmsse: float
    smape: float
    wql: float
    crps: float
    coverage: float
    nominal_coverage: float
    targets: int
    series: int
    series_without_scale: int

    def as_dict(self) -> dict[str, float]:
        """Return plain numbers by name."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class SeriesScores:
    """Contribution of each scored series to the figures; all `[S]`.

    Attributes:
        targets: Number of targets.
        mase: Mean absolute error over the scale; NaN without a scale.
        rmsse: Root mean squared error over the root of the squared scale; NaN without one.
        smape: Per cent.
        crps: Mean quantile loss over the scale; NaN without a scale.
        loss: Sum of quantile losses (mean over the levels), in the series' own unit.
        volume: Sum of |y|.
        inside: Targets within the outermost quantiles.
    """

    targets: Floats
    mase: Floats
    rmsse: Floats
    smape: Floats
    crps: Floats
    loss: Floats
    volume: Floats
    inside: Floats

    def accuracy(self, levels: Sequence[float]) -> Accuracy:
        """Return the figures over all series."""
        volume = float(self.volume.sum())
        return Accuracy(
            mase=mean(self.mase, NO_SCALE),
            rmsse=mean(self.rmsse, NO_SCALE),
            smape=float(self.smape.mean()),
            wql=float(self.loss.sum()) / volume if volume > 0 else Undefined(NO_VOLUME),
            crps=mean(self.crps, NO_SCALE),
            coverage=float(self.inside.sum() / self.targets.sum()),
            nominal_coverage=float(levels[-1] - levels[0]),
            targets=int(self.targets.sum()),
            series=int(self.targets.size),
            series_without_scale=int(np.isnan(self.mase).sum()),
        )


def mean(values: Floats, lacking: str) -> float:
    """Return the mean of the values that are not NaN; without any, an undefined figure with the reason `lacking`."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else Undefined(lacking)


def pinball(actual: Floats, forecast: Floats, levels: Sequence[float]) -> Floats:
    """Return twice the pinball loss `[n, H, Q]`; NaN without an observation."""
    tau = np.asarray(levels, np.float64)
    difference = actual[..., None] - forecast
    loss: Floats = 2 * np.maximum(tau * difference, (tau - 1) * difference)
    return loss


def score_series(
    actual: Floats,
    forecast: Floats,
    levels: Sequence[float],
    series: Ints,
    scale: Floats,
    squared_scale: Floats | None = None,
) -> SeriesScores:
    """Score forecasts against observations, series by series.

    Args:
        actual: `[n, H]`, NaN = never observed.
        forecast: `[n, H, Q]`.
        levels: The Q quantile levels, with 0.5 among them.
        series: `[n]` in `[0, S)`, the series of each origin.
        scale: `[S]`, NaN or 0 = none.
        squared_scale: `[S]`; None = no RMSSE.

    Raises:
        DataError: there is no median, or nothing was observed.
    """
    if 0.5 not in levels:
        raise DataError(f"quantile levels {list(levels)} lack 0.5, the median, which MASE and sMAPE need")
    known = ~np.isnan(actual)
    if not known.any():
        raise DataError("no forecast has an observation to compare with")
    y = np.where(known, actual, 0.0)
    median = forecast[..., list(levels).index(0.5)]
    error = np.where(known, np.abs(y - median), 0.0)
    size = np.abs(y) + np.abs(median)
    largest = np.zeros(scale.size)
    np.maximum.at(largest, series, np.abs(y).max(1))
    there = size > np.maximum(_ZERO, _SPACING * largest)[series, None]
    relative = np.where(known & there, 200 * error / np.where(there, size, 1), 0.0)
    loss = pinball(y, forecast, levels).mean(2) * known
    inside = known & (forecast[..., 0] <= y) & (y <= forecast[..., -1])

    targets = np.bincount(series, known.sum(1), minlength=scale.size).astype(np.float64)
    scored = np.flatnonzero(targets > 0)
    count = targets[scored]

    def total(values: npt.NDArray[np.generic]) -> Floats:
        sums: Floats = np.bincount(series, values.sum(1), minlength=scale.size).astype(np.float64)
        return sums[scored]

    def over(values: Floats, unit: Floats) -> Floats:
        with np.errstate(invalid="ignore"):
            scaled = unit[scored] > 0
        return np.where(scaled, values / np.where(scaled, unit[scored], 1), np.nan)

    squared = np.full(scale.size, np.nan) if squared_scale is None else squared_scale
    return SeriesScores(
        targets=count,
        mase=over(total(error) / count, scale),
        rmsse=np.sqrt(over(total(error**2) / count, squared)),
        smape=total(relative) / count,
        crps=over(total(loss) / count, scale),
        loss=total(loss),
        volume=total(np.abs(y)),
        inside=total(inside),
    )


def accuracy(
    actual: Floats,
    forecast: Floats,
    levels: Sequence[float],
    series: Ints,
    scale: Floats,
    squared_scale: Floats | None = None,
) -> Accuracy:
    """Score forecasts against observations; arguments and errors are those of `score_series`."""
    return score_series(actual, forecast, levels, series, scale, squared_scale).accuracy(levels)


class SeasonalNaive:
    """The forecast to beat: the value of a season ago, with the in-sample seasonal differences as its errors.

    Quantiles are the empirical ones of the differences, moved so that the median equals the point forecast. They widen
    with the square root of the number of seasons ahead (the errors of a seasonal random walk; Hyndman & Athanasopoulos,
    Forecasting: principles and practice, 5.5).
    """

    def __init__(self, grid: Floats, season: int, levels: Sequence[float]) -> None:
        """Learn the errors.

        Args:
            grid: `[n]` in-sample observations by period, NaN = none.
            season: Periods in a season.
            levels: Quantile levels.
        """
        self._season = season
        differences = grid[season:] - grid[:-season] if grid.size > season else np.empty(0)
        differences = differences[~np.isnan(differences)]
        self.scale = float(np.abs(differences).mean()) if differences.size else float("nan")
        self.squared_scale = float(np.square(differences).mean()) if differences.size else float("nan")
        if differences.size:
            self._offsets = np.quantile(differences, levels) - np.median(differences)
        else:
            self._offsets = np.zeros(len(levels))

    def forecast(self, grid: Floats, horizon: int) -> Floats:
        """Return `[horizon, Q]` after the last period of `grid`; a hole takes the season before, else the last value.

        Args:
            grid: `[n]` observations by period up to the origin, at least one not NaN.
            horizon: Periods ahead.
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
