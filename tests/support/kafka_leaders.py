"""Who leads which partition of a cluster of several brokers, and how that is changed under load.

Owns: an admin client of kafka-python, which can reassign partitions (librdkafka's cannot). Does not know: processes.
Each question is repeated while no broker answers; everything that waits has a deadline.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

from confluent_kafka.admin import AdminClient
from kafka import KafkaAdminClient, TopicPartition
from kafka.errors import KafkaError

from tests.support.kafka_cluster import answered

OFFSETS, TRANSACTIONS = "__consumer_offsets", "__transaction_state"  # one partition each: its leader is the coordinator
_ANSWER_S: Final = 5.0
_PATIENCE_S: Final = 120.0
_PAUSE_S: Final = 0.1
_PREFERRED: Final = 0


class Leaders:
    """Looks at leaders and moves them; `close` it."""

    def __init__(self, bootstrap_servers: str) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._looks = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 2})
        self._admin: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._admin is not None:
            self._admin.close()

    def of(self, topic: str, partition: int = 0) -> int:
        """Return the broker that leads a partition.

        Raises:
            TimeoutError: It has had no leader for two minutes.
        """

        def leader() -> int:
            found = self._partitions([topic])[topic][partition].leader
            if found < 0:
                raise TimeoutError(f"partition {partition} of {topic} has no leader")
            return int(found)

        return answered(leader)

    def by_partition(self, topics: Sequence[str]) -> dict[tuple[str, int], int]:
        """Return the leader of each partition, -1 where there is none."""
        found = answered(lambda: self._partitions(topics))
        return {(topic, number): each.leader for topic, all_ in found.items() for number, each in all_.items()}

    def in_sync(self, topics: Sequence[str], copies: int) -> bool:
        """Return whether each partition has a leader and as many copies in step with it."""
        found = answered(lambda: self._partitions(topics))
        return all(
            len(each.isrs) == copies and each.leader in each.isrs for all_ in found.values() for each in all_.values()
        )

    def assign(self, replicas: Mapping[tuple[str, int], Sequence[int]]) -> None:
        """Reassign partitions and wait until that is done; the first broker of each is to lead.

        Raises:
            TimeoutError: It was not done within two minutes.
        """
        wanted = {TopicPartition(*at): list(brokers) for at, brokers in replicas.items()}
        self._ask(lambda admin: admin.alter_partition_reassignments(wanted))
        deadline = time.monotonic() + _PATIENCE_S
        while self._ask(lambda admin: admin.list_partition_reassignments()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the reassignment of {len(wanted)} partitions takes over {_PATIENCE_S:g} s")
            time.sleep(_PAUSE_S)

    def elect(self, at: Sequence[tuple[str, int]]) -> None:
        """Let each partition's preferred broker lead it, where it is in step."""
        by_topic: dict[str, list[int]] = {}
        for topic, partition in at:
            by_topic.setdefault(topic, []).append(partition)
        self._ask(lambda admin: admin.elect_leaders(_PREFERRED, by_topic, raise_errors=False))

    def _partitions(self, topics: Sequence[str]) -> dict[str, Any]:
        found = self._looks.list_topics(timeout=_ANSWER_S).topics
        if missing := [topic for topic in topics if topic not in found or not found[topic].partitions]:
            raise TimeoutError(f"no broker knows {', '.join(missing)}")
        return {topic: found[topic].partitions for topic in topics}

    def _ask(self, ask: Callable[[Any], Any]) -> Any:
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                if self._admin is None:
                    self._admin = KafkaAdminClient(bootstrap_servers=self._bootstrap_servers.split(","))
                return ask(self._admin)
            except KafkaError:  # a broker is away, or the controller has not heard of something yet
                if time.monotonic() > deadline:
                    raise
                time.sleep(_PAUSE_S)
