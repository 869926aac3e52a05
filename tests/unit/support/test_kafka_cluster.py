"""What the tests themselves need of a broker is asked for again while a busy machine answers too late."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.cimpl import NewTopic

from tests.support import kafka_cluster
from tests.support.kafka_cluster import KafkaCluster, answered


class Admin:
    """Creates a topic at the first request, but answers as the next of `answers`."""

    def __init__(self, *answers: Exception | None) -> None:
        self._answers = list(answers)
        self.topics: set[str] = set()

    def create_topics(self, topics: list[NewTopic], operation_timeout: float) -> dict[str, Future[None]]:
        del operation_timeout
        future: Future[None] = Future()
        name = topics[0].topic
        answer = self._answers.pop(0)
        if name in self.topics and answer is None:
            answer = KafkaException(KafkaError(KafkaError.TOPIC_ALREADY_EXISTS))
        self.topics.add(name)
        if answer is None:
            future.set_result(None)
        else:
            future.set_exception(answer)
        return {name: future}

    def list_topics(self, timeout: float) -> SimpleNamespace:
        del timeout
        return SimpleNamespace(topics=self.topics)


@pytest.fixture
def create(monkeypatch: pytest.MonkeyPatch) -> Callable[[Admin], str]:
    def create(admin: Admin) -> str:
        cluster = KafkaCluster.__new__(KafkaCluster)
        monkeypatch.setattr(cluster, "_admin", admin, raising=False)
        monkeypatch.setattr(cluster, "replicas", None, raising=False)
        return cluster.create_topic("topic")

    return create


def test_a_topic_whose_creation_was_answered_too_late_is_there(create: Callable[[Admin], str]) -> None:
    admin = Admin(TimeoutError(), KafkaException(KafkaError(KafkaError._TIMED_OUT)), None)
    assert create(admin) in admin.topics


def test_a_refusal_is_not_asked_again(create: Callable[[Admin], str]) -> None:
    with pytest.raises(KafkaException, match="POLICY_VIOLATION"):
        create(Admin(KafkaException(KafkaError(KafkaError.POLICY_VIOLATION))))


def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_cluster, "_PATIENCE_S", 0.1)

    def ask() -> None:
        raise TimeoutError("no answer")

    with pytest.raises(TimeoutError, match="no answer"):
        answered(ask)
