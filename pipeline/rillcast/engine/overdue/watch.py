"""Which streams fall silent and wake, decided while the time of their partition goes on.

A stream is overdue when its partition's event time lies more periods behind its newest event than it is allowed to.
How many that is each stream teaches:

- Its first `_WARM` periods with events set it to one and a half times the largest distance that they found.
- When the stream wakes from a silence it rises by half a unit of its logarithm, to `e ** .5` times as much, and falls
  back as `1 / (1 + (e ** .5 - 1) t)`, where t counts the intervals in which one alarm of the stream is wanted. So in
  the long run a stream is silent at most once in an interval, whatever its gaps are like.
- It is never less than a number of the settings.

A stream whose event is further behind its partition than that already is not watched until it has caught up: nobody
knows whether events wait.

Owns: the decisions, each with the record of the input at which it is taken; what they follow from, in memory and in a
stored page. Does not know: what reads a decision, the clock, the model.

Invariant: a decision is a function of the partition's events in their order, and of the written decisions on its
silence (`rillcast.engine.pages.Silence`). A stream is silent exactly while its period in `_due` is past. A decision on
a stream whose restored state has the record already was published before, and is not taken again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from rillcast.arrays import AnyArray, FloatArray, IntArray
from rillcast.bundle.bundle import StateSpec
from rillcast.bundle.frequency import Frequency
from rillcast.engine.overdue.changes import Found, OverdueChange, told
from rillcast.engine.overdue.timetable import Timetable
from rillcast.engine.pages import page_column
from rillcast.engine.periods.joining import newest_so_far
from rillcast.engine.slot_state import NEVER
from rillcast.events import EventBatch

HOST_BYTES: Final = 36
"""Bytes of host memory for each slot, while silences are watched."""
_WARM: Final = 30  # periods with events
_MARGIN: Final = 1.5
_RISE: Final = 1.6487213
_NONE: Final = int(np.iinfo(np.int64).max)
_USUAL: Final = "overdue.usual"  # the names are part of the format of pages and never change
_SINCE: Final = "overdue.since"


class _Records(NamedTuple):
    """Records of one partition in their order, `(n,)` each; `reached` is the period of the partition after each."""

    slots: IntArray
    ds: IntArray
    periods: IntArray
    reached_ms: IntArray
    reached: IntArray


class _Steps(NamedTuple):
    """Events that are newer than all of their streams before, by stream and in their order.

    Attributes:
        which: `(n,)`, the stream of each, an index into `streams`.
        first: `(n,)` bool, whether it is the first of its stream here.
        before: `(n,)`, the newest period of its stream before.
        periods: `(n,)`, its period.
        at: `(n,)`, its record.
        streams: `(m,)`, the slots.
    """

    which: IntArray
    first: npt.NDArray[np.bool_]
    before: IntArray
    periods: IntArray
    at: IntArray
    streams: IntArray


class OverdueWatch:
    """Used from one thread."""

    def __init__(
        self,
        least: int,
        frequency: Frequency,
        ids: Callable[[IntArray], list[str]],
        intervals: Callable[[IntArray], FloatArray],
        applied: Callable[[IntArray, IntArray], npt.NDArray[np.bool_]],
        num_slots: int,
    ) -> None:
        """Begin without streams.

        Args:
            least: Fewest periods behind its partition for which a stream is not overdue.
            frequency: The bundle's.
            ids: Returns the streams in some slots.
            intervals: Returns for some slots the periods in which one alarm is wanted; 0 = none is.
            applied: Returns for some slots and offsets whether the restored state of the stream has the record.
            num_slots: Number of slots.
        """
        self._least = least
        self._frequency = frequency
        self._ids = ids
        self._intervals = intervals
        self._applied = applied
        # Zeros take no memory until they are used; `clear` sets a slot's values when it is handed out.
        self._newest: IntArray = np.zeros(num_slots, np.int64)  # period of the newest event
        self._due: IntArray = np.zeros(num_slots, np.int64)  # the last period of a partition in which it is not overdue
        self._listed: IntArray = np.zeros(num_slots, np.int64)  # the period of its entry in the timetable
        self._since: IntArray = np.zeros(num_slots, np.int64)  # when `usual` held; NEVER + n = it has had n events
        self._usual: FloatArray = np.zeros(num_slots, np.float32)
        self._reached: dict[int, int] = {}  # by partition, milliseconds
        self._timetables: dict[int, Timetable] = {}
        self._left: dict[int, list[Found]] = {}

    # Events.

    def take(
        self, events: EventBatch, rows: IntArray, slots: IntArray, counts: npt.NDArray[np.bool_]
    ) -> list[OverdueChange]:
        """Let the time of partitions go on with some events.

        Args:
            events: The events of a poll.
            rows: `(n,)`, the events among them, those of a partition in their order.
            slots: `(n,)`, the slots of their streams.
            counts: `(n,)`, whether each is an event of its stream: it is not refused, and the state lacks it.
        """
        changes: list[OverdueChange] = []
        partitions = events.partitions[rows]
        for partition in np.unique(partitions).tolist():
            own = np.flatnonzero(partitions == partition)
            at = rows[own]
            found = self._pass(partition, slots[own], events.ds[at], counts[own])
            offsets = events.offsets[at]
            changes += self._changes(partition, found, offsets, offsets, events.rows[at])
        return changes

    def let_pass(self, partition: int, time_ms: int, position: int) -> list[OverdueChange]:
        """Let the time of a partition go on without an event, as was decided at a position."""
        at = np.array([position], np.int64)
        found = self._pass(partition, np.zeros(1, np.int64), np.array([time_ms], np.int64), np.zeros(1, np.bool_))
        return self._changes(partition, found, at - 1, at, np.zeros(1, np.int64))

    def leave(self, partition: int, slots: IntArray) -> None:
        """Note that streams leave before the partition's next event: a silence of theirs is over."""
        reached = self._period(partition)
        silent = slots[self._due[slots] < reached]
        for slot, unique_id in zip(silent.tolist(), self._ids(silent), strict=True):
            newest, due = int(self._newest[slot]), int(self._due[slot])
            interval = float(self._intervals(np.array([slot]))[0])
            left = Found(0, True, unique_id, 0, newest, due - newest, NEVER, 0, 0, interval)
            self._left.setdefault(partition, []).append(left)

    def _changes(
        self, partition: int, found: Sequence[Found], offsets: IntArray, positions: IntArray, rows: IntArray
    ) -> list[OverdueChange]:
        """Return changes in their order, without those that the restored state of their stream has."""
        if not found:
            return []
        at = np.array([each.at for each in found], np.int64)
        known = self._applied(np.array([each.slot for each in found], np.int64), positions[at])
        new = sorted(each for each, is_known in zip(found, known.tolist(), strict=True) if not is_known)
        start_of = self._frequency.start_of
        return [told(each, partition, int(offsets[each.at]), int(rows[each.at]), start_of) for each in new]

    def _pass(self, partition: int, slots: IntArray, ds: IntArray, counts: npt.NDArray[np.bool_]) -> list[Found]:
        before = self._reached.get(partition, int(ds[0]))
        reached_ms = np.maximum.accumulate(np.maximum(ds, before))
        self._reached[partition] = int(reached_ms[-1])
        period_of = self._frequency.period_of
        records = _Records(slots, ds, period_of(ds), reached_ms, period_of(reached_ms))
        found = self._over(records, self._left.pop(partition, ()))
        timetable = self._timetables.setdefault(partition, Timetable())
        newer = np.flatnonzero(counts & (records.periods > self._newest[slots]))
        if newer.size:
            found += self._step(records, self._steps(records, newer), period_of(before), timetable)
        return found + self._fall_silent(records, timetable)

    def _over(self, records: _Records, left: Sequence[Found]) -> list[Found]:
        """Return the silences of streams that have left, which are over at the first record."""
        reached, ds = int(records.reached[0]), int(records.reached_ms[0])
        return [each._replace(last=reached - 1, behind=reached - each.newest, ds=ds) for each in left]

    def _steps(self, records: _Records, newer: IntArray) -> _Steps:
        at = newer[np.argsort(records.slots[newer], kind="stable")]
        streams, which = np.unique(records.slots[at], return_inverse=True)
        first = np.diff(which, prepend=-1) > 0
        before, periods = self._newest[streams][which], records.periods[at]
        if not first.all():
            so_far = newest_so_far(which, periods, self._newest[streams])
            before = np.where(first, before, np.concatenate((before[:1], so_far[:-1])))
            kept = periods > before
            which, first, before, periods, at = which[kept], first[kept], before[kept], periods[kept], at[kept]
        return _Steps(which, first, before, periods, at, streams)

    def _step(self, records: _Records, steps: _Steps, was: int, timetable: Timetable) -> list[Found]:
        """Let events of streams come; `was` is the period that the partition had reached before."""
        streams, which, reached = steps.streams, steps.which, records.reached[steps.at]
        number = np.bincount(which, minlength=streams.size)
        learning = self._learning(streams)
        due = self._due_after(streams[which], steps.before, np.concatenate((reached[:1], reached[:-1])))
        due = np.where(steps.first, self._due[streams][which], np.where(learning[which], _NONE, due))
        eventful = learning & (self._since[streams] - NEVER + number >= _WARM)
        eventful[which[reached > due]] = True
        last = np.append(np.flatnonzero(steps.first)[1:], which.size) - 1

        plain = np.flatnonzero(~eventful)
        slots, final = streams[plain], last[plain]
        gaps = np.where(steps.before == NEVER, 0, reached - steps.before)
        for_all = self._usual[streams]
        np.maximum.at(for_all, which, (_MARGIN * gaps).astype(np.float32))
        learns = plain[learning[plain]]
        self._usual[streams[learns]] = for_all[learns]
        self._since[streams[learns]] += number[learns]
        self._newest[slots] = steps.periods[final]
        watched = self._due_after(slots, steps.periods[final], reached[final])
        self._due[slots] = np.where(learning[plain], _NONE, watched)
        found = []
        for stream in np.flatnonzero(eventful).tolist():
            own = slice(int(np.searchsorted(which, stream)), int(last[stream]) + 1)
            found += self._follow(records, int(streams[stream]), steps.periods[own], steps.at[own], was)
        self._list(streams, timetable)
        return found

    def _follow(self, records: _Records, slot: int, periods: IntArray, at: IntArray, was: int) -> list[Found]:
        """Take the events of one stream one by one: it may fall silent and wake, or end its first events."""
        found, here = [], np.array([slot], np.int64)
        for period, record in zip(periods.tolist(), at.tolist(), strict=True):
            reached, newest, due = int(records.reached[record]), int(self._newest[slot]), int(self._due[slot])
            if due < reached:
                if due >= was:
                    found.append(self._silent(records, slot, newest, due))
                found.append(
                    self._silent(records, slot, newest, due)._replace(
                        at=record, over=True, last=period - 1, behind=reached - newest, ds=int(records.ds[record])
                    )
                )
                self._usual[slot], self._since[slot] = _RISE * (due - newest), period
            elif self._learning(here)[0]:
                gap = 0 if newest == NEVER else reached - newest
                self._usual[slot] = max(self._usual[slot], np.float32(_MARGIN * gap))
                self._since[slot] += 1
                if not self._learning(here)[0]:
                    self._since[slot] = period
            self._newest[slot] = period
            watched = self._due_after(here, np.array([period]), np.array([reached]))[0]
            self._due[slot] = _NONE if self._learning(here)[0] else watched
        return found

    def _silent(self, records: _Records, slot: int, newest: int, due: int) -> Found:
        """Return that a stream falls silent, at the first record whose time lies behind its due period."""
        at, here = int(np.searchsorted(records.reached, due, side="right")), np.array([slot], np.int64)
        reached = int(records.reached[at])
        return Found(
            at, False, self._ids(here)[0], slot, newest, due - newest, reached - 1, reached - newest,
            int(records.reached_ms[at]), float(self._intervals(here)[0]),
        )  # fmt: skip

    def _fall_silent(self, records: _Records, timetable: Timetable) -> list[Found]:
        """Return the streams that are due before the time that the records reach, and list the others again."""
        reached, found = int(records.reached[-1]), []
        for period, listed in timetable.take_before(reached):
            slots = listed[self._listed[listed] == period]
            self._listed[slots] = _NONE
            due = self._due[slots]
            found += [
                self._silent(records, slot, int(self._newest[slot]), int(self._due[slot]))
                for slot in slots[due < reached].tolist()
            ]
            self._list(slots[due >= reached], timetable)
        return found

    def _list(self, slots: IntArray, timetable: Timetable) -> None:
        """Enter slots that have no entry which is early enough; a late one is found and moved when it is past."""
        due = self._due[slots]
        lacking = due < self._listed[slots]
        if lacking.any():
            self._listed[slots[lacking]] = due[lacking]
            timetable.add(slots[lacking], due[lacking])

    def _learning(self, slots: IntArray) -> npt.NDArray[np.bool_]:
        """Return which streams have had fewer than `_WARM` periods with events."""
        learning: npt.NDArray[np.bool_] = self._since[slots] < NEVER + _WARM
        return learning

    def _due_after(self, slots: IntArray, newest: IntArray, reached: IntArray) -> IntArray:
        """Return the last period in which streams that have learnt are not overdue; `_NONE` = they are not watched.

        Args:
            slots: `(n,)`, the streams.
            newest: `(n,)`, periods of their newest events.
            reached: `(n,)`, periods that the partition had reached at these.
        """
        interval = self._intervals(slots).astype(np.float64)
        wanted = interval > 0
        intervals = (newest - self._since[slots]) / np.where(wanted, interval, 1.0)
        allowed = np.maximum(self._least, self._usual[slots] / (1 + (_RISE - 1) * intervals))
        due = newest + allowed.astype(np.int64)
        return np.where(wanted & (due >= reached), due, _NONE)

    def _period(self, partition: int) -> int:
        """Return the period that a partition has reached; `NEVER` if it has had no event."""
        reached_ms = self._reached.get(partition)
        return NEVER if reached_ms is None else self._frequency.period_of(reached_ms)

    # Streams and partitions come and go.

    def grow(self, num_slots: int) -> None:
        """Make room for more slots."""
        more = num_slots - self._newest.size
        for name in ("_newest", "_due", "_listed", "_since", "_usual"):
            column = getattr(self, name)
            setattr(self, name, np.concatenate((column, np.zeros(more, column.dtype))))

    def clear(self, slots: IntArray) -> None:
        """Reset slots to their state before a stream's first event."""
        self._newest[slots] = self._since[slots] = NEVER
        self._due[slots] = self._listed[slots] = _NONE
        self._usual[slots] = 0

    def begin(self, partition: int, reached_ms: int) -> None:
        """Begin with a partition whose events have reached a time."""
        if reached_ms != NEVER:
            self._reached[partition] = reached_ms

    def release(self, partition: int) -> None:
        """Forget a partition, whose slots have no streams any more."""
        self._reached.pop(partition, None)
        self._timetables.pop(partition, None)
        self._left.pop(partition, None)

    def export(self, slots: IntArray) -> dict[str, AnyArray]:
        """Return the columns of a stored page; the usual distance is negative where a stream is not watched."""
        watched = self._learning(slots) | (self._due[slots] != _NONE)
        return {_USUAL: np.where(watched, self._usual[slots], -self._usual[slots]), _SINCE: self._since[slots]}

    def load(self, partition: int, slots: IntArray, newest_ms: IntArray, columns: Mapping[str, AnyArray]) -> None:
        """Restore streams of a stored page.

        Args:
            partition: Their partition.
            slots: `(n,)`, their slots.
            newest_ms: `(n,)`, the times of their newest events.
            columns: As `export` returned them. A page that was stored without has none of these columns; its streams
                then begin to learn their usual distance again.
        """
        if not slots.size:
            return
        self.clear(slots)
        known = newest_ms != NEVER
        self._newest[slots[known]] = self._frequency.period_of(newest_ms[known])
        if _USUAL not in columns or _SINCE not in columns:
            return
        self._usual[slots], self._since[slots] = np.abs(columns[_USUAL]), columns[_SINCE]
        watched = slots[(columns[_USUAL] >= 0) & known & ~self._learning(slots)]
        self._due[watched] = self._due_after(watched, self._newest[watched], self._newest[watched])
        reached = self._period(partition)
        waiting = watched[self._due[watched] >= reached]
        self._list(waiting, self._timetables.setdefault(partition, Timetable()))


def page_columns(*, watched: bool) -> tuple[StateSpec, ...]:
    """Return what a stored page holds of each stream in addition, where silences are watched."""
    return (page_column(_USUAL, "float32", ()), page_column(_SINCE, "int64", ())) if watched else ()
