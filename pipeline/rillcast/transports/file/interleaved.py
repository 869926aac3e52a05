"""Takes the streams of a file in turns, where they stand one after the other.

A file sorted by stream would be stepped one event at a time: a call of the model takes one event of each stream. So the
file is read in blocks, and in a block the first records of all streams come first, then the second ones, and so on.

Owns: the blocks, their order, and when it pays. Does not know: how a record names its stream, or a format.
Invariants: the records of a stream keep their order; so do those without a stream. The order depends on the file alone,
not on the sizes in which it is read, so that a part that is read again comes in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from rillcast.arrays import IntArray
from rillcast.transports.file.batch import Batch
from rillcast.transports.file.readers import Reader

BLOCK: Final = 131_072
"""Records in a block: some 25 MB, and the streams that can be taken in turns."""
_WINDOW: Final = 4_096
_ENOUGH: Final = 256  # streams in a window; with more rows a call is hardly faster per row

Streams = Callable[[Batch], Sequence[str | None]]
"""Returns the stream of each record, None = no stream."""


class InterleavedReader:
    """A reader around another one."""

    def __init__(self, reader: Reader, streams: Streams, block: int = BLOCK) -> None:
        """Begin before the first record.

        Args:
            reader: Reads the file.
            streams: Returns the streams of records.
            block: Records in a block.
        """
        self._reader, self._streams, self._size = reader, streams, block
        self._block, self._at, self._first = Batch([], [], {}), 0, 0

    @property
    def place(self) -> str:
        """Form of the place of a record, with `row` and `line`."""
        return self._reader.place

    @property
    def ended(self) -> bool:
        """Whether every record has been handed out."""
        return self._reader.ended and self._at == len(self._block.values)

    @property
    def total(self) -> int | None:
        """Number of records; None while it is unknown."""
        return self._reader.total

    @property
    def share(self) -> float | None:
        """Share of the file that was handed out."""
        share, read = self._reader.share, self._first + len(self._block.values)
        return share if share is None or not read else share * (self._first + self._at) / read

    def read(self, max_records: int, timeout_s: float) -> Batch:
        """Return at most `max_records` records; a new block is read where one has ended."""
        if self._at == len(self._block.values):
            self._first += len(self._block.values)
            self._block, self._at = self._in_turns(self._reader.read(self._size, timeout_s)), 0
        first, last = self._at, min(self._at + max_records, len(self._block.values))
        values, places, faults, rows, left_out = self._block
        self._at, self._block = last, self._block._replace(left_out=0)
        return Batch(
            values[first:last],
            places[first:last],
            {at - first: fault for at, fault in faults.items() if first <= at < last},
            None if rows is None else rows[first:last],
            left_out,
        )

    def close(self) -> None:
        """Close the file."""
        self._reader.close()

    def _in_turns(self, batch: Batch) -> Batch:
        """Return a block in its new order, with the rows of its records in the file."""
        rows = np.arange(self._first, self._first + len(batch.values))
        order = turns(self._streams(batch)) if len(batch.values) > _WINDOW else None
        if order is None:
            return batch._replace(rows=rows)
        taken = order.tolist()
        place = {row: at for at, row in enumerate(taken) if row in batch.faults} if batch.faults else {}
        return Batch(
            [batch.values[row] for row in taken],
            [batch.places[row] for row in taken],
            {place[row]: fault for row, fault in batch.faults.items()},
            rows[order],
            batch.left_out,
        )


def turns(streams: Sequence[str | None]) -> IntArray | None:
    """Return the order in which records of these streams are taken in turns; None = as they stand is as good."""
    numbers: dict[str | None, int] = {}
    stream = np.fromiter((numbers.setdefault(one, len(numbers)) for one in streams), np.int64, len(streams))
    windows = [stream[first : first + _WINDOW] for first in range(0, len(stream), _WINDOW)]
    if np.mean([len(np.unique(window)) for window in windows]) >= min(_ENOUGH, len(numbers)) / 2:
        return None
    by_stream = np.argsort(stream, kind="stable")
    counts = np.bincount(stream)
    first_of_each = np.cumsum(counts) - counts
    rank = np.empty_like(stream)
    rank[by_stream] = np.arange(len(stream)) - np.repeat(first_of_each, counts)
    order: IntArray = np.argsort(rank, kind="stable")
    return order
