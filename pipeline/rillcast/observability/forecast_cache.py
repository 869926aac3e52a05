"""The newest published forecast of each stream, as the record that was published, for the read API.

Owns: a bounded table of records by stream id, safe to read from any thread. Does not know: HTTP, codecs, models.
Nothing is ever read back from here into the pipeline.

Invariant: the cache has the records of the `streams` streams that were published last. At most twice as many records
(and those of two batches) are kept, however many streams pass. They lie in two tables. A record goes into the younger
one; when that has `streams` streams, it becomes the older one, and the older one is dropped. So an event costs an
insertion into plain tables, a third of the cost of keeping records in order of age.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Collection, Sequence
from typing import NamedTuple

from rillcast.arrays import IntArray
from rillcast.observability.observer import Observer, Published


class Page(NamedTuple):
    """Some records, in the order of their streams' ids.

    Attributes:
        records: Stream id and record of each.
        more: Whether further streams follow.
        total: Number of streams that match, on all pages.
    """

    records: list[tuple[str, bytes]]
    more: bool
    total: int


class _Records(NamedTuple):
    """Records by stream id; one table of pairs takes a third longer to fill.

    Attributes:
        values: The records.
        partitions: The partitions of their events, of the same streams.
    """

    values: dict[str, bytes]
    partitions: dict[str, int]


class ForecastCache(Observer):
    """One thread writes, once per batch; any number read."""

    def __init__(self, streams: int) -> None:
        """Begin empty.

        Args:
            streams: Number of streams whose records are kept at least.
        """
        if streams < 1:
            raise ValueError(f"streams={streams} must be at least 1")
        self._streams = streams
        self._lock = threading.Lock()
        self._older = _Records({}, {})
        self._younger = _Records({}, {})

    def __len__(self) -> int:
        return len(self._all())

    def observe(self, published: Published) -> None:
        """Take in the forecasts of a batch."""
        self.update(published.forecasts.partitions, published.forecasts.unique_ids, published.values)

    def update(self, partitions: IntArray, unique_ids: Sequence[str], values: Sequence[bytes]) -> None:
        """Take in published records, in their order: of several records of a stream, the last one stays.

        Args:
            partitions: `(n,)`, partitions of the events in the source.
            unique_ids: The `n` stream ids.
            values: The `n` encoded records.
        """
        with self._lock:
            younger = self._younger
            younger.values.update(zip(unique_ids, values, strict=True))
            younger.partitions.update(zip(unique_ids, partitions.tolist(), strict=True))
            if len(younger.values) >= self._streams:
                self._older, self._younger = younger, _Records({}, {})

    def forget(self, partition: int) -> None:
        """Drop the streams of a partition: another member may serve them by now."""
        with self._lock:
            for table in (self._older, self._younger):
                for unique_id in [one for one, number in table.partitions.items() if number == partition]:
                    del table.values[unique_id], table.partitions[unique_id]

    def get(self, unique_id: str) -> bytes | None:
        """Return the record of a stream; None if there is none."""
        with self._lock:
            return self._younger.values.get(unique_id, self._older.values.get(unique_id))

    def page(
        self,
        limit: int,
        *,
        after: str = "",
        prefix: str = "",
        contains: str = "",
        among: Collection[str] | None = None,
    ) -> Page:
        """Return the first streams by id, in the order of code points.

        Args:
            limit: Largest number of them.
            after: Only streams after this id.
            prefix: Only streams whose id begins like this.
            contains: Only streams whose id has this part, in capital or small letters.
            among: Only these streams; None = all.
        """
        records, part = self._all(), contains.casefold()
        chosen_ids = records if among is None else [unique_id for unique_id in among if unique_id in records]
        matching = [one for one in chosen_ids if one.startswith(prefix) and (not part or part in one.casefold())]
        chosen = heapq.nsmallest(limit + 1, (unique_id for unique_id in matching if unique_id > after))
        return Page(
            [(unique_id, records[unique_id]) for unique_id in chosen[:limit]], len(chosen) > limit, len(matching)
        )

    def _all(self) -> dict[str, bytes]:
        with self._lock:
            return self._older.values | self._younger.values
