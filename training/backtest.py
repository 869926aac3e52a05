"""Backtests: an exported bundle through the serving engine, event by event, as production would run it.

Owns: which forecasts are taken (origins), what they are compared with, and the table of them. Does not know: PyTorch.
What is measured here is what is served: the same file, the same engine, the same state.

Origins: with a training set, the last slot of each series in it; else the slot before the last `test_fraction` of each
series; from there on every `stride` slots, as long as anything follows. Everything up to an origin has been stepped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from pipeline.bundle import Bundle
from pipeline.engine import StepEngine
from pipeline.errors import DataError
from training.accuracy import Accuracy, Floats, Ints, SeasonalNaive, accuracy
from training.data import Series

_EVENTS_PER_STEP: Final = 4_096


@dataclass(frozen=True, slots=True)
class Backtest:
    """What came out.

    Attributes:
        model: figures of the bundle.
        seasonal_naive: figures of the seasonal-naive forecast at the same origins.
        unique_ids: `n` stream ids, one per origin.
        origins_ms: `[n]` time of the last slot that was seen.
        forecast: `[n, H, Q]`.
        actual: `[n, H]`, NaN = never observed.
        levels: quantile levels.
        events: events stepped.
        seconds: time in the engine.
    """

    model: Accuracy
    seasonal_naive: Accuracy
    unique_ids: list[str]
    origins_ms: npt.NDArray[np.int64]
    forecast: npt.NDArray[np.float32]
    actual: Floats
    levels: tuple[float, ...]
    events: int
    seconds: float

    def write_forecasts(self, path: Path) -> None:
        """Write `unique_id, origin, step, q, value` as Parquet; steps count from 1."""
        n, horizon, quantiles = self.forecast.shape
        repeat = horizon * quantiles
        pl.DataFrame(
            {
                "unique_id": np.repeat(np.array(self.unique_ids, dtype=object), repeat).tolist(),
                "origin": np.repeat(self.origins_ms, repeat),
                "step": np.tile(np.repeat(np.arange(1, horizon + 1, dtype=np.int32), quantiles), n),
                "q": np.tile(np.array(self.levels), n * horizon),
                "value": self.forecast.reshape(-1).astype(np.float64),
            },
            schema_overrides={"unique_id": pl.String},
        ).with_columns(pl.col("origin").cast(pl.Datetime("ms"))).write_parquet(path)


@dataclass(frozen=True, slots=True)
class _History:
    """One series on the slot grid: every first observation of a slot."""

    first_slot: int
    grid: Floats
    first_origin: int

    def until(self, slot: int) -> Floats:
        return self.grid[: slot - self.first_slot + 1]

    def after(self, slot: int, horizon: int) -> Floats:
        start = slot - self.first_slot + 1
        values = self.grid[start : start + horizon]
        return np.concatenate((values, np.full(horizon - values.size, np.nan)))


def backtest(
    engine: StepEngine,
    data: Sequence[Series],
    *,
    train: Sequence[Series] = (),
    test_fraction: float = 0.2,
    stride: int | None = None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Backtest:
    """Step all events in time order and score the forecasts made at the origins.

    Args:
        engine: a fresh engine with the bundle.
        data: the series, or what follows `train`.
        train: what the bundle was trained on; stepped first, never scored.
        test_fraction: share of each series that is scored where there is no `train`.
        stride: slots between origins; None = the horizon.
        progress: called with events done and in all.

    Raises:
        DataError: there is nothing to score.
    """
    bundle = engine.bundle
    metadata = bundle.metadata
    horizon, season = metadata.horizon, metadata.season
    stride = horizon if stride is None else stride
    if stride < 1 or not 0 < test_fraction < 1:
        raise DataError(f"stride {stride} must be positive and test_fraction {test_fraction} within (0, 1)")
    histories = _histories(data, train, test_fraction)
    names = list(histories)
    taken: list[tuple[int, int, npt.NDArray[np.float32]]] = []
    done, seconds = 0, 0.0
    total = sum(s.slots.size for s in (*train, *data))
    for series, slots, y in _in_time_order([*train, *data], {name: i for i, name in enumerate(names)}):
        started = time.perf_counter()
        offsets = np.arange(done, done + slots.size, dtype=np.int64)
        result = engine.step(
            np.zeros_like(offsets), offsets, [names[i] for i in series.tolist()], slots * metadata.step_ms, y
        )
        seconds += time.perf_counter() - started
        taken.extend(
            (int(series[row]), int(slots[row]), result.forecast[row].copy())
            for row in np.flatnonzero(_is_origin(series, slots, histories, names, stride)).tolist()
        )
        done += slots.size
        progress(done, total)

    # The last event of a slot has the say (a repeated one leaves state and forecast alone, so they are equal).
    latest = {(series_, slot): forecast for series_, slot, forecast in taken}
    kept = {key: f for key, f in latest.items() if not np.isnan(histories[names[key[0]]].after(key[1], horizon)).all()}
    if not kept:
        raise DataError("no origin has an observation after it; is DATA what follows --train?")
    series_of = np.array([key[0] for key in kept], np.int64)
    forecast = np.stack(list(kept.values()))
    actual = np.stack([histories[names[s]].after(slot, horizon) for s, slot in kept])
    naive, scale = _seasonal_naive(histories, names, list(kept), season, horizon, metadata.quantiles)
    return Backtest(
        model=accuracy(actual, forecast.astype(np.float64), metadata.quantiles, series_of, scale),
        seasonal_naive=accuracy(actual, naive, metadata.quantiles, series_of, scale),
        unique_ids=[names[s] for s in series_of.tolist()],
        origins_ms=np.array([slot for _, slot in kept], np.int64) * metadata.step_ms,
        forecast=forecast,
        actual=actual,
        levels=metadata.quantiles,
        events=done,
        seconds=seconds,
    )


def check_trained_for(bundle: Bundle) -> None:
    """Refuse a bundle whose forecasts cannot be scored.

    Raises:
        DataError: it has no median.
    """
    if 0.5 not in bundle.metadata.quantiles:
        raise DataError(f"the bundle has quantiles {list(bundle.metadata.quantiles)}; a backtest needs 0.5 among them")


def _histories(data: Sequence[Series], train: Sequence[Series], test_fraction: float) -> dict[str, _History]:
    last_trained = {s.unique_id: int(s.slots[-1]) for s in train}
    events: dict[str, tuple[Ints, npt.NDArray[np.float32]]] = {}
    for series in (*train, *data):
        slots, y = events.get(series.unique_id, (np.empty(0, np.int64), np.empty(0, np.float32)))
        events[series.unique_id] = np.concatenate((slots, series.slots)), np.concatenate((y, series.y))
    histories = {}
    for name, (slots, y) in events.items():
        first, last = int(slots.min()), int(slots.max())
        grid = np.full(last - first + 1, np.nan)
        grid[slots[::-1] - first] = y[::-1]  # backwards, so that the first event of a slot stays
        if train:
            origin = last_trained.get(name, first - 1)
        else:
            origin = last - max(1, round((last - first + 1) * test_fraction))
        histories[name] = _History(first, grid, origin)
    return histories


def _in_time_order(
    series: Sequence[Series], index: dict[str, int]
) -> Iterator[tuple[Ints, Ints, npt.NDArray[np.float32]]]:
    """Yield chunks of (series, slot, y) over all series, ordered by slot."""
    if not series:
        raise DataError("no series to backtest")
    of = np.concatenate([np.full(s.slots.size, index[s.unique_id], np.int64) for s in series])
    slots = np.concatenate([s.slots for s in series])
    y = np.concatenate([s.y for s in series])
    order = np.argsort(slots, kind="stable")
    for first in range(0, order.size, _EVENTS_PER_STEP):
        rows = order[first : first + _EVENTS_PER_STEP]
        yield of[rows], slots[rows], y[rows]


def _is_origin(
    series: Ints, slots: Ints, histories: dict[str, _History], names: list[str], stride: int
) -> npt.NDArray[np.bool_]:
    first = np.array([histories[names[i]].first_origin for i in series.tolist()], np.int64)
    since: npt.NDArray[np.int64] = slots - first
    return np.asarray((since >= 0) & (since % stride == 0))


def _seasonal_naive(
    histories: dict[str, _History],
    names: list[str],
    origins: list[tuple[int, int]],
    season: int,
    horizon: int,
    levels: Sequence[float],
) -> tuple[Floats, Floats]:
    """Return the naive forecasts `[n, H, Q]` at the origins and the scale of every series `[S]`."""
    naive = {}
    scale = np.full(len(names), np.nan)
    for number, name in enumerate(names):
        history = histories[name]
        naive[number] = SeasonalNaive(history.until(history.first_origin), season, levels)
        scale[number] = naive[number].scale
    forecasts = [naive[s].forecast(histories[names[s]].until(slot), horizon) for s, slot in origins]
    return np.stack(forecasts), scale
