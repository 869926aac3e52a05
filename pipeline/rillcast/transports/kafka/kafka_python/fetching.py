"""What kafka-python's consumers have to be taught of topics that are compacted.

When the cleaner removes the marker of a transaction it may keep the marker's batch, without the record in it, because
it is the last one of its producer (KAFKA-7467). kafka-python 3.0.12 looks for the record, and its `poll` ends with
"StopIteration raised unpacking messageset", again at each try: a state topic that transactions write to cannot be read
any more. Such a batch says nothing about what was aborted, as in Java's client.

Owns: this one correction, for one consumer. Does not know: topics, groups, or who polls.
"""

from __future__ import annotations

from typing import Any

from kafka.consumer.fetcher import Fetcher


class CompactedPartitionRecords(Fetcher.PartitionRecords):  # type: ignore[misc]  # the package has no type information
    """The records of one fetch, in which a control batch may be empty."""

    def _contains_abort_marker(self, batch: Any) -> bool:
        if batch.is_control_batch and not batch.records_count:
            return False
        return bool(super()._contains_abort_marker(batch))


def read_compacted(consumer: Any) -> None:
    """Let a `KafkaConsumer` read topics whose markers were cleaned away."""
    consumer._fetcher.PartitionRecords = CompactedPartitionRecords
