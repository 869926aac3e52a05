"""A commit is repeated while its coordinator moves, and a poll without records says that the brokers are away."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from rillcast.errors import TransportError, UnreachableError
from rillcast.settings import KafkaSettings
from rillcast.transports.kafka.librdkafka.source import LibrdkafkaSource


class Consumer:
    """Answers commits with the next of some codes; 0 is success, and the last one is repeated."""

    def __init__(self, *codes: int) -> None:
        self._codes = iter(codes)
        self._code = 0
        self.commits = 0

    def commit(self, offsets: list[Any], *, asynchronous: bool) -> list[Any]:
        assert not asynchronous
        self.commits += 1
        self._code = next(self._codes, self._code)
        if self._code:
            raise KafkaException(KafkaError(self._code))
        return offsets


def committing(consumer: Consumer) -> LibrdkafkaSource:
    source = LibrdkafkaSource(KafkaSettings(bootstrap_servers="127.0.0.1:1", request_timeout_s=0.2), "observations")
    source._consumer = consumer  # type: ignore[assignment]  # a stand-in with the two methods that these tests reach
    return source


@pytest.mark.parametrize(
    "code",
    [
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
        KafkaError._TRANSPORT,
    ],
)
def test_a_commit_waits_for_a_coordinator_that_moves(code: int) -> None:
    consumer = Consumer(code, code, 0)
    committing(consumer).commit({0: 5})
    assert consumer.commits == 3


def test_a_coordinator_that_stays_away_ends_the_wait() -> None:
    with pytest.raises(TransportError, match="could not commit"):
        committing(Consumer(KafkaError.COORDINATOR_NOT_AVAILABLE)).commit({0: 5})


def test_a_member_that_is_out_of_its_group_does_not_repeat_its_commit() -> None:
    consumer = Consumer(KafkaError.UNKNOWN_MEMBER_ID)
    with pytest.raises(TransportError, match="could not commit"):
        committing(consumer).commit({0: 5})
    assert consumer.commits == 1


class Idle:
    """Has no records; its brokers answer or not."""

    def __init__(self, *, answers: bool) -> None:
        self._answers = answers
        self.asked = 0

    def consume(self, _records: int, _timeout_s: float) -> list[Any]:
        return []

    def poll(self, _timeout_s: float) -> None:
        return None

    def list_topics(self, _topic: str, timeout: float) -> None:
        assert timeout <= 3
        self.asked += 1
        if not self._answers:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))


def polling(consumer: Idle) -> LibrdkafkaSource:
    """Return a source that lost its last broker, and has waited for it since."""
    source = LibrdkafkaSource(KafkaSettings(bootstrap_servers="127.0.0.1:1", request_timeout_s=5), "observations")
    source._consumer = consumer  # type: ignore[assignment]  # a stand-in with the two methods that these tests reach
    source._on_error(KafkaError(KafkaError._ALL_BROKERS_DOWN))
    source.poll(10, 0.0)
    assert not consumer.asked, "they may be back within the time of a request"
    assert source._down_since is not None
    source._down_since -= 6
    return source


def test_an_idle_member_whose_brokers_stay_away_says_so() -> None:
    with pytest.raises(UnreachableError, match="no broker answered"):
        polling(Idle(answers=False)).poll(10, 0.0)


def test_brokers_that_are_back_are_asked_once() -> None:
    consumer = Idle(answers=True)
    source = polling(consumer)
    for _ in range(3):
        source.poll(10, 0.0)
    assert consumer.asked == 1
