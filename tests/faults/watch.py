"""What the driver sees of the cluster: positions, transactions, the group, the state topic; and the output at the end.

Owns: its own admin client. Does not know: members or faults. While the broker is away every look answers None, and
whoever asks asks again: the driver takes the broker away itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeVar

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    ConsumerGroupState,
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # the package does not list what it re-exports
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    OffsetSpec,
    ResourceType,
)

from tests.support.kafka_cluster import unique

T = TypeVar("T")

_ANSWER_S: Final = 2.0
_READ_S: Final = 120.0
_OFFSETS_TOPIC: Final = "__consumer_offsets"
_MOVING: Final = (ConsumerGroupState.PREPARING_REBALANCING, ConsumerGroupState.COMPLETING_REBALANCING)


class ClusterWatch:
    """Looks at one group and its topics."""

    def __init__(self, bootstrap_servers: str, group: str) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._group = group
        self._admin = AdminClient(
            {"bootstrap.servers": bootstrap_servers, "log_level": 2, "reconnect.backoff.max.ms": 200}
        )

    def committed(self, topic: str) -> Mapping[int, int] | None:
        """Return the group's committed positions by partition."""

        def look() -> dict[int, int]:
            request = ConsumerGroupTopicPartitions(self._group)
            future = self._admin.list_consumer_group_offsets([request], request_timeout=_ANSWER_S)[self._group]
            found = future.result(_ANSWER_S).topic_partitions
            return {each.partition: each.offset for each in found if each.topic == topic and each.offset >= 0}

        return _look(look)

    def rebalancing(self) -> bool:
        """Return whether the group is between two assignments."""

        def look() -> bool:
            return self._described().state in _MOVING

        return bool(_look(look))

    def members(self) -> int | None:
        """Return how many members a group has that is at rest."""

        def look() -> int | None:
            group = self._described()
            return None if group.state in _MOVING else len(group.members)

        return _look(look)

    def ends(self, topic: str, partitions: int, *, committed: bool = False) -> Mapping[int, int] | None:
        """Return the high watermarks by partition, or the last stable offsets."""
        return _look(lambda: self._ends(topic, partitions, committed=committed))

    def unsettled(self) -> bool:
        """Return whether positions are part of a transaction that has not ended.

        They lie in the brokers' own topic behind its last stable offset; there is one partition of it in the test
        broker.
        """

        def look() -> bool:
            stable = self._ends(_OFFSETS_TOPIC, 1, committed=True)
            return self._ends(_OFFSETS_TOPIC, 1)[0] > stable[0]

        return bool(_look(look))

    def records(self, topic: str, partitions: int) -> Iterator[bytes | None]:
        """Yield the value of every committed record, each partition to its high watermark, by partition in order.

        Judged by the position, which passes transaction markers; an open transaction is waited for.
        """
        ends = self.ends(topic, partitions)
        assert ends is not None, f"the broker does not tell the ends of {topic}"
        remaining = {partition for partition, end in ends.items() if end}
        consumer = Consumer(
            {
                "bootstrap.servers": self._bootstrap_servers,
                "log_level": 2,
                "group.id": unique("judge"),
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "fetch.queue.backoff.ms": 5,
            }
        )
        try:
            consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in remaining])
            deadline = time.monotonic() + _READ_S
            while remaining:
                assert time.monotonic() < deadline, f"partitions {sorted(remaining)} of {topic} did not end"
                for message in consumer.consume(10_000, 0.05):
                    partition, offset, error = message.partition(), message.offset(), message.error()
                    assert partition is not None
                    assert offset is not None
                    if error is None:
                        yield message.value()
                        offset += 1
                    else:
                        assert error.code() == KafkaError._PARTITION_EOF, f"reading {topic}: {error}"
                    if offset >= ends[partition]:
                        remaining.discard(partition)
        finally:
            consumer.close()

    def compact_often(self, *, often: bool = True) -> None:
        """Let the broker's cleaner look for work every tenth of a second, or as often as it is configured to."""
        operation = AlterConfigOpType.SET if often else AlterConfigOpType.DELETE
        entry = ConfigEntry("log.cleaner.backoff.ms", "100", incremental_operation=operation)
        resource = ConfigResource(ResourceType.BROKER, "1", incremental_configs=[entry])
        self._admin.incremental_alter_configs([resource])[resource].result(_READ_S)

    def _described(self) -> Any:
        future = self._admin.describe_consumer_groups([self._group], request_timeout=_ANSWER_S)[self._group]
        return future.result(_ANSWER_S)

    def _ends(self, topic: str, partitions: int, *, committed: bool = False) -> dict[int, int]:
        level = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
        asked = {TopicPartition(topic, partition): OffsetSpec.latest() for partition in range(partitions)}  # type: ignore[no-untyped-call]
        futures = self._admin.list_offsets(asked, isolation_level=level, request_timeout=_ANSWER_S)
        return {each.partition: future.result(_ANSWER_S).offset for each, future in futures.items()}


def _look(look: Callable[[], T]) -> T | None:
    try:
        return look()
    except (KafkaException, TimeoutError):
        return None
