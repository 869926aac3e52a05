"""The newest published forecast of each stream, as the record that was published; what the read API answers from.

Owns: a bounded table of records by stream id, safe to read from any thread. Does not know: HTTP, codecs, models.
Nothing is ever read back from here into the pipeline.

Invariant: at most `max_streams` records are kept, however many streams pass. Beyond that, the stream that has been in
the table for longest gives way, and is back with its next forecast.
"""

from __future__ import annotations

import heapq
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from pipeline.arrays import IntArray


class Page(NamedTuple):
    """Some records, in the order of their streams' ids.

    Attributes:
        records: stream id and record.
        more: whether there are further ones behind the last.
        total: how many there are in all, of those that were asked for.
    """

    records: list[tuple[str, bytes]]
    more: bool
    total: int


class LatestForecasts:
    """One thread writes, once per batch; any number read."""

    def __init__(self, max_streams: int) -> None:
        if max_streams < 1:
            raise ValueError(f"max_streams={max_streams} must be at least 1")
        self._max_streams = max_streams
        self._lock = threading.Lock()
        self._records: OrderedDict[str, tuple[int, bytes]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._records)

    def update(self, partitions: IntArray, unique_ids: Sequence[str], values: Sequence[bytes]) -> None:
        """Take in what is published, in its order: of several records of a stream, the last one stays.

        Args:
            partitions: `(n,)`, of the events in the source.
            unique_ids: `n` stream ids.
            values: `n` encoded records.
        """
        newest = dict(zip(unique_ids, zip(partitions.tolist(), values, strict=True), strict=True))
        with self._lock:
            self._records.update(newest)
            while len(self._records) > self._max_streams:
                self._records.popitem(last=False)

    def forget(self, partition: int) -> None:
        """Drop the streams of a partition: another member may be serving them by now."""
        with self._lock:
            for unique_id in [one for one, (number, _) in self._records.items() if number == partition]:
                del self._records[unique_id]

    def get(self, unique_id: str) -> bytes | None:
        """Return the record of a stream, None if there is none."""
        with self._lock:
            found = self._records.get(unique_id)
        return None if found is None else found[1]

    def page(self, limit: int, *, after: str = "", prefix: str = "") -> Page:
        """Return the first `limit` streams by id (in the order of code points), behind `after`, with `prefix`."""
        with self._lock:
            records = dict(self._records)
        matching = [unique_id for unique_id in records if unique_id.startswith(prefix)]
        chosen = heapq.nsmallest(limit + 1, (unique_id for unique_id in matching if unique_id > after))
        return Page(
            [(unique_id, records[unique_id][1]) for unique_id in chosen[:limit]], len(chosen) > limit, len(matching)
        )
