"""Asks the brokers about partitions: the group's committed position, the beginning and the end.

Owns: the questions and their repetition. Does not know: whose partitions they are, or what follows from the answers.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from rillcast.settings import KafkaSettings
from rillcast.transports.base import Assignment
from rillcast.transports.kafka.common import failures
from rillcast.transports.kafka.common.retries import retry_until
from rillcast.transports.kafka.librdkafka.errors import may_pass


def look_up(consumer: Consumer, settings: KafkaSettings, topic: str, partitions: Sequence[int]) -> list[Assignment]:
    """Return what the brokers say about `partitions`; a position in an open transaction is waited for.

    Failures that pass, such as a new topic without a leader, are waited out for `kafka.request_timeout_s`.

    Raises:
        KafkaException: No answer, or a refusal.
        TransportError: No answer about beginning and end.
    """
    if not partitions:
        return []
    asked = [TopicPartition(topic, number) for number in partitions]
    deadline = time.monotonic() + settings.request_timeout_s

    def ask() -> list[Assignment]:
        timeout_s = max(0.0, deadline - time.monotonic())
        found = []
        for committed in consumer.committed(asked, timeout=timeout_s):
            if committed.error is not None:
                raise KafkaException(committed.error)
            position = committed.offset if committed.offset >= 0 else None
            found.append(
                Assignment(committed.partition, position, *watermarks(consumer, settings, committed, deadline))
            )
        return found

    return retry_until(deadline, ask, may_pass)


def watermarks(
    consumer: Consumer, settings: KafkaSettings, partition: TopicPartition, deadline: float
) -> tuple[int, int]:
    """Return the earliest and the next offset of a partition that exists, asking again until `deadline`.

    Raises:
        KafkaException: No answer, or a refusal.
        TransportError: No answer.
    """

    def ask() -> tuple[int, int]:
        timeout_s = max(0.0, deadline - time.monotonic())
        found = consumer.get_watermark_offsets(partition, timeout=timeout_s)
        if found is None:
            raise failures.unreachable(settings.bootstrap_servers, timeout_s, "offsets of a partition")
        return found

    return retry_until(deadline, ask, _may_pass_for_a_known_partition)


def _may_pass_for_a_known_partition(error: Exception) -> bool:
    # Of a partition that the group has just assigned, the client said it on a stalled machine, and knew it again later.
    unknown = isinstance(error, KafkaException) and error.args[0].code() == KafkaError._UNKNOWN_PARTITION
    return unknown or may_pass(error)
