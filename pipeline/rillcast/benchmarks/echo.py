"""The limit of the service's rate: an echo loop, which does all of its work except forecasting.

It reads the same events through the same client, decodes them, encodes a forecast of the same size for each with the
same codec, and writes it. It polls as many events at once as the service (`worker.max_poll_records`).

Owns: the two loops, one per client library, as plain as each library allows: no rebalances, dead letters, state or
metrics. Does not know: the service that is compared with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from rillcast.arrays import FloatArray
from rillcast.benchmarks.load import START_MS
from rillcast.benchmarks.timing import Measured, Stopwatch
from rillcast.bundle.bundle import Bundle, BundleMetadata
from rillcast.codecs.connect import open_encoder
from rillcast.codecs.forecasts.columns import ForecastColumns
from rillcast.codecs.observations.decoder import ObservationDecoder
from rillcast.settings import Settings
from rillcast.transports.base import Polled
from rillcast.transports.connect import chosen_client

_SAMPLES: Final = 2_000  # forecasts of which the mean length is taken
_WAIT_S: Final = 0.1
_FLUSH_S: Final = 60.0
_Reply = Callable[[Sequence[bytes | None], Sequence[int | None], Sequence[int | None]], tuple[list[bytes], list[bytes]]]


def echo(settings: Settings, events: int) -> Measured:
    """Echo `events` events that the input topic already has, and commit."""
    stages: dict[str, float] = dict.fromkeys(("poll", "decode", "encode", "produce", "commit"), 0.0)
    reply = _replier(settings, Bundle.load(settings.one_model).metadata, stages)
    loop = _librdkafka if chosen_client(settings.kafka) == "librdkafka" else _kafka_python
    watch = Stopwatch()
    taken = loop(settings, events, reply, watch, stages)
    return watch.measured(taken, stages)


def _replier(settings: Settings, metadata: BundleMetadata, stages: dict[str, float]) -> _Reply:
    """Return a function from observations to records as large as the service's."""
    decoder = ObservationDecoder()
    encoder = open_encoder(settings, metadata)
    forecast, anomaly = _forecasts(metadata, settings.worker.max_poll_records)

    def reply(values: Sequence[bytes | None], partitions: Sequence[int | None], offsets: Sequence[int | None]) -> Any:
        started = time.thread_time()
        n = len(values)
        places = np.array(partitions, np.int64), np.array(offsets, np.int64)
        polled = Polled(*places, timestamps_ms=np.full(n, -1, np.int64), keys=[None] * n, values=values)
        events, _ = decoder.decode(polled)
        decoded = time.thread_time()
        n = len(events)
        columns = ForecastColumns(
            events.unique_ids,
            events.ds,
            np.zeros(n, np.int8),
            forecast[:n],
            anomaly[:n],
            *places,
        )
        records = encoder.encode(columns)
        stages["decode"] += decoded - started
        stages["encode"] += time.thread_time() - decoded
        return records

    return reply


def bytes_per_forecast(settings: Settings, metadata: BundleMetadata) -> float:
    """Return the mean length of the records that a forecast becomes, without their keys."""
    forecast, anomaly = _forecasts(metadata, _SAMPLES)
    rows = np.arange(len(forecast))
    columns = ForecastColumns(
        [f"stream-{row}" for row in rows],
        np.full_like(rows, START_MS),
        np.zeros(rows.size, np.int8),
        forecast,
        anomaly,
        rows,
        rows,
    )
    return sum(map(len, open_encoder(settings, metadata).encode(columns)[1])) / rows.size


def _forecasts(metadata: BundleMetadata, n: int) -> tuple[FloatArray, FloatArray]:
    """Return forecasts of a poll, `(n, H, Q)`, and their anomalies."""
    numbers = np.random.default_rng(0)
    shape = n, metadata.horizon, len(metadata.quantiles)
    forecast = np.sort(100 + 10 * numbers.normal(size=shape), axis=2)
    return forecast.astype(np.float32), numbers.random(n).astype(np.float32)


def _librdkafka(settings: Settings, events: int, reply: _Reply, watch: Stopwatch, stages: dict[str, float]) -> int:
    from confluent_kafka import Consumer, Producer

    from rillcast.transports.kafka.librdkafka.config import consumer_config, producer_config

    consumer = Consumer(consumer_config(settings.kafka, _ignore) | {"auto.offset.reset": "earliest"})
    producer = Producer(producer_config(settings.kafka, _ignore, _ignore, {}))
    consumer.subscribe([settings.input.topic])
    topic, taken, clock = settings.output.topic, 0, time.thread_time
    most = settings.worker.max_poll_records
    while taken < events:
        started = clock()
        messages = consumer.consume(most, 0)
        if not messages:
            first = consumer.poll(_WAIT_S)
            messages = [first] if first is not None else []
        messages = [message for message in messages if message.error() is None]
        if not messages:
            continue
        if watch.running:
            stages["poll"] += clock() - started
        watch.start()
        keys, values = reply(
            [message.value() for message in messages],
            [message.partition() for message in messages],
            [message.offset() for message in messages],
        )
        started = clock()
        for key, value in zip(keys, values, strict=True):
            while True:
                try:
                    producer.produce(topic, value, key)
                except BufferError:
                    producer.poll(_WAIT_S)
                else:
                    break
        producer.poll(0)
        stages["produce"] += clock() - started
        taken += len(messages)
    started = clock()
    if producer.flush(_FLUSH_S):
        raise TimeoutError(f"the echo's records were not delivered after {_FLUSH_S:g} s")
    consumer.commit(offsets=consumer.position(consumer.assignment()), asynchronous=False)
    stages["commit"] += clock() - started
    watch.stop()
    consumer.close()
    return taken


def _kafka_python(settings: Settings, events: int, reply: _Reply, watch: Stopwatch, stages: dict[str, float]) -> int:
    from kafka import KafkaConsumer, KafkaProducer

    from rillcast.transports.kafka.kafka_python.config import consumer_config, producer_config

    consumer = KafkaConsumer(**(consumer_config(settings.kafka) | {"auto_offset_reset": "earliest"}))
    producer = KafkaProducer(**producer_config(settings.kafka, {}))
    consumer.subscribe([settings.input.topic])
    topic, taken, clock = settings.output.topic, 0, time.thread_time
    most = settings.worker.max_poll_records
    while taken < events:
        started = clock()
        polled = consumer.poll(timeout_ms=_WAIT_S * 1000, max_records=most)
        messages = [message for records in polled.values() for message in records]
        if not messages:
            continue
        if watch.running:
            stages["poll"] += clock() - started
        watch.start()
        keys, values = reply(
            [message.value for message in messages],
            [message.partition for message in messages],
            [message.offset for message in messages],
        )
        started = clock()
        for key, value in zip(keys, values, strict=True):
            producer.send(topic, value, key)
        stages["produce"] += clock() - started
        taken += len(messages)
    started = clock()
    producer.flush(_FLUSH_S)
    consumer.commit()
    stages["commit"] += clock() - started
    watch.stop()
    consumer.close()
    producer.close()
    return taken


def _ignore(*_report: object) -> None:
    """Do nothing; a lost record shows as a flush that does not end."""
