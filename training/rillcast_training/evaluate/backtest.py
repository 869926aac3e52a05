"""Backtests: an exported bundle through the serving engine, event by event, as production would run it.

Owns: which forecasts are taken (origins), which observations they are compared with, and the table of them. Does not
know: PyTorch, or other models at the same origins (`rillcast_training.evaluate.baselines`). A backtest measures the
served model: the same file, the same engine, the same state.

Origins: with a training set, the last period of each series in it; else that of the newest event before the last
`test_fraction` of the observations of each series. From there every `stride` periods, as long as an observation
follows. The engine has stepped all events up to an origin.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from rillcast.bundle.bundle import Bundle
from rillcast.engine.step_engine import StepEngine
from rillcast.errors import DataError
from rillcast.events import EventBatch
from rillcast.outputs import replacing
from rillcast_training.data.series import Series
from rillcast_training.evaluate.accuracy import Accuracy, Floats, Ints, SeasonalNaive, SeriesScores, score_series
from rillcast_training.evaluate.diagnostics import Diagnostics, diagnose
from rillcast_training.evaluate.scored_part import ScoredPart, count_parts
from rillcast_training.evaluate.tail_shares import TailShares

_EVENTS_PER_STEP: Final = 4_096


@dataclass(frozen=True, slots=True)
class Backtest:
    """Result of a backtest.

    Attributes:
        unique_ids: `n` stream ids, one per origin.
        origins_ms: `[n]` time of the last period before each forecast.
        series: `[n]` in `[0, S)`, the number of each origin's series.
        history: Per origin, the observations by period up to it, NaN = none.
        forecast: `[n, H, Q]`.
        naive: `[n, H, Q]`, the seasonal-naive forecast.
        last_value: `[n, H, Q]`, the forecast that nothing changes.
        actual: `[n, H]`, NaN = never observed.
        scale: `[S]` in-sample seasonal-naive mean absolute error, NaN = none.
        squared_scale: `[S]` its mean squared error.
        levels: Quantile levels.
        season: Periods in a season.
        part: How much of the data was scored, and what was left out.
        events: Events stepped.
        seconds: Time in the engine.
        tails: Shares of the observations beyond levels of anomaly, of all events; None = the bundle has no anomaly.
    """

    unique_ids: list[str]
    origins_ms: npt.NDArray[np.int64]
    series: Ints
    history: list[Floats]
    forecast: npt.NDArray[np.float32]
    naive: Floats
    last_value: Floats
    actual: Floats
    scale: Floats
    squared_scale: Floats
    levels: tuple[float, ...]
    season: int
    part: ScoredPart
    events: int
    seconds: float
    tails: TailShares | None

    @property
    def model(self) -> Accuracy:
        """Figures of the bundle."""
        return self.score(self.forecast.astype(np.float64)).accuracy(self.levels)

    @property
    def seasonal_naive(self) -> Accuracy:
        """Figures of the seasonal-naive forecast at the same origins."""
        return self.score(self.naive).accuracy(self.levels)

    def score(self, forecast: Floats) -> SeriesScores:
        """Return each series' scores of a forecast `[n, H, Q]` made at the same origins."""
        return score_series(self.actual, forecast, self.levels, self.series, self.scale, self.squared_scale)

    def diagnose(self, forecast: Floats) -> Diagnostics:
        """Break down the accuracy of a forecast `[n, H, Q]` made at the same origins."""
        return diagnose(self.actual, forecast, self.levels, self.series, self.scale)

    def write_forecasts(self, path: Path) -> None:
        """Write `unique_id, origin, step, q, value` as Parquet; steps count from 1.

        Raises:
            OutputError: The file cannot be written.
        """
        n, horizon, quantiles = self.forecast.shape
        repeat = horizon * quantiles
        frame = pl.DataFrame(
            {
                "unique_id": np.repeat(np.array(self.unique_ids, dtype=object), repeat).tolist(),
                "origin": np.repeat(self.origins_ms, repeat),
                "step": np.tile(np.repeat(np.arange(1, horizon + 1, dtype=np.int32), quantiles), n),
                "q": np.tile(np.array(self.levels), n * horizon),
                "value": self.forecast.reshape(-1).astype(np.float64),
            },
            schema_overrides={"unique_id": pl.String},
        ).with_columns(pl.col("origin").cast(pl.Datetime("ms")))
        with replacing(path) as partial:
            frame.write_parquet(partial)


