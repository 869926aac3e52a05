"""Each workaround works around its fault, without a broker."""

from __future__ import annotations

from types import SimpleNamespace

from kafka import TopicPartition
from kafka.consumer.fetcher import IsolationLevel
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from kafka.record.memory_records import MemoryRecords

from rillcast.transports.kafka.kafka_python.workarounds import CompactedPartitionRecords, OneOwnerAssignor


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
