"""Which answers of the brokers are asked for again."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from rillcast.settings import KafkaSettings
from rillcast.transports.base import Assignment
from rillcast.transports.kafka.librdkafka.lookup import look_up, watermarks


class Answers:
    """A consumer that fails with each of the errors, in turn, before it knows the offsets."""

    def __init__(self, *errors: int) -> None:
        self._errors = list(errors)

    def committed(self, partitions: Sequence[TopicPartition], timeout: float) -> list[TopicPartition]:
        return [TopicPartition(each.topic, each.partition, 7) for each in partitions]

    def get_watermark_offsets(self, partition: TopicPartition, timeout: float) -> tuple[int, int]:
        if self._errors:
            raise KafkaException(KafkaError(self._errors.pop(0)))
        return 3, 9


def test_a_partition_that_the_group_assigned_is_asked_for_again_where_the_client_does_not_know_it_yet() -> None:
    consumer = Answers(KafkaError._UNKNOWN_PARTITION, KafkaError._TRANSPORT, KafkaError._UNKNOWN_PARTITION)
    found = look_up(consumer, KafkaSettings(), "observations", [2])  # type: ignore[arg-type]  # has the methods that are called
    assert found == [Assignment(2, 7, 3, 9)]


def test_a_refusal_is_not_repeated() -> None:
    consumer = Answers(KafkaError.TOPIC_AUTHORIZATION_FAILED)
    with pytest.raises(KafkaException, match="TOPIC_AUTHORIZATION_FAILED"):
        look_up(consumer, KafkaSettings(), "observations", [2])  # type: ignore[arg-type]  # has the methods that are called


def test_the_last_failure_is_raised_after_the_deadline() -> None:
    consumer = Answers(*[KafkaError._UNKNOWN_PARTITION] * 100)
    with pytest.raises(KafkaException, match="UNKNOWN_PARTITION"):
        watermarks(consumer, KafkaSettings(), TopicPartition("observations", 2), time.monotonic() + 0.2)  # type: ignore[arg-type]  # has the methods that are called
