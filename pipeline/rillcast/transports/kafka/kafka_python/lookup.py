"""What the brokers know of partitions: the group's committed position, the beginning and the end.

Owns: the order of the questions. Does not know: whose partitions they are, or what follows from the answers.

Each answer is older than the ones after it: beginning, then committed, then end. All three only ever grow, so that
`beginning <= committed <= end` holds whatever other members do meanwhile. Asked for the end first, a member that had
lost its partitions without knowing it found its successor's positions beyond the end of the topic.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kafka import TopicPartition

from rillcast.transports.base import Assignment


def look_up(consumer: Any, topic: str, partitions: Sequence[int], timeout_s: float) -> list[Assignment]:
    """Return what the brokers say of `partitions`; positions in a transaction that has not ended are waited for.

    Args:
        consumer: a `KafkaConsumer` that reads committed records; its `poll` does not run, or is suspended.
        topic: whose partitions.
        partitions: numbers.
        timeout_s: for each answer.

    Raises:
        KafkaError: no answer, or a refusal.
    """
    if not partitions:
        return []
    timeout_ms = timeout_s * 1_000
    keys = [TopicPartition(topic, number) for number in partitions]
    beginnings = consumer.beginning_offsets(keys, timeout_ms=timeout_ms)
    committed = {key: consumer.committed(key, timeout_ms=timeout_ms) for key in keys}
    ends = consumer.end_offsets(keys, timeout_ms=timeout_ms)
    return [Assignment(key.partition, committed[key], beginnings[key], ends[key]) for key in keys]
