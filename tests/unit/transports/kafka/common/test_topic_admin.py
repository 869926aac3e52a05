"""Both clients say which topics lack a leader or a copy."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from rillcast.settings import KafkaSettings
from rillcast.transports.kafka.common.topic_admin import TopicAdmin
from rillcast.transports.kafka.kafka_python.topic_admin import KafkaPythonTopicAdmin
from rillcast.transports.kafka.librdkafka.topic_admin import LibrdkafkaTopicAdmin


class Partition(NamedTuple):
    leader: int
    replicas: list[int]
    in_step: list[int]


TOPICS = {
    "whole": [Partition(1, [1, 2, 3], [1, 2, 3]), Partition(2, [2, 3, 1], [3, 1, 2])],
    "behind": [Partition(1, [1, 2, 3], [1, 2, 3]), Partition(2, [2, 3, 1], [2, 1])],
    "headless": [Partition(-1, [1], [1])],
    "other": [Partition(-1, [1], [])],
}


class Librdkafka:
    def list_topics(self, timeout: float) -> Any:
        del timeout
        return SimpleNamespace(topics={name: self._topic(partitions) for name, partitions in TOPICS.items()})

    @staticmethod
    def _topic(partitions: list[Partition]) -> Any:
        found = [SimpleNamespace(leader=p.leader, replicas=p.replicas, isrs=p.in_step) for p in partitions]
        return SimpleNamespace(partitions=dict(enumerate(found)))


class KafkaPython:
    def describe_topics(self) -> list[dict[str, Any]]:
        return [
            {
                "name": name,
                "partitions": [
                    {"leader_id": p.leader, "replica_nodes": p.replicas, "isr_nodes": p.in_step} for p in partitions
                ],
            }
            for name, partitions in TOPICS.items()
        ]


@pytest.mark.parametrize(
    ("kind", "client"), [(LibrdkafkaTopicAdmin, Librdkafka()), (KafkaPythonTopicAdmin, KafkaPython())]
)
def test_a_topic_lacks_a_leader_or_a_copy(kind: Any, client: object) -> None:
    admin = kind.__new__(kind)
    admin._admin, admin._settings = client, KafkaSettings(bootstrap_servers="127.0.0.1:1")
    asked: TopicAdmin = admin
    assert list(asked.lacking(["whole", "missing", "behind", "headless"])) == ["behind", "headless"]
    assert asked.partitions("behind") == 2