@dataclass(frozen=True, slots=True)
class _Grid:
    """One series by period: the first observation of each."""

    first_period: int
    grid: Floats
    first_origin: int

    def until(self, period: int) -> Floats:
        return self.grid[: period - self.first_period + 1]

    def after(self, period: int, horizon: int) -> Floats:
        start = period - self.first_period + 1
        values = self.grid[start : start + horizon]
        return np.concatenate((values, np.full(horizon - values.size, np.nan)))


def backtest(
    engine: StepEngine,
    data: Sequence[Series],
    *,
    train: Sequence[Series] = (),
    test_fraction: float = 0.2,
    stride: int | None = None,
    steps: int | None = None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Backtest:
    """Step all events in time order and score the forecasts made at the origins.

    Args:
        engine: Fresh engine with the bundle.
        data: The series, or their continuation after `train`.
        train: Training data of the bundle; stepped first, never scored.
        test_fraction: Share of each series that is scored without `train`.
        stride: Periods between origins; None = the steps that are scored.
        steps: Steps ahead that are scored; None = all of the bundle's horizon.
        progress: Called with the events done and the events in all.

    Raises:
        DataError: there is nothing to score.
    """
    bundle = engine.bundle
    metadata = bundle.metadata
    horizon, season = steps or metadata.horizon, metadata.season
    if not 1 <= horizon <= metadata.horizon:
        raise DataError(f"steps to score are {horizon}, expected 1 to {metadata.horizon}, the bundle's horizon")
    stride = horizon if stride is None else stride
    if stride < 1 or not 0 < test_fraction < 1:
        raise DataError(f"stride is {stride} and test_fraction {test_fraction}, expected at least 1, and within (0, 1)")
    grids = _grids(data, train, test_fraction)
    names = list(grids)
    data = [_with_an_event_at_each_origin(s, grids[s.unique_id], stride) for s in data]
    taken: list[tuple[int, int, npt.NDArray[np.float32]]] = []
    tails = TailShares(len(names))
    done, seconds = 0, 0.0
    total = sum(s.periods.size for s in (*train, *data))
    events = _in_time_order([*train, *data], {name: i for i, name in enumerate(names)}, metadata.horizon)
    for series, periods, y, covariates in events:
        started = time.perf_counter()
        ids, ds = [names[i] for i in series.tolist()], metadata.frequency.start_of(periods)
        result = engine.step(
            EventBatch.of(ids, ds, y, covariates.get("x"), covariates.get("future"), first_offset=done)
        )
        seconds += time.perf_counter() - started
        if result.anomaly is not None:
            tails.add(series, result.status, result.anomaly)
        taken.extend(
            (int(series[row]), int(periods[row]), result.forecast[row, :horizon].copy())
            for row in np.flatnonzero(_is_origin(series, periods, grids, names, stride)).tolist()
        )
        done += periods.size
        progress(done, total)

    # The last event of a period counts (a repeated one leaves state and forecast unchanged, so they are equal).
    latest = {(series_, period): forecast for series_, period, forecast in taken}
    kept = {key: f for key, f in latest.items() if not np.isnan(grids[names[key[0]]].after(key[1], horizon)).all()}
    if not kept:
        remedy = "give data that continue --train" if train else "the scored part of each series has no observation"
        raise DataError(f"no origin has an observation after it: {remedy}")
    series_of = np.array([key[0] for key in kept], np.int64)
    forecast = np.stack(list(kept.values()))
    actual = np.stack([grids[names[s]].after(period, horizon) for s, period in kept])
    periods_of = np.array([key[1] for key in kept], np.int64)
    seen = [grids[names[s]].until(period) for s, period in kept]
    naives, plain = (_naives(grids, length, metadata.quantiles) for length in (season, 1))

    def of_each(forecasters: list[SeasonalNaive]) -> Floats:
        return np.stack([forecasters[s].forecast(past, horizon) for s, past in zip(series_of, seen, strict=True)])

    return Backtest(
        unique_ids=[names[s] for s in series_of.tolist()],
        origins_ms=metadata.frequency.start_of(periods_of),
        series=series_of,
        history=seen,
        forecast=forecast,
        naive=of_each(naives),
        last_value=of_each(plain),
        actual=actual,
        scale=np.array([naive.scale for naive in naives]),
        squared_scale=np.array([naive.squared_scale for naive in naives]),
        levels=metadata.quantiles,
        season=season,
        part=count_parts(
            [(grid.grid, grid.first_period, grid.first_origin) for grid in grids.values()],
            stride,
            horizon,
            series_of,
            periods_of,
        ),
        events=done,
        seconds=seconds,
        tails=tails if bundle.has_anomaly else None,
    )


def _naives(grids: dict[str, _Grid], season: int, levels: Sequence[float]) -> list[SeasonalNaive]:
    """Return the seasonal-naive forecaster of each series, whose errors are those up to the first origin."""
    return [SeasonalNaive(grid.until(grid.first_origin), season, levels) for grid in grids.values()]


def check_trained_for(bundle: Bundle) -> None:
    """Refuse a bundle whose forecasts cannot be scored.

    Raises:
        DataError: it has no median.
    """
    if 0.5 not in bundle.metadata.quantiles:
        raise DataError(f"the bundle has quantiles {list(bundle.metadata.quantiles)}; a backtest needs 0.5 among them")


def _grids(data: Sequence[Series], train: Sequence[Series], test_fraction: float) -> dict[str, _Grid]:
    last_trained = {s.unique_id: int(s.periods[-1]) for s in train}
    events: dict[str, tuple[Ints, npt.NDArray[np.float32]]] = {}
    for series in (*train, *data):
        periods, y = events.get(series.unique_id, (np.empty(0, np.int64), np.empty(0, np.float32)))
        events[series.unique_id] = np.concatenate((periods, series.periods)), np.concatenate((y, series.y))
    grids = {}
    for name, (periods, y) in events.items():
        first, last = int(periods.min()), int(periods.max())
        grid = np.full(last - first + 1, np.nan)
        grid[periods[::-1] - first] = y[::-1]  # backwards, so that the first event of a period stays
        origin = last_trained.get(name, first - 1) if train else _origin(grid, np.unique(periods), test_fraction)
        grids[name] = _Grid(first, grid, origin)
    return grids


def _with_an_event_at_each_origin(series: Series, grid: _Grid, stride: int) -> Series:
    """Return a series with a missing observation at each origin whose period has no event: a Sunday, of business days.

    What covariates would be in such a period is unknown, so a series with covariates stays as it is.
    """
    last = grid.first_period + grid.grid.size - 1
    origins = np.arange(grid.first_origin + stride, last, stride, dtype=np.int64)
    lacking = np.setdiff1d(origins[origins > grid.first_period], series.periods)
    if series.covariates is not None or not lacking.size:
        return series
    at = np.searchsorted(series.periods, lacking)
    return replace(
        series, periods=np.insert(series.periods, at, lacking), y=np.insert(series.y, at, np.float32(np.nan))
    )


def _origin(grid: Floats, periods: Ints, test_fraction: float) -> int:
    """Return the newest period with an event before the last `test_fraction` of a series' observations."""
    observed = np.flatnonzero(~np.isnan(grid)) + periods[0]
    if not observed.size:
        return int(periods[-1])
    first_scored = int(observed[-max(1, round(observed.size * test_fraction))])
    return int(periods[max(0, int(np.searchsorted(periods, first_scored)) - 1)])


def _in_time_order(
    series: Sequence[Series], index: dict[str, int], horizon: int
) -> Iterator[tuple[Ints, Ints, npt.NDArray[np.float32], dict[str, npt.NDArray[np.float32]]]]:
    """Yield chunks of (series, period, y, covariates) over all series, ordered by period."""
    if not series:
        raise DataError("no series to backtest")
    of = np.concatenate([np.full(s.periods.size, index[s.unique_id], np.int64) for s in series])
    periods = np.concatenate([s.periods for s in series])
    y = np.concatenate([s.y for s in series])
    order = np.argsort(periods, kind="stable")
    sizes = np.array([s.periods.size for s in series])
    part = np.repeat(np.arange(len(series)), sizes)
    first_rows = np.cumsum(sizes) - sizes
    given = [s.covariates for s in series if s.covariates is not None]
    x = np.concatenate([one.x for one in given]) if given else None
    for first in range(0, order.size, _EVENTS_PER_STEP):
        rows = order[first : first + _EVENTS_PER_STEP]
        covariates: dict[str, npt.NDArray[np.float32]] = {}
        if x is not None:  # then every series was loaded with them
            covariates["x"] = x[rows]
            if known := given[0].known_ahead:
                covariates["future"] = np.empty((len(rows), known, horizon), np.float32)
                for number in np.unique(part[rows]).tolist():
                    its = part[rows] == number
                    covariates["future"][its] = given[number].future(rows[its] - first_rows[number], horizon)
        yield of[rows], periods[rows], y[rows], covariates


def _is_origin(
    series: Ints, periods: Ints, grids: dict[str, _Grid], names: list[str], stride: int
) -> npt.NDArray[np.bool_]:
    first = np.array([grids[names[i]].first_origin for i in series.tolist()], np.int64)
    since: npt.NDArray[np.int64] = periods - first
    return np.asarray((since >= 0) & (since % stride == 0))
