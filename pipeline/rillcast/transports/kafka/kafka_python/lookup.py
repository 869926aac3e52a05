"""Asks the brokers about partitions: the group's committed position, the beginning and the end.

Owns: the order of the questions. Does not know: whose partitions they are, or what follows from the answers.

Each answer is older than the ones after it: beginning, then committed, then end. All three only grow, so
`beginning <= committed <= end` holds even if other members commit meanwhile. In the reverse order, a member that had
lost its partitions without knowing it found its successor's positions beyond the end of the topic.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kafka import TopicPartition

from rillcast.transports.base import Assignment


def look_up(consumer: Any, topic: str, partitions: Sequence[int], timeout_s: float) -> list[Assignment]:
    """Return what the brokers say about `partitions`; a position in an open transaction is waited for.

    Args:
        consumer: A `KafkaConsumer` that reads committed records; its `poll` does not run, or is suspended.
        topic: Topic of the partitions.
        partitions: Numbers of the partitions.
        timeout_s: Longest wait for each answer, in seconds.

    Raises:
        KafkaError: No answer, or a refusal.
    """
    if not partitions:
        return []
    timeout_ms = timeout_s * 1_000
    keys = [TopicPartition(topic, number) for number in partitions]
    beginnings = consumer.beginning_offsets(keys, timeout_ms=timeout_ms)
    committed = {key: consumer.committed(key, timeout_ms=timeout_ms) for key in keys}
    ends = consumer.end_offsets(keys, timeout_ms=timeout_ms)
    return [Assignment(key.partition, committed[key], beginnings[key], ends[key]) for key in keys]
