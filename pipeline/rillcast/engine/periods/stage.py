"""The stage in front of the model: takes raw events, and gives the periods that they close.

    raw events -> slots -> late? -> join the open cells -> closed periods, each with the record that closed it

Owns: which events are late, which record closes a period, and the order of closed periods: by the record that closed
them, then by period.
Does not know: what an aggregate computes (`aggregates`), which periods are empty (`closing`), the model.

Invariant: what an event does depends on its partition's events in their order. A stream whose restored state has an
event already does not take it again, and a period that is closed never closes again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rillcast.arrays import FloatArray, IntArray, StatusArray
from rillcast.bundle.frequency import Whole
from rillcast.engine.pages import Silence
from rillcast.engine.periods import closing
from rillcast.engine.periods.aggregates import Cells
from rillcast.engine.periods.partials import Partials
from rillcast.engine.periods.taken import RawOutcome, Taken
from rillcast.engine.residents import Residents
from rillcast.engine.slot_state import NEVER
from rillcast.engine.slots import NO_SLOT, TOO_MANY_AT_ONCE
from rillcast.events import EventBatch


@dataclass(frozen=True, slots=True)
class Closed:
    """The periods that some raw events closed.

    Attributes:
        taken: The raw events; empty where the periods were not closed by events.
        events: One event for each closed period: it begins at `ds`, and partition, offset and row are those of the
            record that closed it.
        slots: `(k,)` int64, the slot of each.
        evicted: Streams that left before.
    """

    taken: Taken
    events: EventBatch
    slots: IntArray
    evicted: int


class _Joined(NamedTuple):
    """Raw events that join, in the order of arrival; `rows` are their rows among all events."""

    rows: IntArray
    slots: IntArray
    periods: IntArray


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

    def take(self, events: EventBatch) -> Iterator[Closed]:
        """Take raw events in their order; give the periods that they close, in parts between evictions."""
        reached, partitions = self._residents.reached, np.unique(events.partitions).tolist()
        before = {partition: self._boundary(reached(partition)) for partition in partitions}
        watermarks = self._watermarks(events) if self._aggregation.close == "partition" else None
        for rows, evictions in self._residents.until_evictions(events.partitions, events.ds):
            evicted = self._residents.evict(evictions)
            part = events if rows.size == len(events) else events.take(rows)
            boundaries = None if watermarks is None else self._boundary(watermarks[rows])
            yield self._take(part, boundaries, before, evicted)
            if boundaries is not None:
                for partition in before:
                    own = boundaries[part.partitions == partition]
                    before[partition] = int(own[-1]) if own.size else before[partition]

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
        none = np.empty(0, np.int64)
        at, no_events = np.array([partition], np.int64), EventBatch(none, none, (), none, np.empty(0, np.float32))
        closing_record = EventBatch(at, np.array([offset], np.int64), ("",), at, np.zeros(1, np.float32))
        part = self._close(no_events, streams, horizon, _Joined(none, none, none), none, (np.zeros(1, np.int64), None))
        return Closed(Taken(no_events, np.empty(0, np.int8)), *self._events(closing_record, [part]), 0)

    def closes_by(self, partition: int, watermark_ms: int) -> bool:
        """Return whether a partition with streams has open periods before a watermark."""
        if self._aggregation.close != "partition" or self._residents.num_pages(partition) == 0:
            return False
        return bool(self._boundary(watermark_ms) > self._boundary(self._residents.reached(partition)))

    def silence(self, partition: int, silence: Silence) -> Closed:
        """Close the periods of a partition up to the watermark of a silence."""
        self._residents.note_silence(partition, silence)
        streams = self._residents.slots(partition)
        boundary = self._boundary(self._residents.reached(partition))
        horizon = np.maximum(self._partials.cursor(streams), boundary)
        return self._close_after(partition, silence.position - 1, streams, horizon)

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

    def _take(self, events: EventBatch, boundaries: IntArray | None, before: dict[int, int], evicted: int) -> Closed:
        slots = self._residents.admit(events.partitions, events.unique_ids, events.timestamps_ms)
        outcome: StatusArray = np.zeros(len(events), np.int8)
        outcome[slots == NO_SLOT] = RawOutcome.TOO_MANY_STREAMS
        outcome[slots == TOO_MANY_AT_ONCE] = RawOutcome.TOO_MANY_NEW_STREAMS
        slots = np.maximum(slots, NO_SLOT)
        outcome[(outcome == RawOutcome.JOINED) & self._state.applied(slots, events.offsets)] = (
            RawOutcome.ALREADY_APPLIED
        )
        periods = self._period_of(events.ds)
        if boundaries is None:
            parts = self._by_stream(events, slots, periods, outcome)
        else:
            parts = self._by_watermark(events, slots, periods, outcome, boundaries, before)
        return Closed(Taken(events, outcome), *self._events(events, parts), evicted)

    # A period of a stream closes with the stream's first event of a later period.

    def _by_stream(
        self, events: EventBatch, slots: IntArray, periods: IntArray, outcome: StatusArray
    ) -> Sequence[_Part]:
        rows = np.flatnonzero(outcome == RawOutcome.JOINED)
        joined = _Joined(rows, slots[rows], periods[rows])
        cursor = self._partials.cursor(joined.slots)
        moving = joined.periods > cursor
        if not moving.any():
            self._join_open(events, joined, joined.periods < cursor, outcome)
            return ()
        streams = np.unique(joined.slots[moving])
        among = np.searchsorted(streams, joined.slots)
        moves = streams[np.minimum(among, streams.size - 1)] == joined.slots
        self._join_open(events, _some(joined, ~moves), (joined.periods < cursor)[~moves], outcome)
        joined, which = _some(joined, moves), among[moves]
        late = _behind(which, joined.periods, self._partials.cursor(streams))
        outcome[joined.rows[late]] = RawOutcome.LATE
        joined, which = _some(joined, ~late), which[~late]
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
            joined = _Joined(rows, slots[rows], periods[rows])
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

    def _join_open(
        self, events: EventBatch, joined: _Joined, late: npt.NDArray[np.bool_], outcome: StatusArray
    ) -> None:
        """Let events of open periods join, where nothing closes."""
        if late.any():
            outcome[joined.rows[late]] = RawOutcome.LATE
            joined = _some(joined, ~late)
        if joined.rows.size:
            cells = self._partials.cell_of(joined.slots, joined.periods)
            self._partials.cells.join(cells, events.ds[joined.rows], events.y[joined.rows])
            self._state.mark_changed(joined.slots)

    def _close(
        self,
        events: EventBatch,
        streams: IntArray,
        horizon: IntArray,
        joined: _Joined,
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
        found = _cells(partials, streams, joined, which, events)
        cursor = partials.cursor(streams)
        done = closing.close(
            cursor, partials.last(streams), horizon, found.which, found.periods, self._aggregation.silent_after
        )
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
        still = np.flatnonzero(found.periods >= horizon[found.which])
        into = partials.cell_of(streams[found.which[still]], found.periods[still])
        for name, column in partials.cells.columns.items():
            column[into] = found.cells.columns[name][still]
        self._state.mark_changed(streams)
        order = np.lexsort((done.which, done.periods, rows))
        return _Part(rows[order], streams[done.which[order]], done.periods[order], y[order])

    def _events(self, events: EventBatch, parts: Sequence[_Part]) -> tuple[EventBatch, IntArray]:
        """Return closed periods as events, and their slots."""
        if not parts:
            none = np.empty(0, np.int64)
            return EventBatch(none, none, (), none, np.empty(0, np.float32)), none
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


class _Found(NamedTuple):
    """Cells of some streams that have events, sorted by stream, then by period.

    Attributes:
        which: `(c,)`, the stream of each.
        periods: `(c,)`, its period.
        first_row: `(c,)`, the row of its first event among those that join now; beyond all rows where none joins.
        cells: The cells.
    """

    which: IntArray
    periods: IntArray
    first_row: IntArray
    cells: Cells


def _cells(partials: Partials, streams: IntArray, joined: _Joined, which: IntArray, events: EventBatch) -> _Found:
    """Return the cells of some streams with the events that join them."""
    stored = partials.open(streams)
    stream = np.concatenate((stored.which, which))
    period = np.concatenate((stored.periods, joined.periods))
    order = np.lexsort((period, stream))
    stream, period = stream[order], period[order]
    is_first = np.ones(order.size, np.bool_)
    is_first[1:] = (stream[1:] != stream[:-1]) | (period[1:] != period[:-1])
    cell = np.empty(order.size, np.int64)
    cell[order] = np.cumsum(is_first) - 1
    number, held = int(np.count_nonzero(is_first)), stored.which.size
    cells = Cells(partials.aggregation, number)
    for name, column in cells.columns.items():
        column[cell[:held]] = partials.cells.columns[name][stored.cells]
    cells.join(cell[held:], events.ds[joined.rows], events.y[joined.rows])
    first_row = np.full(number, len(events), np.int64)
    np.minimum.at(first_row, cell[held:], joined.rows)
    return _Found(stream[is_first], period[is_first], first_row, cells)


def _some(joined: _Joined, which: npt.NDArray[np.bool_]) -> _Joined:
    return _Joined(*(column[which] for column in joined))


def _behind(which: IntArray, periods: IntArray, cursor: IntArray) -> npt.NDArray[np.bool_]:
    """Return whether each event lies in a period before its stream's newest one.

    Args:
        which: `(n,)`, the stream of each event, in the order of arrival.
        periods: `(n,)`, its period.
        cursor: `(m,)`, the newest period of each stream before.
    """
    m = cursor.size
    known, rank = np.unique(np.concatenate((cursor, periods)), return_inverse=True)
    stream = np.concatenate((np.arange(m), which))
    key = stream * known.size + rank
    order = np.argsort(stream, kind="stable")
    newest = np.empty_like(key)
    newest[order] = np.maximum.accumulate(key[order])
    behind: npt.NDArray[np.bool_] = (key < newest)[m:]
    return behind
