"""Which forecasts are published."""

from __future__ import annotations

import json

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from rillcast.bundle.frequency import Frequency
from rillcast.codecs.forecasts.encoders import make_encoder, make_row_encoder
from rillcast.codecs.forecasts.reader import decode_forecast
from rillcast.codecs.forecasts.selection import Selection
from rillcast.codecs.observations.rejections import Reason
from rillcast.engine.device import Device
from rillcast.engine.step_engine import StepEngine
from rillcast.events import EventBatch
from rillcast.observability.forecast_cache import ForecastCache
from rillcast.observability.metrics import Metrics
from rillcast.publishing.filters import Policy
from rillcast.publishing.publisher import ForecastOutput, Publisher
from rillcast.transports.base import Channel, Polled, record_bytes
from tests.support.memory import Log, MemorySink
from tests.support.toy import toy_bundle

HOUR_MS = 3_600_000


def published(policy: Policy, ds: list[int]) -> list[int]:
    """Return the offsets of the events whose forecasts were published."""
    bundle, n = toy_bundle(), len(ds)
    engine = StepEngine(bundle, Device("cpu"))
    log = Log({0: []})
    registry = CollectorRegistry()
    metrics = Metrics(registry, {"": bundle.metadata}, "cpu")
    sink, cache = MemorySink(log), ForecastCache(100)
    output = ForecastOutput(sink, make_encoder("float32", bundle.metadata))
    publisher = Publisher(engine, output, [policy], [metrics, cache])
    zeros, offsets = np.zeros(n, np.int64), np.arange(n)
    polled = Polled(zeros, offsets, np.full(n, -1), [None] * n, [b""] * n)
    events = EventBatch(zeros, offsets, [f"s{i}" for i in range(n)], np.array(ds), np.ones(n, np.float32))
    result = engine.step(events)
    publisher.publish(polled, events, result, np.ones(n, dtype=bool))
    sink.flush(1.0)
    assert registry.get_sample_value("rillcast_streams") == n, "every event moves its stream"
    records = {key.decode(): value for key, value, _ in log.published[Channel.FORECASTS] if key is not None}
    assert records == dict(cache.page(100).records), "what is kept is what was published, byte for byte"
    publisher.forget(0)
    assert len(cache) == 0
    return [int(unique_id[1:]) for unique_id in records]


@pytest.mark.parametrize(
    ("every", "periods"), [(1, [0, 1, 2, 3, 4, 5, 6]), (2, [0, 2, 4, 6]), (3, [0, 3, 6]), (24, [0])]
)
def test_only_every_nth_period_is_published(every: int, periods: list[int]) -> None:
    assert (
        published(Policy(every=every, frequency=Frequency(HOUR_MS)), [period * HOUR_MS for period in range(7)])
        == periods
    )


@pytest.mark.parametrize("sizes", [[5], [300], [5, 300, 6, 301], [300] * 260 + [5]])
def test_a_forecast_that_its_topic_does_not_take_is_left_out_everywhere_and_named(sizes: list[int]) -> None:
    bundle, n, limit = toy_bundle(), len(sizes), 300
    engine, log, registry = StepEngine(bundle, Device("cpu")), Log({0: []}), CollectorRegistry()
    sink, cache, metrics = MemorySink(log), ForecastCache(1_000), Metrics(registry, {"": bundle.metadata}, "cpu")
    sink.largest[Channel.FORECASTS] = limit
    publisher = Publisher(engine, ForecastOutput(sink, make_encoder("float32", bundle.metadata)), [], [metrics, cache])
    zeros, offsets = np.zeros(n, np.int64), np.arange(n)
    polled = Polled(zeros, offsets, np.full(n, -1), [None] * n, [b""] * n)
    ids = [f"{i:x}".rjust(size, "s") for i, size in enumerate(sizes)]
    events = EventBatch(zeros, offsets, ids, np.zeros(n, np.int64), np.ones(n, np.float32))
    rejections = publisher.publish(polled, events, engine.step(events), np.ones(n, dtype=bool))
    sink.flush(1.0)
    records = log.published[Channel.FORECASTS]
    assert [key for key, _, _ in records] == [each.encode() for each in ids if len(each) < 100]
    assert all(record_bytes(*record) <= limit for record in records)
    assert dict(cache.page(1_000).records) == {(key or b"").decode(): value for key, value, _ in records}
    assert registry.get_sample_value("rillcast_forecasts_total") == len(records)
    assert [(each.row, each.reason) for each in rejections] == [
        (row, Reason.FORECAST_TOO_LARGE) for row, size in enumerate(sizes) if size > 100
    ]
    assert all("topic of forecasts at most 300 (max.message.bytes" in each.detail for each in rejections)


def test_an_event_counts_for_the_period_that_it_falls_into_also_before_the_epoch() -> None:
    ds = [HOUR_MS - 1, 2 * HOUR_MS - 1, -1, -HOUR_MS, -2 * HOUR_MS, -2 * HOUR_MS + 1]
    assert published(Policy(every=2, frequency=Frequency(HOUR_MS)), ds) == [0, 4, 5]
    days = [day * 24 * HOUR_MS for day in (0, 30, 31, 59, 89, 90)]  # 1970 up to 1 April
    assert published(Policy(every=3, frequency=Frequency(1, in_months=True)), days) == [0, 1, 5]


def test_rows_are_published_together_or_not_at_all_and_the_cache_has_whole_forecasts() -> None:
    bundle, sizes = toy_bundle(), [5, 300, 6]
    engine, log, registry = StepEngine(bundle, Device("cpu")), Log({0: []}), CollectorRegistry()
    sink, cache, metrics = MemorySink(log), ForecastCache(1_000), Metrics(registry, {"": bundle.metadata}, "cpu")
    encoder = make_row_encoder(Selection.of(bundle.metadata, (0.5,)))
    publisher = Publisher(engine, ForecastOutput(sink, encoder), [], [metrics, cache])
    n = len(sizes)
    zeros, offsets = np.zeros(n, np.int64), np.arange(n)
    polled = Polled(zeros, offsets, np.full(n, -1), [None] * n, [b""] * n)
    ids = [f"{i:x}".rjust(size, "s") for i, size in enumerate(sizes)]
    events = EventBatch(zeros, offsets, ids, np.zeros(n, np.int64), np.ones(n, np.float32))
    sink.largest[Channel.FORECASTS] = 700
    rejections = publisher.publish(polled, events, engine.step(events), np.ones(n, dtype=bool))
    sink.flush(1.0)
    records = log.published[Channel.FORECASTS]
    rows = [json.loads(value or b"") for _, value, _ in records]
    assert [(row["unique_id"], row["step"]) for row in rows] == [(ids[i], s) for i in (0, 2) for s in (1, 2)]
    assert [(each.row, each.reason) for each in rejections] == [(1, Reason.FORECAST_TOO_LARGE)]
    assert registry.get_sample_value("rillcast_forecasts_total") == 2
    kept = {unique_id: decode_forecast(value) for unique_id, value in cache.page(10).records}
    assert kept.keys() == {ids[0], ids[2]}
    for row in rows:
        whole = kept[row["unique_id"]]
        assert (whole.model, whole.offset) == (row["model"], row["source_offset"])
        assert whole.values[row["step"] - 1, 0] == row["q50"]
