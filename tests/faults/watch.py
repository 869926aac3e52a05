"""The driver's view of the cluster: positions, transactions, the group, the state topic, and the output at the end.

Owns: its own admin client. Does not know: members or faults. While the broker is unavailable every look returns None,
and callers ask again, because the driver itself stops the broker. `surely` does so for them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeVar

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from tests.support.kafka_cluster import unique

T = TypeVar("T")

_ANSWER_S: Final = 2.0
_PATIENCE_S: Final = 120.0  # with a broker that should answer, on a busy machine
_PAUSE_S: Final = 0.2
_OFFSETS_TOPIC: Final = "__consumer_offsets"
_MOVING: Final = ("PreparingRebalance", "CompletingRebalance")
_LOG_LEVEL: Final = 2  # nothing short of critical


class ClusterWatch:
    """Looks at one group and its topics; `close` it."""

    def __init__(self, bootstrap_servers: str, group: str) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._group = group
        # Plain requests only: the newer admin calls abort the whole process when a broker disappears under them
        # (confluent-kafka 2.16.1: an assertion in rdkafka_queue.h).
        self._admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": _LOG_LEVEL})
        # They never join the group; its name selects the positions.
        self._newest = Consumer(self._config(group, "read_uncommitted"))
        self._stable = Consumer(self._config(group, "read_committed"))

    def close(self) -> None:
        """Close the connections."""
        self._newest.close()
        self._stable.close()

    def committed(self, topic: str, partitions: int) -> Mapping[int, int] | None:
        """Return the group's committed positions by partition; those of an open transaction are not among them."""

        def look() -> dict[int, int]:
            asked = [TopicPartition(topic, partition) for partition in range(partitions)]
            found = self._newest.committed(asked, timeout=_ANSWER_S)
            if failed := [each.error for each in found if each.error is not None]:
                raise KafkaException(failed[0])
            return {each.partition: each.offset for each in found if each.offset >= 0}

        return _look(look)

    def rebalancing(self) -> bool:
        """Return whether the group is between two assignments."""
        group = self._described()
        return group is not None and group.state in _MOVING

    def members(self) -> int | None:
        """Return how many members a group has that is at rest."""
        group = self._described()
        return None if group is None or group.state in _MOVING else len(group.members)

    def ends(self, topic: str, partitions: int) -> Mapping[int, int] | None:
        """Return the high watermarks by partition."""
        return _look(lambda: _ends(self._newest, topic, partitions))

    def held_back(self, topic: str, partitions: int) -> Mapping[int, int] | None:
        """Return the last stable offset of the partitions in which an open transaction holds readers back."""

        def look() -> dict[int, int]:
            stable = _ends(self._stable, topic, partitions)
            newest = _ends(self._newest, topic, partitions)
            return {partition: offset for partition, offset in stable.items() if offset < newest[partition]}

        return _look(look)

    def unsettled(self) -> bool:
        """Return whether positions are part of a transaction that has not ended.

        They lie in the brokers' own topic behind its last stable offset; there is one partition of it in the test
        broker.
        """
        return bool(
            _look(lambda: _ends(self._stable, _OFFSETS_TOPIC, 1) != _ends(self._newest, _OFFSETS_TOPIC, 1)),
        )

    def records(
        self, topic: str, partitions: int, note: Callable[[int, int], None] = lambda _partition, _ms: None
    ) -> Iterator[bytes | None]:
        """Yield the value of every committed record, each partition to its high watermark, by partition in order.

        Judged by the position, which passes transaction markers; an open transaction is waited for. `note` is called
        with partition and time in milliseconds of each record.

        Raises:
            TimeoutError: The broker does not answer, or no record came for two minutes.
        """
        ends = surely(lambda: self.ends(topic, partitions), f"the ends of {topic}")
        remaining = {partition for partition, end in ends.items() if end}
        consumer = Consumer(self._config(unique("judge"), "read_committed"))
        try:
            consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in remaining])
            deadline = time.monotonic() + _PATIENCE_S
            while remaining:
                messages = consumer.consume(10_000, 0.05)
                if messages:
                    deadline = time.monotonic() + _PATIENCE_S
                elif time.monotonic() > deadline:
                    raise TimeoutError(f"partitions {sorted(remaining)} of {topic} did not end")
                for message in messages:
                    partition, offset, error = message.partition(), message.offset(), message.error()
                    assert partition is not None
                    assert offset is not None
                    if error is None:
                        note(partition, message.timestamp()[1])
                        yield message.value()
                        offset += 1
                    else:
                        assert error.code() == KafkaError._PARTITION_EOF, f"reading {topic}: {error}"
                    if offset >= ends[partition]:
                        remaining.discard(partition)
        finally:
            consumer.close()

    def _described(self) -> Any:
        return _look(lambda: self._admin.list_groups(self._group, timeout=_ANSWER_S)[0])

    def _config(self, group: str, isolation_level: str) -> dict[str, Any]:
        return {
            "bootstrap.servers": self._bootstrap_servers,
            "log_level": _LOG_LEVEL,
            "reconnect.backoff.max.ms": 200,
            "group.id": group,
            "enable.auto.commit": False,
            "isolation.level": isolation_level,
            "enable.partition.eof": True,
            "fetch.queue.backoff.ms": 5,
        }


def surely(look: Callable[[], T | None], what: str) -> T:
    """Return what is seen, looking again while the broker does not answer.

    Raises:
        TimeoutError: It did not answer for two minutes.
    """
    deadline = time.monotonic() + _PATIENCE_S
    while (seen := look()) is None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"the broker did not tell {what} within {_PATIENCE_S:g} s")
        time.sleep(_PAUSE_S)
    return seen


def _ends(consumer: Consumer, topic: str, partitions: int) -> dict[int, int]:
    """Return the high watermarks, or the last stable offsets for a reader of committed records."""
    ends = {}
    for partition in range(partitions):
        found = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=_ANSWER_S)
        if found is None:
            raise TimeoutError
        ends[partition] = found[1]
    return ends


def _look(look: Callable[[], T]) -> T | None:
    """Return what is seen; None while the broker does not answer."""
    try:
        return look()
    except (KafkaException, TimeoutError, IndexError):
        return None
