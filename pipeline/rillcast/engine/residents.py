"""The resident streams: streams with a slot, and how they enter, leave, are stored and come back.

Owns: the slots of all streams, their state, the watermarks of partitions, limits on new streams, and eviction.
Does not know: the model, events' values, where exported pages go.

Eviction uses event time and happens at points that depend on the partition's events alone. The partition's watermark is
its newest event time. Whenever it enters another eighth of the time to live, streams whose newest event is older than
the watermark by more than the time to live leave. So a replay evicts the same streams before the same event.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rillcast.arrays import IntArray, rows_of_each
from rillcast.bundle.alarms import ONE_A_WEEK
from rillcast.bundle.bundle import BundleMetadata
from rillcast.engine.alarm_intervals import HOST_BYTES as ALARM_BYTES
from rillcast.engine.alarm_intervals import AlarmIntervals, Budget
from rillcast.engine.device import Device
from rillcast.engine.late import AllowedLateness, RetainedSteps
from rillcast.engine.overdue import HOST_BYTES as OVERDUE_BYTES
from rillcast.engine.overdue import OverdueWatch
from rillcast.engine.pages import Arrivals, Page, Silence, is_additional
from rillcast.engine.periods import Aggregation, Partials
from rillcast.engine.silences import Silences
from rillcast.engine.slab import Slab, room
from rillcast.engine.slot_state import HOST_BYTES, NEVER, SlotState
from rillcast.engine.slots import SlotTable

_TICKS_PER_TTL: Final = 8
_CLOCK_DIFFERENCE_S: Final = 60  # between producers, at most
NO_WATERMARK: Final = NEVER
NO_ARRIVALS: Final = Arrivals()


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on resident streams.

    Attributes:
        idle_ttl_ms: Milliseconds by which a stream's newest event may lie behind the partition's watermark before the
            stream leaves; 0 = streams never leave.
        max_streams_per_partition: Streams of a partition; the engine refuses further new ones; 0 = no limit.
        max_new_streams_per_s: New streams of a partition in a second of their records' timestamps; the engine refuses
            further ones; 0 = no limit.
        initial_streams: Streams for which a GPU has room from the start. The CPU has room for all.
        page_slots: Streams of a page of state; 0 = as many as a page may have.
    """

    idle_ttl_ms: int = 0
    max_streams_per_partition: int = 0
    max_new_streams_per_s: int = 0
    initial_streams: int = 0
    page_slots: int = 0


