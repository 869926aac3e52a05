"""The partitioner of Java's producer, which both of Rillcast's sinks use too.

Owns: nothing but the call. Does not know: which partitioner a stream's own producer uses. One with another (by default
librdkafka takes CRC-32 of the key) puts streams into other partitions.
"""

from __future__ import annotations

from kafka.partitioner.default import murmur2


def partition_of(unique_id: str, partitions: int) -> int:
    """Return the partition of a stream whose records are keyed by its id."""
    return int((murmur2(unique_id.encode()) & 0x7FFFFFFF) % partitions)
