"""Results as observers get them, and events for a live view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np

from rillcast.arrays import FloatArray
from rillcast.bundle.bundle import BundleMetadata, StateSpec, Status
from rillcast.codecs.forecasts.columns import Codec, ForecastColumns
from rillcast.codecs.forecasts.encoders import make_encoder
from rillcast.engine.overdue import OverdueChange
from rillcast.engine.step_engine import Outcome, StepResult, StepStats
from rillcast.events import EventBatch
from rillcast.observability.forecast_cache import ForecastCache
from rillcast.observability.live_view import LiveView
from rillcast.observability.observer import Published
from rillcast.publishing.alarms import AlarmPublisher
from rillcast.publishing.anomalies import AnomalyPublisher
from rillcast.transports.base import Channel, Polled
from tests.support.memory import Log, MemorySink

HOUR_MS = 3_600_000
START_MS = 1_714_521_600_000  # 2024-05-01T00:00:00Z
HORIZON = 3
QUANTILES = (0.1, 0.5, 0.9)


class SettableClock:
    """Monotonic seconds that pass only when a test sets them."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def metadata(scores: tuple[str, ...] = ("pinball", "covered"), freq: str = "1h") -> BundleMetadata:
    """A bundle's description with hourly periods or others, three steps and three quantiles."""
    return BundleMetadata(
        name="toy",
        model_id="0123456789abcdef",
        cell="toy",
        freq=freq,
        horizon=HORIZON,
        quantiles=QUANTILES,
        states=(StateSpec(name="h", dtype="float32", row_shape=(1,)),),
        scores=scores,
    )


def published(
    events: EventBatch,
    result: StepResult,
    *,
    model: BundleMetadata | None = None,
    live: Sequence[bool] | None = None,
    num_streams: int = 0,
) -> Published:
    """Return what an observer gets of some events: all of their forecasts were published, as empty records."""
    n = len(events)
    residents = SimpleNamespace(num_streams=num_streams, size_bytes=0, num_split=0, last_split=None)
    engine: Any = SimpleNamespace(bundle=SimpleNamespace(metadata=model or metadata()), residents=residents)
    are_live = np.ones(n, np.bool_) if live is None else np.array(live, np.bool_)
    forecasts = ForecastColumns(
        events.unique_ids, events.ds, result.status, result.forecast, result.anomaly, events.partitions, events.offsets
    )
    polled = Polled(events.partitions, events.offsets, np.full(n, -1), [None] * n, [b""] * n)
    stepped = are_live & (result.outcome == Outcome.STEPPED)
    causes, values = np.arange(n), [b""] * n
    return Published(
        engine, polled, events, result, are_live, stepped, forecasts, causes, values, live_records=are_live
    )


def stepped(
    n: int,
    *,
    status: Sequence[Status] | None = None,
    forecast: FloatArray | None = None,
    score: FloatArray | None = None,
    anomaly: Sequence[float] | None = None,
    alarm: Sequence[Sequence[float]] | None = None,
) -> StepResult:
    """Return the results of `n` events that were stepped."""
    return StepResult(
        outcome=np.full(n, Outcome.STEPPED, np.int8),
        forecast=np.zeros((n, HORIZON, len(QUANTILES)), np.float32) if forecast is None else forecast,
        status=np.array([Status.OK] * n if status is None else status, np.int8),
        score=score,
        anomaly=None if anomaly is None else np.array(anomaly, np.float32),
        stats=StepStats(n, 1, 0, 0, 0.1),
        alarm=None if alarm is None else np.array(alarm, np.float32),
    )


def silence(*, over: bool) -> OverdueChange:
    """Return that a stream falls silent with the second record of a poll, or wakes with the first."""
    row, behind = (0, 40) if over else (1, 4)
    reached = START_MS + (behind + 1) * HOUR_MS
    spans = START_MS + HOUR_MS, reached - HOUR_MS
    return OverdueChange("quiet", over, 3, 40 + row, row, reached, *spans, behind, allowed=3, interval=168.0)


def silences(channel: Channel, live: Sequence[bool] | None = None) -> list[bytes]:
    """Return the records that a channel gets of a silence and its end."""
    sink = MemorySink(log := Log({0: []}))
    events = EventBatch.of(["a", "b"], [START_MS] * 2, [0.1] * 2, partition=3, first_offset=40)
    result = replace(stepped(2), overdue=[silence(over=False), silence(over=True)])
    observer = AlarmPublisher(sink) if channel is Channel.ALARMS else AnomalyPublisher(sink, 0.01)
    observer.observe(published(events, result, live=live))
    sink.flush(1.0)
    return [value for _, value, _ in log.published[channel] if value is not None]


def put(
    live_view: LiveView,
    unique_ids: Sequence[str],
    periods: Sequence[int],
    y: Sequence[float],
    status: Sequence[Status] | None = None,
    covered: Sequence[float] | None = None,
    num_streams: int = 0,
) -> None:
    """Give the view one poll; the forecast for step `h` and level `q` of an event is `y + 10 * h + q`."""
    values = np.asarray(y, dtype=np.float32)
    steps = 10 * np.arange(1, HORIZON + 1, dtype=np.float32)
    levels = np.asarray(QUANTILES, dtype=np.float32)
    forecast = np.nan_to_num(values)[:, None, None] + steps[None, :, None] + levels[None, None, :]
    score = None
    if covered is not None:
        score = np.stack([np.zeros(len(covered)), np.asarray(covered)], axis=1).astype(np.float32)
    events = EventBatch.of(unique_ids, START_MS + HOUR_MS * np.asarray(periods, dtype=np.int64), values)
    result = stepped(len(events), status=status, forecast=forecast.astype(np.float32), score=score)
    live_view.observe(published(events, result, num_streams=num_streams))


def publish(
    forecast_cache: ForecastCache, unique_ids: list[str], *, codec: Codec = "json", partition: int = 0, first: int = 0
) -> list[bytes]:
    """Publish one forecast for each id."""
    n = len(unique_ids)
    values = np.arange(n * 9, dtype=np.float32).reshape(n, 3, 3) + np.float32(0.1)
    columns = ForecastColumns(
        unique_ids=unique_ids,
        ds=START_MS + np.arange(n),
        status=np.zeros(n, np.int8),
        forecast=values,
        anomaly=np.array([np.nan] + [0.25] * (n - 1), np.float32),
        partitions=np.full(n, partition),
        offsets=first + np.arange(n),
    )
    _, records = make_encoder(codec, metadata(), schema_id=lambda: 7).encode(columns)
    forecast_cache.update(columns.partitions, unique_ids, records)
    return records
