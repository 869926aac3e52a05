"""What a history is: a second reader of the source's topic, outside of the group, for models that are not serving yet.

The contract that every history keeps:

  1. `start(partition, position)` begins to read a partition, anew if it is being read; `stop` ends it.
  2. `poll(max_records, timeout_s)` returns what is there of the partitions that are read, in offset order within each,
     and waits at most `timeout_s` for a first record. Like the source it hands out committed records only.
  3. `positions()` are the offsets that are read next, past gaps; where a partition has been read to its end, that is
     its end.
  4. It commits nothing and belongs to no group: nobody but the brokers' network notices it.

It knows nothing of models or state. It is used from one thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from rillcast.transports.base import Polled


class PartitionReader(Protocol):
    """See the module's docstring for the contract."""

    def beginning(self, partition: int) -> int:
        """Return the earliest offset that is retained.

        Raises:
            TransportError: no broker answers, or the cluster refuses; so with every other method.
        """
        ...

    def offset_at(self, partition: int, timestamp_ms: int) -> int | None:
        """Return the first offset whose record has this timestamp (milliseconds since the epoch) or a later one."""
        ...

    def start(self, partition: int, position: int) -> None:
        """Read a partition from `position` on."""
        ...

    def stop(self, partition: int) -> None:
        """Read a partition no more; one that is not being read is no error."""
        ...

    def poll(self, max_records: int, timeout_s: float) -> Polled:
        """Return at most `max_records` records, waiting at most `timeout_s` for the first."""
        ...

    def positions(self) -> Mapping[int, int]:
        """Return the offset that each partition is read from next."""
        ...

    def close(self) -> None:
        """Release resources; may be called twice."""
        ...
