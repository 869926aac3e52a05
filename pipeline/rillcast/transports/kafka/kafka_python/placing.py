"""Where a key goes: the partitioner of Java's producer, which kafka-python's and Rillcast's own sinks share.

Owns: nothing but the call. What a stream's own producer does is not known here: one with another partitioner
(librdkafka by default takes CRC-32 of the key) places streams elsewhere.
"""

from __future__ import annotations

from kafka.partitioner.default import murmur2


def partition_of(unique_id: str, partitions: int) -> int:
    """Return the partition of a stream whose records are keyed by its id."""
    return int((murmur2(unique_id.encode()) & 0x7FFFFFFF) % partitions)
