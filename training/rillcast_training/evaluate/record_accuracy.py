"""Accuracy of published forecasts: the records that a worker wrote, against the observations.

Owns: reading forecast records and aligning them with the observations and with the seasonal-naive forecast. The figures
are those of `rillcast_training.evaluate.accuracy`. Does not know: the model, or how the records were made.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from rillcast.bundle.bundle import BundleMetadata
from rillcast.errors import DataError
from rillcast_training.data.series import Series
from rillcast_training.evaluate.accuracy import Accuracy, Floats, SeasonalNaive, accuracy

# Five has no factor in common with 24, so that every hour of the day is an origin at times.
ORIGIN_STRIDE: Final = 5
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MILLISECOND: Final = dt.timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class PublishedAccuracy:
    """Figures of the published forecasts and of the seasonal-naive one, at the same origins."""

    model: Accuracy
    seasonal_naive: Accuracy
    origins: int


class _Forecast(msgspec.Struct):
    unique_id: str
    ds: dt.datetime
    quantiles: dict[str, list[float]]


def score_records(
    path: Path,
    metadata: BundleMetadata,
    data: Sequence[Series],
    split: dt.datetime,
    stride: int = ORIGIN_STRIDE,
) -> PublishedAccuracy:
    """Score the forecasts in a JSON Lines file that were made at or after `split`.

    Args:
        path: Records that the worker published.
        metadata: Metadata of the bundle that it ran.
        data: The whole series, before and after `split`.
        split: Time before which data give the scales and the naive forecast's errors.
        stride: Periods between the origins that are scored.

    Raises:
        DataError: nothing in the file can be scored.
    """
    period_of, levels, horizon = metadata.frequency.period_of, metadata.quantiles, metadata.horizon
    first_scored = period_of(_milliseconds(split))
    grids = [_grid(series) for series in data]
    naive = [SeasonalNaive(grid[: max(0, first_scored - first)], metadata.season, levels) for first, grid in grids]
    number = {series.unique_id: index for index, series in enumerate(data)}
    forecasts, actuals, naives, series_of = [], [], [], []
    for record in _records(path):
        period = period_of(_milliseconds(record.ds))
        if period < first_scored or period % stride:
            continue
        index = number[record.unique_id]
        first, grid = grids[index]
        seen, coming = grid[: period - first + 1], grid[period - first + 1 : period - first + 1 + horizon]
        if np.isnan(coming).all():
            continue
        forecasts.append(np.array(list(record.quantiles.values())).T)
        actuals.append(np.concatenate((coming, np.full(horizon - coming.size, np.nan))))
        naives.append(naive[index].forecast(seen, horizon))
        series_of.append(index)
    if not forecasts:
        raise DataError(f"{path}: no forecast from {split:%Y-%m-%d} on has an observation to compare with")
    actual, series = np.stack(actuals), np.array(series_of, dtype=np.int64)
    scale = np.array([one.scale for one in naive])
    return PublishedAccuracy(
        model=accuracy(actual, np.stack(forecasts), levels, series, scale),
        seasonal_naive=accuracy(actual, np.stack(naives), levels, series, scale),
        origins=len(forecasts),
    )


def _records(path: Path) -> Iterator[_Forecast]:
    decoder = msgspec.json.Decoder(_Forecast)
    with path.open("rb") as file:
        for line, value in enumerate(file, start=1):
            try:
                yield decoder.decode(value)
            except msgspec.MsgspecError as error:
                raise DataError(f"{path}, line {line}: not a forecast record: {error}") from error


def _grid(series: Series) -> tuple[int, Floats]:
    """Return the first period, and the observations from it on by period, NaN = none."""
    first = int(series.periods[0])
    grid = np.full(int(series.periods[-1]) - first + 1, np.nan)
    grid[series.periods - first] = series.y
    return first, grid


def _milliseconds(moment: dt.datetime) -> int:
    return (moment - _EPOCH) // _MILLISECOND
