"""Records of calls that began too early are not handed out."""

from __future__ import annotations

from rillcast.transports.kafka.kafka_python.partitions import Partitions


def test_records_of_a_call_that_began_before_a_partition_was_resumed_are_not_handed_out() -> None:
    partitions = Partitions()
    partitions.assign(0, 5, 100)
    partitions.assign(1, None, 100)
    assert dict(partitions.positions) == {0: 5}
    partitions.resume_from(1, 40, polling=True)
    current = partitions.current()
    assert set(current) == {0}, "the call began while partition 1 was paused"
    assert set(partitions.current()) == {0, 1}
    partitions.drop(0, polling=False)
    assert set(partitions.current()) == {1}
