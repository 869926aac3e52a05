"""A commit is repeated while the group's coordinator moves to another broker, and for no longer."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from rillcast.errors import TransportError
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
    source._consumer = consumer  # type: ignore[assignment]
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
