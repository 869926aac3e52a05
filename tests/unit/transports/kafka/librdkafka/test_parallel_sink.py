"""Producers side by side: which one takes a record, and what a failure of one means for all. No broker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import pytest

from rillcast.errors import DeliveryError
from rillcast.settings import KafkaSettings
from rillcast.transports.base import Channel, Records
from rillcast.transports.kafka.librdkafka import parallel_sink
from rillcast.transports.kafka.librdkafka.parallel_sink import LibrdkafkaParallelSink


class OneProducer:
    """Notes what it is given; `fails` breaks it for good."""

    made: ClassVar[list[OneProducer]] = []

    def __init__(self, settings: KafkaSettings, topics: Mapping[Channel, str], limits: Mapping[Channel, int]) -> None:
        self.taken: list[tuple[Records, int | None]] = []
        self.waits: list[float] = []
        self.fails = self.closed = False
        self.made.append(self)

    def raise_failure(self) -> None:
        if self.fails:
            raise DeliveryError("lost")

    def largest_record(self, channel: Channel) -> int | None:
        return 7

    def publish(self, channel: Channel, records: Records, partition: int | None = None) -> None:
        self.taken.append((records, partition))

    def flush(self, timeout_s: float) -> None:
        self.waits.append(timeout_s)
        self.raise_failure()

    def close(self) -> None:
        self.closed = True

    @property
    def values(self) -> list[bytes | None]:
        return [value for records, _ in self.taken for value in records.values]


@pytest.fixture
def sink(monkeypatch: pytest.MonkeyPatch) -> LibrdkafkaParallelSink:
    monkeypatch.setattr(OneProducer, "made", [])
    monkeypatch.setattr(parallel_sink, "LibrdkafkaSink", OneProducer)
    return LibrdkafkaParallelSink(KafkaSettings(), {Channel.FORECASTS: "forecasts"}, {})


def of(*sources: int) -> Records:
    values = [b"%d" % row for row in range(len(sources))]
    headers = [[("row", value)] for value in values]
    return Records([b"k"] * len(values), values, headers, sources=np.array(sources, np.int64))


def test_the_records_of_a_partition_of_the_source_go_through_one_producer_in_their_order(
    sink: LibrdkafkaParallelSink,
) -> None:
    sink.publish(Channel.FORECASTS, of(2, 2, 0, 1, 2))
    sink.publish(Channel.FORECASTS, of(1, 2))
    assert {tuple(producer.values) for producer in OneProducer.made} == {
        (b"2",),
        (b"0", b"1", b"4", b"1"),
        (b"3", b"0"),
    }
    for producer in OneProducer.made:
        for records, _ in producer.taken:
            assert records.headers == [[("row", value)] for value in records.values]


def test_many_partitions_share_few_producers(sink: LibrdkafkaParallelSink) -> None:
    sources = np.arange(300) % 50
    sink.publish(Channel.FORECASTS, of(*sources.tolist()))
    assert len(OneProducer.made) == 4
    assert sorted(int(value or b"") for producer in OneProducer.made for value in producer.values) == list(range(300))
    for producer in OneProducer.made:
        rows = np.array([int(value or b"") for value in producer.values])
        for source in np.unique(sources[rows]):
            assert (np.diff(rows[sources[rows] == source]) > 0).all()


def test_records_without_a_source_go_through_the_first_producer(sink: LibrdkafkaParallelSink) -> None:
    sink.publish(Channel.STATE, Records([b"k"], [b"v"]), partition=3)
    (only,) = OneProducer.made
    assert [(records.values, partition) for records, partition in only.taken] == [([b"v"], 3)]


def test_a_record_that_one_producer_lost_breaks_them_all(sink: LibrdkafkaParallelSink) -> None:
    sink.publish(Channel.FORECASTS, of(0, 1))
    OneProducer.made[1].fails = True
    with pytest.raises(DeliveryError):
        sink.publish(Channel.FORECASTS, of(0))
    with pytest.raises(DeliveryError):
        sink.flush(1.0)


def test_a_flush_waits_for_every_producer_within_one_time_out(sink: LibrdkafkaParallelSink) -> None:
    sink.publish(Channel.FORECASTS, of(0, 1, 2))
    sink.flush(5.0)
    waits = [producer.waits for producer in OneProducer.made]
    assert [len(each) for each in waits] == [1, 1, 1]
    assert 5.0 >= waits[0][0] >= waits[1][0] >= waits[2][0] > 0.0


def test_closing_closes_every_producer(sink: LibrdkafkaParallelSink) -> None:
    sink.publish(Channel.FORECASTS, of(0, 1))
    sink.close()
    assert [producer.closed for producer in OneProducer.made] == [True, True]