class Residents:
    """The streams that have state. Used from one thread.

    Attributes:
        state: The state of the slots on the device.
        retained: Steps that late events may rewind; None = none are.
        partials: Open periods of raw events; None = each event is an observation.
        alarm_intervals: How far apart the alarms of each stream were.
        overdue: Watches silences of streams; None = they are not watched.
        silences: The decisions that partitions were silent.
    """

    def __init__(
        self,
        metadata: BundleMetadata,
        device: Device,
        limits: Limits,
        lateness: AllowedLateness | None = None,
        aggregation: Aggregation | None = None,
        alarms: Budget = ONE_A_WEEK,
        overdue_periods: int = 0,
    ) -> None:
        """Allocate the state.

        Args:
            metadata: Metadata of the bundle.
            device: Device of the state.
            limits: Limits on resident streams.
            lateness: Allowed lateness of events; None = nothing is retained for late events.
            aggregation: How raw events become observations; None = each event is one.
            alarms: How many alarms of a stream are wanted.
            overdue_periods: See `OverdueWatch`; 0 = silences of streams are not watched.
        """
        self._limits = limits
        self._tick_ms = max(1, limits.idle_ttl_ms // _TICKS_PER_TTL)
        self._table = SlotTable(limits.page_slots)
        host_bytes = HOST_BYTES + (0 if isinstance(alarms, str) else ALARM_BYTES)
        if lateness is not None:
            host_bytes += 2 * metadata.row_bytes + RetainedSteps.host_bytes(metadata, lateness)
        if aggregation is not None:
            host_bytes += Partials.host_bytes(aggregation)
        if overdue_periods:
            host_bytes += OVERDUE_BYTES
        least = self._table.num_slots + (0 if device.name == "cpu" else limits.initial_streams)
        slots = room(metadata.states, device, host_bytes, least)
        self.state = SlotState(Slab(metadata.states, device, slots), self._table.page_slots)
        self.retained = None if lateness is None else RetainedSteps(metadata, device, self.state.slab, lateness)
        self.partials = None if aggregation is None else Partials(aggregation, self.state.num_slots)
        self.alarm_intervals = AlarmIntervals(alarms, metadata.frequency, self._table.ids)
        self.overdue = (
            OverdueWatch(
                overdue_periods,
                metadata.frequency,
                self._table.ids,
                self.alarm_intervals.of,
                self.state.applied,
                self.state.num_slots,
            )
            if overdue_periods
            else None
        )
        self._watermarks: dict[int, int] = {}
        self._arrivals: dict[int, Arrivals] = {}
        self.silences = Silences()

    @property
    def num_streams(self) -> int:
        """Number of streams that have state. Any thread may read it."""
        return self._table.num_streams

    @property
    def num_split(self) -> int:
        """Number of streams that have state in more than one partition. Any thread may read it."""
        return self._table.num_split

    @property
    def last_split(self) -> str | None:
        """The stream that was found last in more than one partition. Any thread may read it."""
        return self._table.last_split

    @property
    def size_bytes(self) -> int:
        """Bytes of state on the device, including free slots of the pages in use."""
        retained = 0 if self.retained is None else self.retained.slot_bytes
        partials = 0 if self.partials is None else Partials.host_bytes(self.partials.aggregation)
        return self._table.num_slots * (self.state.slab.row_bytes + retained + partials)

    # Events.

    def until_evictions(self, partitions: IntArray, ds: IntArray) -> Iterator[tuple[IntArray, Mapping[int, int]]]:
        """Cut events where an eviction is due, and move the watermarks.

        Args:
            partitions: `(n,)` int64, partitions of the events.
            ds: `(n,)` int64, times of the events in milliseconds since the epoch.

        Yields:
            Indices of the next events, and the partitions to evict from before them, each with its watermark. Every
            event comes once; the events of a partition stay in order.
        """
        if not self._limits.idle_ttl_ms:
            for partition, rows in rows_of_each(partitions):
                newest = int(ds[rows].max())
                self._watermarks[partition] = max(newest, self._watermarks.get(partition, newest))
            yield np.arange(ds.size, dtype=np.int64), {}
            return
        number: IntArray = np.zeros(ds.size, np.int64)
        evictions: list[dict[int, int]] = [{}]
        for partition in np.unique(partitions).tolist():
            rows = np.flatnonzero(partitions == partition)
            before = self._watermarks.get(partition, int(ds[rows[0]]))
            watermark = np.maximum.accumulate(np.maximum(ds[rows], before))
            self._watermarks[partition] = int(watermark[-1])
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
        """Remove streams that are idle by the watermark of their partition, and return their number."""
        evicted = 0
        for partition, watermark in due.items():
            slots = self._table.slots(partition)
            newest = self.state.newest(slots)
            if self.partials is not None:
                newest = np.maximum(newest, self.partials.newest(slots))
            idle = slots[watermark - newest > self._limits.idle_ttl_ms]
            if idle.size:
                if self.overdue is not None:
                    self.overdue.leave(partition, idle)
                self._table.forget(partition, idle)
                self._clear(idle)
                self.state.mark_changed(idle)
                evicted += idle.size
        return evicted

    def admit(self, partitions: IntArray, unique_ids: Sequence[str], timestamps_ms: IntArray | None = None) -> IntArray:
        """Return the `(n,)` slots of streams and give one to each new stream.

        Args:
            partitions: `(n,)` int64, partitions of the streams.
            unique_ids: Ids of the streams.
            timestamps_ms: `(n,)` int64, timestamps of the records, -1 = unknown; None = all unknown.

        Returns:
            The slots; for a stream that the limits refuse, `NO_SLOT` or `TOO_MANY_AT_ONCE`.
        """
        limit = self._limits.max_streams_per_partition
        seconds = None
        if self._limits.max_new_streams_per_s and timestamps_ms is not None:
            seconds = timestamps_ms // 1000
        slots: IntArray = np.empty(len(unique_ids), np.int64)
        for partition, rows in rows_of_each(partitions):
            takes = None if seconds is None else partial(self._takes, partition, seconds[rows])
            ids = unique_ids[rows] if isinstance(rows, slice) else [unique_ids[row] for row in rows.tolist()]
            slots[rows] = self._table.locate(partition, ids, limit, takes)
        self._grow()
        return slots

    def _takes(self, partition: int, seconds: IntArray, row: int) -> bool:
        """Count a new stream of a partition, unless its second has reached the limit.

        Seconds come from the records' timestamps and only move forward, so producers whose clocks differ a little share
        a second. A timestamp far in the past means that the one before it was wrong.
        """
        second, streams = self._arrivals.get(partition, Arrivals())
        now = int(seconds[row])
        if now > second or 0 <= now < second - _CLOCK_DIFFERENCE_S:
            second, streams = now, 0
        if streams >= self._limits.max_new_streams_per_s:
            return False
        self._arrivals[partition] = Arrivals(second, streams + 1)
        return True

    # Partitions enter and leave.

    def watermark(self, partition: int) -> int:
        """Return the newest event time of a partition in milliseconds, `NO_WATERMARK` if it has had no event."""
        return self._watermarks.get(partition, NO_WATERMARK)

    def arrivals(self, partition: int) -> Arrivals:
        """Return how many new streams a partition took in the last second that brought any."""
        return self._arrivals.get(partition, Arrivals())

    def slots(self, partition: int) -> IntArray:
        """Return the slots of all streams of a partition, in increasing order."""
        return self._table.slots(partition)

    def find(self, partition: int, unique_ids: Iterable[str]) -> dict[str, int]:
        """Return the slots of those of some streams that have one in a partition."""
        return self._table.find(partition, unique_ids)

    def newest(self, partition: int) -> tuple[IntArray, IntArray]:
        """Return the slots of a partition's streams, and the time of each stream's newest event in milliseconds.

        With aggregation, the time is when its period began. Periods without events do not count, though they were
        stepped.
        """
        pages, size = np.array(self._table.pages(partition), np.int64), self._table.page_slots
        slots = (pages[:, None] * size + np.arange(size)).ravel()
        newest = self._newest_of(slots)
        known = newest != NEVER
        return slots[known], newest[known]

    def _newest_of(self, slots: IntArray) -> IntArray:
        """Return the time of each stream's newest event as `newest` does; `NEVER` = it has had none."""
        return self.state.newest(slots) if self.partials is None else self.partials.newest_event(slots)

    def reached(self, partition: int) -> int:
        """Return the event time that a partition has come to, by its events or by silence."""
        return max(self.watermark(partition), self.silences.applied_to(partition))

    def ids(self, slots: IntArray) -> list[str]:
        """Return the streams in some slots."""
        return self._table.ids(slots)

    def num_pages(self, partition: int) -> int:
        """Return the number of pages of a partition."""
        return len(self._table.pages(partition))

    def changed(self, partition: int) -> list[int]:
        """Return the numbers of the partition's pages that changed since their last export."""
        changed = self.state.changed_pages
        return [number for number, page in enumerate(self._table.pages(partition)) if page in changed]

    def num_to_write(self, partition: int) -> int:
        """Return an upper bound for the number of streams in the pages that the next export returns."""
        return min(len(self.changed(partition)) * self._table.page_slots, self._table.slots(partition).size)

    def export(self, partition: int, offset: int, numbers: Sequence[int] | None = None) -> list[Page]:
        """Return pages of a partition that changed since their last export.

        Args:
            partition: Partition of the input.
            offset: Input position up to which the pages are current.
            numbers: Numbers of the changed pages to return; None = all changed pages.
        """
        pages_of = self._table.pages(partition)
        changed = [
            (number, pages_of[number], self._table.names(pages_of[number]))
            for number in (self.changed(partition) if numbers is None else numbers)
            if pages_of[number] in self.state.changed_pages
        ]
        if not changed:
            return []
        slots = [self._table.slots_of(page)[: len(names)] for _, page, names in changed]
        every = np.concatenate(slots)
        rows = self.state.slab.gather(every)
        if self.retained is not None:
            rows |= self.retained.export(every)
        if self.partials is not None:
            rows |= self.partials.export(every)
        if self.overdue is not None:
            rows |= self.overdue.export(every)
        pages, first = [], 0
        for (number, page, names), own in zip(changed, slots, strict=True):
            last = first + len(names)
            part: dict[str, npt.NDArray[Any]] = {name: values[first:last] for name, values in rows.items()}
            pages.append(Page(partition, number, offset, names, self.state.newest(own), part))
            self.state.changed_pages.discard(page)
            first = last
        return pages

    def load(
        self,
        partition: int,
        pages: Sequence[Page],
        watermark: int,
        arrivals: Arrivals = NO_ARRIVALS,
        silences: Sequence[Silence] = (),
    ) -> None:
        """Load stored pages of a partition that has no streams yet; the newest page of a stream wins."""
        self._watermarks[partition] = watermark
        self.silences.load(partition, silences)
        self._arrivals[partition] = arrivals
        if self.overdue is not None:
            self.overdue.begin(partition, watermark)
        for page in sorted(pages, key=lambda page: page.offset):
            slots, vacated = self._table.restore(partition, page.number, page.unique_ids)
            self._grow()
            self._clear(vacated)
            named = np.array([bool(name) for name in page.unique_ids], dtype=bool)
            rows = {name: values[named] for name, values in page.rows.items()}
            self.state.slab.scatter(slots, {name: row for name, row in rows.items() if not is_additional(name)})
            self.state.restore(slots, page.last_ds[named], page.offset)
            if self.retained is not None:
                self.retained.load(slots, rows, page.last_ds[named])
            if self.partials is not None:
                self.partials.load(slots, rows)
            if self.overdue is not None:
                self.overdue.load(partition, slots, self._newest_of(slots), rows)

    def release(self, partition: int) -> None:
        """Forget the streams of a partition."""
        self.state.changed_pages.difference_update(self._table.pages(partition))
        self._table.release(partition)
        self._watermarks.pop(partition, None)
        self._arrivals.pop(partition, None)
        self.silences.release(partition)
        if self.overdue is not None:
            self.overdue.release(partition)

    def _grow(self) -> None:
        """Make room for the pages that were handed out, and prepare their slots."""
        if self.state.ensure(self._table.num_slots):
            if self.retained is not None:
                self.retained.grow()
            if self.partials is not None:
                self.partials.grow(self.state.num_slots)
            if self.overdue is not None:
                self.overdue.grow(self.state.num_slots)
        fresh, used = self._table.take_new_pages()
        for page in fresh:
            slots = self._table.slots_of(page)
            self.state.open(slots)
            self._clear_host(slots)
        for page in used:
            self._clear(self._table.slots_of(page))

    def _clear(self, slots: IntArray) -> None:
        """Reset slots to their state before a stream's first event."""
        if slots.size:
            self.state.clear(slots)
            self._clear_host(slots)

    def _clear_host(self, slots: IntArray) -> None:
        self.alarm_intervals.clear(slots)
        if self.retained is not None:
            self.retained.clear(slots)
        if self.partials is not None:
            self.partials.clear(slots)
        if self.overdue is not None:
            self.overdue.clear(slots)
