"""The kafka-python source's dealings with its helper thread and with the brokers' answers, without a broker."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

from kafka import TopicPartition
from kafka.consumer.fetcher import IsolationLevel
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from kafka.record.memory_records import MemoryRecords

from rillcast.transports.kafka.kafka_python.lookup import look_up
from rillcast.transports.kafka.kafka_python.partitions import Partitions
from rillcast.transports.kafka.kafka_python.poller import Poller
from rillcast.transports.kafka.kafka_python.rebalance import Question
from rillcast.transports.kafka.kafka_python.workarounds import CompactedPartitionRecords, OneOwnerAssignor


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
    partitions.resume_from(1, 40, polling=True)
    current = partitions.current()
    assert set(current) == {0}, "the call began while partition 1 was held"
    assert set(partitions.current()) == {0, 1}
    partitions.drop(0, polling=False)
    assert set(partitions.current()) == {1}


def batch(offset: int, *values: bytes, control: bool = False) -> bytes:
    """Return a batch of a transaction, perhaps without records."""
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=0,
        is_transactional=1,
        producer_id=1,
        producer_epoch=0,
        base_sequence=0,
        batch_size=10_000,
    )
    for number, value in enumerate(values):
        builder.append(number, timestamp=1, key=None, value=value, headers=[])
    data = bytearray(builder.build())
    data[:8] = offset.to_bytes(8, "big")
    if control:
        data[DefaultRecordBatch.ATTRIBUTES_OFFSET + 1] |= DefaultRecordBatch.CONTROL_MASK
    return bytes(data)


def test_a_transactions_marker_that_the_cleaner_took_out_of_its_batch_is_passed() -> None:
    """kafka-python ends with "StopIteration raised unpacking messageset": the restore could never be done."""
    data = batch(0, b"first") + batch(1, control=True) + batch(2, b"second")
    records = CompactedPartitionRecords(
        0,
        TopicPartition("state", 0),
        MemoryRecords(data),
        check_crcs=False,
        isolation_level=IsolationLevel.READ_COMMITTED,
    )
    assert [(record.offset, record.value) for record in records.take(10)] == [(0, b"first"), (2, b"second")]


def test_a_partition_that_two_members_claim_goes_to_neither_until_its_owner_has_given_it_up() -> None:
    """The assignor of kafka-python gave it to the member that had been put out, while the owner still had to commit."""
    cluster = SimpleNamespace(topics=lambda: {"events"}, partitions_for_topic=lambda _topic: {0, 1, 2, 3})

    def member(name: str, *owned: int) -> SimpleNamespace:
        assignor = OneOwnerAssignor()
        assignor.member_assignment = [TopicPartition("events", number) for number in owned]
        return SimpleNamespace(member_id=name, metadata=assignor.metadata(["events"]))

    def assigned(*members: SimpleNamespace) -> dict[str, set[int]]:
        given = OneOwnerAssignor().assign(cluster, members)
        return {name: {key.partition for key in each.partitions()} for name, each in given.items()}

    first = assigned(member("owner", 0, 1, 2, 3), member("woken", 2, 3))
    assert first == {"owner": {0, 1}, "woken": set()}
    second = assigned(member("owner", 0, 1), member("woken"))
    assert second == {"owner": {0, 1}, "woken": {2, 3}}
