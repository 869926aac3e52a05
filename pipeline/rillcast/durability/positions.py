"""How far each partition is, and which positions the next commit makes durable.

Owns: one position per partition, and which of them are pending. Does not know: pages, models, when a commit is due.

Invariant: a position is the offset of the next record to read, the last processed one plus one. Every event below it
is in the state.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from rillcast.arrays import IntArray, rows_of_each


class Positions:
    """Used from one thread."""

    def __init__(self) -> None:
        self._positions: dict[int, int] = {}
        self._pending: set[int] = set()

    @property
    def pending(self) -> Collection[int]:
        """The partitions whose position has to be committed."""
        return self._pending

    def of(self, partition: int) -> int:
        """Return the position of a partition."""
        return self._positions[partition]

    def begin(self, partition: int, position: int) -> None:
        """Note where the state of a partition stands."""
        self._positions[partition] = position

    def processed(self, partitions: IntArray, offsets: IntArray, live: Collection[int]) -> None:
        """Note events that are in the state and whose results, in `live` partitions, were handed to the sink.

        Args:
            partitions: `(n,)` int64.
            offsets: `(n,)` int64, increasing within a partition.
            live: Partitions that are past their replay, so that their positions have to be committed.
        """
        for partition, rows in rows_of_each(partitions):
            self._positions[partition] = int(offsets[rows][-1]) + 1
            if partition in live:
                self._pending.add(partition)

    def committed(self) -> None:
        """Note that a commit made every pending position durable."""
        self._pending.clear()

    def forget(self, partitions: Iterable[int]) -> None:
        """Drop partitions that are no longer ours to commit."""
        for partition in partitions:
            self._positions.pop(partition, None)
            self._pending.discard(partition)
