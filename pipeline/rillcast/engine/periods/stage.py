"""The stage in front of the model: takes raw events, and gives the periods that they close.

    raw events -> slots -> late? -> join the open cells -> closed periods, each with the record that closed it
                             |---> join a closed cell  -> the corrected period, with the late record

Owns: which events are late, which record closes a period, and the order of closed periods: by the record that closed
them, then by period. Corrections come after the closings of events before, and before those of events after.
Does not know: what an aggregate computes (`aggregates`), which periods are empty (`closing`), the model.

Invariant: what an event does depends on its partition's events in their order. A stream whose restored state has an
event already does not take it again, and a period that is closed never closes again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rillcast.arrays import FloatArray, IntArray, StatusArray
from rillcast.bundle.frequency import Whole
from rillcast.engine.overdue import OverdueChange
from rillcast.engine.pages import Silence
from rillcast.engine.periods import corrections, joining
from rillcast.engine.periods.joining import Joined
from rillcast.engine.periods.partials import Partials
from rillcast.engine.periods.taken import RawOutcome, Taken
from rillcast.engine.residents import Residents
from rillcast.engine.slot_state import NEVER
from rillcast.engine.slots import NO_SLOT, TOO_MANY_AT_ONCE
from rillcast.events import EventBatch


@dataclass(frozen=True, slots=True)
class Closed:
    """The periods that some raw events closed, or corrected.

    Attributes:
        taken: The raw events; empty where the periods were not closed by events, and of corrections.
        events: One event for each period: it begins at `ds`, and partition, offset and row are those of the record that
            closed or corrected it.
        slots: `(k,)` int64, the slot of each.
        evicted: Streams that left before.
        overdue: The streams that fell silent or woke by the raw events.
    """

    taken: Taken
    events: EventBatch
    slots: IntArray
    evicted: int
    overdue: Sequence[OverdueChange] = ()


class _Raw(NamedTuple):
    """Raw events with their slots and periods.

    Attributes:
        events: The events.
        slots: `(n,)` int64.
        periods: `(n,)` int64.
        outcome: `(n,)` int8, `RawOutcome`; filled in.
        boundaries: `(n,)` int64, the first open period of each event's partition after it; None = streams have their
            own.
    """

    events: EventBatch
    slots: IntArray
    periods: IntArray
    outcome: StatusArray
    boundaries: IntArray | None

    def part(self, rows: slice) -> _Raw:
        """Return some of the events."""
        boundaries = None if self.boundaries is None else self.boundaries[rows]
        events = self.events.take(np.arange(rows.start, rows.stop))
        return _Raw(events, self.slots[rows], self.periods[rows], self.outcome[rows], boundaries)


class _Part(NamedTuple):
    """Closed periods of some streams; `rows` are the rows of the events that closed them."""

    rows: IntArray
    slots: IntArray
    periods: IntArray
    y: FloatArray


class PeriodStage:
    """Used from one thread."""

    def __init__(self, residents: Residents, partials: Partials) -> None:
        """Put the parts together.

        Args:
            residents: The streams.
            partials: The open periods of their slots.
        """
        self._residents = residents
        self._state = residents.state
        self._partials = partials
        self._aggregation = partials.aggregation
        self._period_of = partials.aggregation.frequency.period_of
        retained = residents.retained
        self._corrections = None if retained is None else corrections.Corrections(partials, retained)

    def take(self, events: EventBatch) -> Iterator[Closed]:
        """Take raw events in their order; give the periods that they close, in parts between evictions.

        Periods have to be stepped before the next part is asked for, because corrections compare with them.
        """
        reached, partitions = self._residents.reached, np.unique(events.partitions).tolist()
        before = {partition: self._boundary(reached(partition)) for partition in partitions}
        watermarks = self._watermarks(events) if self._aggregation.close == "partition" else None
        for rows, evictions in self._residents.until_evictions(events.partitions, events.ds):
            evicted = self._residents.evict(evictions)
            part = events if rows.size == len(events) else events.take(rows)
            boundaries = None if watermarks is None else self._boundary(watermarks[rows])
            yield from self._take(part, boundaries, before, evicted)

    def finish(self, partition: int, offset: int) -> Closed:
        """Close all periods of a partition that have events, because it has ended.

        Args:
            partition: The partition.
            offset: Offset of its last record, which the closed periods name.
        """
        streams, cursor = self._residents.slots(partition), self._partials.cursor(self._residents.slots(partition))
        if self._aggregation.close == "partition":
            newest = int(self._period_of(self._residents.reached(partition)))
            horizon = np.maximum(cursor, newest + 1)
        else:
            found, horizon = self._partials.open(streams), cursor.copy()
            np.maximum.at(horizon, found.which, found.periods + 1)
        return self._close_after(partition, offset, streams, horizon)

    def _close_after(self, partition: int, offset: int, streams: IntArray, horizon: IntArray) -> Closed:
        """Close periods of a partition behind its last record so far, without another event."""
        none, no_events = np.empty(0, np.int64), joining.no_events()
        at = np.array([partition], np.int64)
        closing_record = EventBatch(at, np.array([offset], np.int64), ("",), at, np.zeros(1, np.float32))
        part = self._close(no_events, streams, horizon, Joined(none, none, none), none, (np.zeros(1, np.int64), None))
        return Closed(Taken(no_events, np.empty(0, np.int8)), *self._events(closing_record, [part]), 0)

    def closes_by(self, partition: int, watermark_ms: int) -> bool:
        """Return whether a partition with streams has open periods before a watermark."""
        if self._aggregation.close != "partition" or self._residents.num_pages(partition) == 0:
            return False
        return bool(self._boundary(watermark_ms) > self._boundary(self._residents.reached(partition)))

    def silence(self, partition: int, silence: Silence) -> Closed:
        """Close the periods of a partition up to the watermark of a silence."""
        self._residents.silences.apply(partition, silence)
        streams = self._residents.slots(partition)
        boundary = self._boundary(self._residents.reached(partition))
        horizon = np.maximum(self._partials.cursor(streams), boundary)
        closed = self._close_after(partition, silence.position - 1, streams, horizon)
        if (watch := self._residents.overdue) is None:
            return closed
        return replace(closed, overdue=watch.let_pass(partition, silence.watermark_ms, silence.position))

    def _watermarks(self, events: EventBatch) -> IntArray:
        """Return the watermark of each event's partition after the event."""
        watermarks = np.empty_like(events.ds)
        for partition in np.unique(events.partitions).tolist():
            rows = np.flatnonzero(events.partitions == partition)
            known = self._residents.reached(partition)
            watermarks[rows] = np.maximum.accumulate(np.maximum(events.ds[rows], known))
        return watermarks

    def _boundary(self, watermark: Whole) -> Whole:
        """Return the first period that is open by a watermark, an `int` or an array."""
        behind: Any = watermark
        boundary: Whole = self._period_of(behind - self._aggregation.grace_ms)
        return boundary

    def _take(
        self, events: EventBatch, boundaries: IntArray | None, before: dict[int, int], evicted: int
    ) -> Iterator[Closed]:
        slots = self._residents.admit(events.partitions, events.unique_ids, events.timestamps_ms)
        outcome: StatusArray = np.zeros(len(events), np.int8)
        outcome[slots == NO_SLOT] = RawOutcome.TOO_MANY_STREAMS
        outcome[slots == TOO_MANY_AT_ONCE] = RawOutcome.TOO_MANY_NEW_STREAMS
        slots = np.maximum(slots, NO_SLOT)
        outcome[(outcome == RawOutcome.JOINED) & self._state.applied(slots, events.offsets)] = (
            RawOutcome.ALREADY_APPLIED
        )
        raw = _Raw(events, slots, self._period_of(events.ds), outcome, boundaries)
        yield from self._close_and_correct(raw, before, evicted)
        if (watch := self._residents.overdue) is not None:
            came = (outcome == RawOutcome.JOINED) | (outcome == RawOutcome.CORRECTED)
            if changes := watch.take(events, np.arange(len(events), dtype=np.int64), slots, came):
                taken = Taken(joining.no_events(), np.empty(0, np.int8))
                yield Closed(taken, *self._events(events, ()), 0, changes)

    def _close_and_correct(self, raw: _Raw, before: dict[int, int], evicted: int) -> Iterator[Closed]:
        if self._corrections is None:
            yield self._join(raw, before, evicted)
            return
        first_open = self._first_open(raw)
        for part in self._parts(raw, first_open, before):
            some = raw if part == slice(0, len(raw.events)) else raw.part(part)
            yield self._join(some, before, evicted)
            late = np.flatnonzero(some.outcome == RawOutcome.CORRECTED)
            of_late = some.slots[late], some.periods[late], first_open[part][late]
            for corrected in self._corrections.take(some.events, late, *of_late):
                self._state.mark_changed(some.slots[late])
                taken = Taken(joining.no_events(), np.empty(0, np.int8))
                yield Closed(taken, *self._events(some.events, [_Part(*corrected)]), 0)
            evicted = 0

    def _first_open(self, raw: _Raw) -> IntArray:
        """Return the first open period of each event's stream when the event comes; `NEVER` where there is none."""
        if raw.boundaries is not None:
            return raw.boundaries
        first_open = np.full(len(raw.events), NEVER, np.int64)
        rows = np.flatnonzero(raw.outcome == RawOutcome.JOINED)
        streams, which = np.unique(raw.slots[rows], return_inverse=True)
        first_open[rows] = joining.newest_so_far(which, raw.periods[rows], self._partials.cursor(streams))
        return first_open

    def _parts(self, raw: _Raw, first_open: IntArray, before: dict[int, int]) -> Sequence[slice]:
        """Find the events that correct a closed period, and cut the events so that each comes between its closings."""
        reach = first_open - self._aggregation.correctable
        corrects = (raw.outcome == RawOutcome.JOINED) & (raw.periods < first_open) & (raw.periods >= reach)
        if not corrects.any():
            return [slice(0, len(raw.events))]
        raw.outcome[corrects] = RawOutcome.CORRECTED
        if raw.boundaries is None:
            closes = (raw.outcome == RawOutcome.JOINED) & (raw.periods >= first_open)
            return corrections.parts(corrects, closes, raw.slots)
        partitions = raw.events.partitions
        closes = np.zeros(len(raw.events), np.bool_)
        for partition, boundary in before.items():
            own = np.flatnonzero(partitions == partition)
            closes[own] = np.diff(raw.boundaries[own], prepend=boundary) > 0
        return corrections.parts(corrects, closes, partitions)

    def _join(self, raw: _Raw, before: dict[int, int], evicted: int) -> Closed:
        """Let events join, and close periods."""
        events, boundaries = raw.events, raw.boundaries
        if boundaries is None:
            closed = self._by_stream(events, raw.slots, raw.periods, raw.outcome)
        else:
            closed = self._by_watermark(events, raw.slots, raw.periods, raw.outcome, boundaries, before)
            for partition in before:
                own = boundaries[events.partitions == partition]
                before[partition] = int(own[-1]) if own.size else before[partition]
        return Closed(Taken(events, raw.outcome), *self._events(events, closed), evicted)

    # A period of a stream closes with the stream's first event of a later period.

    def _by_stream(
        self, events: EventBatch, slots: IntArray, periods: IntArray, outcome: StatusArray
    ) -> Sequence[_Part]:
        rows = np.flatnonzero(outcome == RawOutcome.JOINED)
        joined = Joined(rows, slots[rows], periods[rows])
        cursor = self._partials.cursor(joined.slots)
        moving = joined.periods > cursor
        if not moving.any():
            self._join_open(events, joined, joined.periods < cursor, outcome)
            return ()
        streams = np.unique(joined.slots[moving])
        among = np.searchsorted(streams, joined.slots)
        moves = streams[np.minimum(among, streams.size - 1)] == joined.slots
        self._join_open(events, joining.some(joined, ~moves), (joined.periods < cursor)[~moves], outcome)
        joined, which = joining.some(joined, moves), among[moves]
        late = joined.periods < joining.newest_so_far(which, joined.periods, self._partials.cursor(streams))
        outcome[joined.rows[late]] = RawOutcome.LATE
        joined, which = joining.some(joined, ~late), which[~late]
        horizon = self._partials.cursor(streams)
        np.maximum.at(horizon, which, joined.periods)
        return [self._close(events, streams, horizon, joined, which, None)]

    # A period of all streams of a partition closes with the partition's watermark.

    def _by_watermark(
        self,
        events: EventBatch,
        slots: IntArray,
        periods: IntArray,
        outcome: StatusArray,
        boundaries: IntArray,
        before: dict[int, int],
    ) -> Sequence[_Part]:
        parts = []
        outcome[(outcome == RawOutcome.JOINED) & (periods < boundaries)] = RawOutcome.LATE
        for partition in before:
            own = np.flatnonzero(events.partitions == partition)
            if not own.size:
                continue
            rows, boundary = own[outcome[own] == RawOutcome.JOINED], int(boundaries[own[-1]])
            joined = Joined(rows, slots[rows], periods[rows])
            if boundary == before[partition]:
                new = self._partials.cursor(joined.slots) == NEVER
                if new.any():
                    self._partials.begin(joined.slots[new], boundary)
                self._join_open(events, joined, np.zeros(rows.size, np.bool_), outcome)
                continue
            streams = self._residents.slots(partition)
            which = np.searchsorted(streams, joined.slots)
            horizon = np.maximum(self._partials.cursor(streams), boundary)
            closed_by = own, boundaries[own]
            parts.append(self._close(events, streams, horizon, joined, which, closed_by))
        return parts

    # Both.

    def _join_open(self, events: EventBatch, joined: Joined, late: npt.NDArray[np.bool_], outcome: StatusArray) -> None:
        """Let events of open periods join, where nothing closes."""
        if late.any():
            outcome[joined.rows[late]] = RawOutcome.LATE
            joined = joining.some(joined, ~late)
        if joined.rows.size:
            cells = self._partials.cell_of(joined.slots, joined.periods)
            self._partials.cells.join(cells, events.ds[joined.rows], events.y[joined.rows])
            self._state.mark_changed(joined.slots)

    def _close(
        self,
        events: EventBatch,
        streams: IntArray,
        horizon: IntArray,
        joined: Joined,
        which: IntArray,
        closed_by: tuple[IntArray, IntArray | None] | None,
    ) -> _Part:
        """Let events join, and close the periods of some streams before their horizons.

        Args:
            events: All events.
            streams: `(m,)`, the slots of the streams.
            horizon: `(m,)`, the first period of each that stays open.
            joined: Events of these streams.
            which: The stream of each, an index into `streams`.
            closed_by: Rows of the partition's events, and its boundary after each (none where a single row closes all);
                None = a period is closed by the stream's first event of a later one.
        """
        partials = self._partials
        found = joining.found_cells(partials, streams, joined, which, events)
        cursor = partials.cursor(streams)
        done = joining.close(found, cursor, partials.last(streams), horizon, self._aggregation)
        if closed_by is None:
            rows = found.first_row[done.following]
        elif (boundaries := closed_by[1]) is None:
            rows = np.full(done.periods.size, closed_by[0][0])
        else:
            rows = closed_by[0][np.searchsorted(boundaries, done.periods, side="right")]
        y: FloatArray = np.full(done.cells.size, self._aggregation.empty, np.float32)
        with_events = done.cells >= 0
        y[with_events] = found.cells.results()[done.cells[with_events]]
        partials.advance(streams, horizon, done.last)
        still = np.flatnonzero(found.periods >= horizon[found.which] - self._aggregation.correctable)
        into = partials.cell_of(streams[found.which[still]], found.periods[still])
        for name, column in partials.cells.columns.items():
            column[into] = found.cells.columns[name][still]
        self._state.mark_changed(streams)
        order = np.lexsort((done.which, done.periods, rows))
        return _Part(rows[order], streams[done.which[order]], done.periods[order], y[order])

    def _events(self, events: EventBatch, parts: Sequence[_Part]) -> tuple[EventBatch, IntArray]:
        """Return closed periods as events, and their slots."""
        if not parts:
            return joining.no_events(), np.empty(0, np.int64)
        rows, slots, periods, y = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        closed = EventBatch(
            events.partitions[rows],
            events.offsets[rows],
            self._residents.ids(slots),
            self._aggregation.frequency.start_of(periods),
            y,
            rows=events.rows[rows],
        )
        return closed, slots
