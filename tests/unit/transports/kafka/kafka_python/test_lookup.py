"""The order of the questions to the brokers."""

from __future__ import annotations

from collections.abc import Sequence

from kafka import TopicPartition

from rillcast.transports.kafka.kafka_python.lookup import look_up


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
