"""The resident streams: who is here, since when, with which rows; how they leave and come back.

Owns: the slab, the slot table, and for each stream the time of its newest event; which pages changed since they were
last exported; eviction. Does not know: the model, events' values, where exported pages go.

Eviction goes by event time and happens at points that depend on the partition's events alone: whenever the partition's
watermark (its newest event time) enters another eighth of the time to live, the streams whose newest event lies more
than the time to live behind it leave. So a replay evicts what the first run evicted, before the same event.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from rillcast.arrays import IntArray
from rillcast.bundle.bundle import StateSpec
from rillcast.engine.device import Device
from rillcast.engine.inputs import Inputs
from rillcast.engine.late.retained import (
    NEVER,
    NO_COVARIATES,
    PREFIX,
    AllowedLateness,
    RetainedSteps,
    Shapes,
    host_bytes,
)
from rillcast.engine.pages import Arrivals, Page
from rillcast.engine.slab import Slab, room
from rillcast.engine.slots import PAGE_SLOTS, SlotTable

_TICKS_PER_TTL: Final = 8
_MANY_RUNS: Final = 64
_CLOCKS_DIFFER_S: Final = 60  # of producers, at most
_HOST_BYTES: Final = 16  # per slot: the two arrays beside the state
NO_WATERMARK: Final = NEVER
NO_ARRIVALS: Final = Arrivals()


@dataclass(frozen=True, slots=True)
class Limits:
    """Which streams may be resident.

    Attributes:
        idle_ttl_ms: a stream whose newest event lies further behind the partition's watermark leaves; 0 = never.
        max_streams_per_partition: a new stream beyond it is refused; 0 = no limit.
        max_new_streams_per_s: new streams of a partition beyond it are refused, by the seconds of their records'
            timestamps; 0 = no limit.
    """

    idle_ttl_ms: int = 0
    max_streams_per_partition: int = 0
    max_new_streams_per_s: int = 0


@dataclass(frozen=True, slots=True)
class SlotBatch:
    """Events between two evictions, in the order in which they apply; `rows` is where their results belong."""

    rows: IntArray
    slots: IntArray
    inputs: Inputs

    def __getitem__(self, events: npt.NDArray[Any]) -> SlotBatch:
        """Return some of the events."""
        return SlotBatch(self.rows[events], self.slots[events], self.inputs.take(events))


class Residents:
    """Used from one thread."""

    def __init__(
        self,
        specs: Sequence[StateSpec],
        device: Device,
        limits: Limits,
        rewind: AllowedLateness | None = None,
        covariates: Shapes = NO_COVARIATES,
    ) -> None:
        self._limits = limits
        self._tick_ms = max(1, limits.idle_ttl_ms // _TICKS_PER_TTL)
        self._table = SlotTable()
        beside = 0 if rewind is None else 2 * sum(spec.row_bytes for spec in specs) + host_bytes(rewind, covariates)
        self._slab = Slab(specs, device, room(specs, device, _HOST_BYTES + beside, self._table.num_slots))
        self.history = None if rewind is None else RetainedSteps(specs, device, self._slab, rewind, covariates)
        # Zeros, so that slots that were never handed out take no memory; a slot's values are set when it is.
        self._last_ds: IntArray = np.zeros(self._slab.num_slots, np.int64)
        self._applied_to: IntArray = np.zeros(self._slab.num_slots, np.int64)
        self._last_ds[:PAGE_SLOTS] = NO_WATERMARK
        self._watermarks: dict[int, int] = {}
        self._arrivals: dict[int, Arrivals] = {}
        self._dirty: set[int] = set()

    @property
    def num_streams(self) -> int:
        """Streams that have state."""
        return self._table.num_streams

    @property
    def num_slots(self) -> int:
        """Rows of the state arrays."""
        return self._slab.num_slots

    @property
    def size_bytes(self) -> int:
        """Bytes of state on the device, spare rows of the pages in use included."""
        beside = 0 if self.history is None else self.history.slot_bytes
        return self._table.num_slots * (self._slab.row_bytes + beside)

    def bind(self, binding: ort.IOBinding) -> None:
        """Bind the state arrays; to be done again whenever `num_slots` has changed."""
        self._slab.bind(binding)

    # Events.

    def stretches(self, partitions: IntArray, ds: IntArray) -> Iterator[tuple[IntArray, Mapping[int, int]]]:
        """Cut events where an eviction is due, and move the watermarks.

        Args:
            partitions: `(n,)` int64.
            ds: `(n,)` int64, milliseconds since the epoch.

        Yields:
            Indices of the next events, and before them the partitions to evict from, each with the watermark to
            evict by. Every event comes once; the events of a partition stay in order.
        """
        number: IntArray = np.zeros(ds.size, np.int64)
        evictions: list[dict[int, int]] = [{}]
        for partition in np.unique(partitions).tolist():
            rows = np.flatnonzero(partitions == partition)
            before = self._watermarks.get(partition, int(ds[rows[0]]))
            watermark = np.maximum.accumulate(np.maximum(ds[rows], before))
            self._watermarks[partition] = int(watermark[-1])
            if self._limits.idle_ttl_ms:
                tick = watermark // self._tick_ms
                crossed = np.diff(tick, prepend=before // self._tick_ms) > 0
                number[rows] = np.cumsum(crossed)
                for nth, row in enumerate(np.flatnonzero(crossed).tolist(), start=1):
                    if nth == len(evictions):
                        evictions.append({})
                    evictions[nth][partition] = int(watermark[row])
        if len(evictions) == 1:
            yield np.arange(ds.size, dtype=np.int64), {}
            return
        for nth, due in enumerate(evictions):
            yield np.flatnonzero(number == nth), due

    def evict(self, due: Mapping[int, int]) -> int:
        """Let idle streams of some partitions leave, each by its watermark; return how many left."""
        evicted = 0
        for partition, watermark in due.items():
            slots = self._table.slots(partition)
            idle = slots[watermark - self._last_ds[slots] > self._limits.idle_ttl_ms]
            if idle.size:
                self._table.forget(partition, idle)
                self._zero(idle)
                self._dirty.update(np.unique(idle // PAGE_SLOTS).tolist())
                evicted += idle.size
        return evicted

    def admit(self, partitions: IntArray, unique_ids: Sequence[str], timestamps_ms: IntArray | None = None) -> IntArray:
        """Return the `(n,)` slots of streams, giving one to each new stream.

        Args:
            partitions: `(n,)` int64.
            unique_ids: of the streams.
            timestamps_ms: `(n,)` int64, of the records, -1 = unknown; None = all unknown.

        Returns:
            Of a stream that the limits refuse, `NO_SLOT`, or `TOO_MANY_AT_ONCE`.
        """
        limit = self._limits.max_streams_per_partition
        seconds = None
        if self._limits.max_new_streams_per_s and timestamps_ms is not None:
            seconds = timestamps_ms // 1000
        slots: IntArray = np.empty(len(unique_ids), np.int64)
        starts = [0, *(np.flatnonzero(np.diff(partitions)) + 1).tolist(), len(unique_ids)]
        if len(starts) <= _MANY_RUNS:
            # A client hands over one partition's records after the other's: slices, which cost nothing per event.
            for first, end in pairwise(starts):
                if end > first:
                    partition = int(partitions[first])
                    takes = None if seconds is None else partial(self._takes, partition, seconds[first:end])
                    slots[first:end] = self._table.locate(partition, unique_ids[first:end], limit, takes)
        else:
            for partition in np.unique(partitions).tolist():
                rows = np.flatnonzero(partitions == partition)
                takes = None if seconds is None else partial(self._takes, partition, seconds[rows])
                slots[rows] = self._table.locate(partition, [unique_ids[row] for row in rows.tolist()], limit, takes)
        self._grow()
        return slots

    def _takes(self, partition: int, seconds: IntArray, row: int) -> bool:
        """Count a new stream of a partition, unless its second has brought as many as the limit.

        Time goes by the records' timestamps and only forward: producers whose clocks differ a little share a second. A
        timestamp far in the past means that the one before it was wrong.
        """
        second, streams = self._arrivals.get(partition, Arrivals())
        now = int(seconds[row])
        if now > second or 0 <= now < second - _CLOCKS_DIFFER_S:
            second, streams = now, 0
        if streams >= self._limits.max_new_streams_per_s:
            return False
        self._arrivals[partition] = Arrivals(second, streams + 1)
        return True

    def applied(self, slots: IntArray, offsets: IntArray) -> npt.NDArray[np.bool_]:
        """Return for each event whether the restored state of its stream contains it already."""
        return self._applied_to[slots] > offsets

    def newest(self, slots: IntArray) -> IntArray:
        """Return the time of each slot's newest event, `NO_WATERMARK` where there was none."""
        return self._last_ds[slots]

    def touched(self, slots: IntArray, ds: IntArray) -> None:
        """Note that the streams in `slots` had events at `ds`."""
        np.maximum.at(self._last_ds, slots, ds)
        self._dirty.update(np.unique(slots // PAGE_SLOTS).tolist())

    # Partitions come and go.

    def watermark(self, partition: int) -> int:
        """Return the newest event time of a partition, `NO_WATERMARK` if it has had no event."""
        return self._watermarks.get(partition, NO_WATERMARK)

    def arrivals(self, partition: int) -> Arrivals:
        """Return how many new streams a partition took last."""
        return self._arrivals.get(partition, Arrivals())

    def num_pages(self, partition: int) -> int:
        """Return how many pages a partition has."""
        return len(self._table.pages(partition))

    def changed(self, partition: int) -> list[int]:
        """Return the numbers of its pages that changed since they were last exported."""
        return [number for number, page in enumerate(self._table.pages(partition)) if page in self._dirty]

    def num_to_write(self, partition: int) -> int:
        """Return about how many streams the pages hold that the next export returns; never fewer."""
        return min(len(self.changed(partition)) * PAGE_SLOTS, self._table.slots(partition).size)

    def export(self, partition: int, offset: int, numbers: Sequence[int] | None = None) -> list[Page]:
        """Return pages of a partition that changed since they were last exported.

        Args:
            partition: of the input.
            offset: what they are as of.
            numbers: of the pages to return, of those that changed; None = all of those.
        """
        pages_of = self._table.pages(partition)
        changed = [
            (number, pages_of[number], self._table.names(pages_of[number]))
            for number in (self.changed(partition) if numbers is None else numbers)
            if pages_of[number] in self._dirty
        ]
        if not changed:
            return []
        slots = [np.arange(page * PAGE_SLOTS, page * PAGE_SLOTS + len(names)) for _, page, names in changed]
        rows = self._slab.gather(np.concatenate(slots))
        if self.history is not None:
            rows |= self.history.export(np.concatenate(slots))
        pages, first = [], 0
        for (number, page, names), own in zip(changed, slots, strict=True):
            last = first + len(names)
            part: dict[str, npt.NDArray[Any]] = {name: values[first:last] for name, values in rows.items()}
            pages.append(Page(partition, number, offset, names, self._last_ds[own].copy(), part))
            self._dirty.discard(page)
            first = last
        return pages

    def load(self, partition: int, pages: Sequence[Page], watermark: int, arrivals: Arrivals = NO_ARRIVALS) -> None:
        """Take in stored pages of a partition that has no streams yet; the newest page of a stream wins."""
        self._watermarks[partition] = watermark
        self._arrivals[partition] = arrivals
        for page in sorted(pages, key=lambda page: page.offset):
            slots, vacated = self._table.place(partition, page.number, page.unique_ids)
            self._grow()
            self._zero(vacated)
            named = np.array([bool(name) for name in page.unique_ids], dtype=bool)
            rows = {name: values[named] for name, values in page.rows.items()}
            self._slab.scatter(slots, {name: row for name, row in rows.items() if not name.startswith(PREFIX)})
            self._last_ds[slots] = page.last_ds[named]
            if self.history is not None:
                self.history.load(slots, rows, self.history.rewind.frequency.period_of(self._last_ds[slots]))
            self._applied_to[slots] = page.offset

    def release(self, partition: int) -> None:
        """Forget the streams of a partition."""
        self._dirty.difference_update(self._table.pages(partition))
        self._table.release(partition)
        self._watermarks.pop(partition, None)
        self._arrivals.pop(partition, None)

    def _grow(self) -> None:
        """Make room for the pages that were handed out, and zero them."""
        if self._slab.ensure(self._table.num_slots):
            more = np.zeros(self._slab.num_slots - self._last_ds.size, np.int64)
            self._last_ds = np.concatenate((self._last_ds, more))
            self._applied_to = np.concatenate((self._applied_to, more))
            if self.history is not None:
                self.history.grow()
        fresh, used = self._table.take_new_pages()
        for page in fresh:  # its rows are zero as the slab made them
            self._last_ds[page * PAGE_SLOTS : (page + 1) * PAGE_SLOTS] = NO_WATERMARK
            if self.history is not None:
                self.history.clear(np.arange(page * PAGE_SLOTS, (page + 1) * PAGE_SLOTS, dtype=np.int64))
        for page in used:
            self._zero(np.arange(page * PAGE_SLOTS, (page + 1) * PAGE_SLOTS, dtype=np.int64))

    def _zero(self, slots: IntArray) -> None:
        """Make the slots as they are before a stream's first event."""
        if slots.size:
            self._slab.clear(slots)
            self._last_ds[slots] = NO_WATERMARK
            self._applied_to[slots] = 0
            if self.history is not None:
                self.history.clear(slots)
