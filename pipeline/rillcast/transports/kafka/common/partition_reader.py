"""A reader of one topic's partitions, outside of any group.

Two callers need it: models that follow a topic before they serve, and the Kafka state store when it restores.

The contract that every reader keeps:

  1. `follow(partition, position)` reads a partition from `position` on without an end.
  2. `read_to_end(partition)` reads a partition from its beginning to the high watermark of the moment it was called, or
     shortly after. `ended()` returns the partition once the reading position is there, however the last offsets were
     used: for records, for transaction markers, or for records that compaction removed. The last stable offset would
     not do as the end: an open transaction of another producer may hold it below records committed long ago.
  3. Each of the two begins again if the partition is already being read; `stop` ends either.
  4. `poll(max_records, timeout_s)` returns the records that are there, in offset order within each partition, and waits
     at most `timeout_s` for a first record. Like a source it returns committed records only, tombstones included.
  5. `positions()` holds the offset that each partition is read from next, past gaps; at its end, that is the end.
  6. It commits nothing and joins no group.

A reader knows nothing of models or state. It is used from one thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from rillcast.transports.base import Polled


class PartitionReader(Protocol):
    """See the module's docstring for the contract."""

    def extent(self, partition: int) -> tuple[int, int]:
        """Return the earliest offset that is retained, and the offset of the next record that is written.

        Raises:
            TransportError: No broker answers, or the cluster refuses; every other method raises it for the same causes.
        """
        ...

    def offset_at(self, partition: int, timestamp_ms: int) -> int | None:
        """Return the first offset whose record has this timestamp (milliseconds since the epoch) or a later one."""
        ...

    def follow(self, partition: int, position: int) -> None:
        """Read a partition from `position` on."""
        ...

    def read_to_end(self, partition: int) -> None:
        """Read a partition from its beginning to the high watermark of now."""
        ...

    def stop(self, partition: int) -> None:
        """Stop reading a partition; one that is not being read is no error."""
        ...

    def poll(self, max_records: int, timeout_s: float) -> Polled:
        """Return at most `max_records` records, waiting at most `timeout_s` for the first."""
        ...

    def ended(self) -> Sequence[int]:
        """Return the partitions of `read_to_end` that the last `poll` read to their end; they are stopped."""
        ...

    def positions(self) -> Mapping[int, int]:
        """Return the offset that each partition is read from next."""
        ...

    def end(self, partition: int) -> int | None:
        """Return the offset at which `read_to_end` will be complete; None = the brokers have not said it yet."""
        ...

    def close(self) -> None:
        """Release resources; may be called twice."""
        ...


@dataclass(slots=True)
class Reading:
    """How far a partition is read, and how far it has to be.

    Attributes:
        position: Offset that is read next.
        to_end: Whether the reading ends at the high watermark.
        patient_until: Monotonic time in seconds until which "not ready" answers about a new topic are no failure.
        end: High watermark where the reading ends; None while it is unknown, or if there is no end.
    """

    position: int
    to_end: bool
    patient_until: float
    end: int | None = None

    @property
    def ended(self) -> bool:
        """Whether the position has reached the end."""
        return self.end is not None and self.position >= self.end
