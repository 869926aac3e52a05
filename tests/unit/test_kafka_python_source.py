"""The kafka-python source's dealings with its helper thread and with the brokers' answers, without a broker."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from kafka import TopicPartition

from pipeline.transports.kafka_python.lookup import look_up
from pipeline.transports.kafka_python.partitions import Partitions
from pipeline.transports.kafka_python.poller import Poller
from pipeline.transports.kafka_python.rebalance import Question


def test_a_late_notice_of_an_earlier_fetch_does_not_end_the_wait_for_this_one() -> None:
    """It did: then the source waited for the fetch, and the fetch for the source to answer its rebalance."""
    poller = Poller()
    earlier: Future[Any] = Future()
    fetch: Future[Any] = Future()
    question = object.__new__(Question)
    for item in (earlier, question):
        poller._inbox.put(item)
    asked: list[Question] = []
    assert not poller.wait_for(fetch, asked.append, time.monotonic() + 0.05)
    assert asked == [question]
    poller._inbox.put(fetch)
    assert poller.wait_for(fetch, asked.append, time.monotonic() + 5)


class MovingConsumer:
    """A consumer whose group goes on without it: every answer is later than the one before."""

    def __init__(self) -> None:
        self._now = 100

    def _passing(self) -> int:
        self._now += 10
        return self._now

    def beginning_offsets(self, keys: Sequence[TopicPartition], timeout_ms: float) -> dict[TopicPartition, int]:
        return dict.fromkeys(keys, self._passing())

    def end_offsets(self, keys: Sequence[TopicPartition], timeout_ms: float) -> dict[TopicPartition, int]:
        return dict.fromkeys(keys, self._passing())

    def committed(self, key: TopicPartition, timeout_ms: float) -> int:
        return self._passing()


def test_a_member_that_lost_its_partitions_never_sees_a_committed_position_beyond_the_end() -> None:
    for assignment in look_up(MovingConsumer(), "observations", [0, 1], 1.0):
        assert assignment.committed is not None
        assert assignment.beginning <= assignment.committed <= assignment.end


def test_what_a_call_brings_that_began_before_a_partition_was_started_is_not_handed_out() -> None:
    partitions = Partitions()
    partitions.assign(0, 5, 100)
    partitions.assign(1, None, 100)
    assert dict(partitions.positions) == {0: 5}
    partitions.start(1, 40, polling=True)
    current = partitions.current()
    assert set(current) == {0}, "the call began while partition 1 was held"
    assert set(partitions.current()) == {0, 1}
    partitions.drop(0, polling=False)
    assert set(partitions.current()) == {1}
