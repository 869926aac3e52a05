"""Puts late events into place: goes back to an anchor, and steps what came since then again, in the order of time.

    newest ------------- older anchor --- younger anchor --- late event --- newest
                                             |  copied into the stream's row, then all inputs after it are stepped

Owns: which events are in order, late, known or to be replaced; in which rounds they are stepped; which forecasts are
revised by that. Does not know: how events become calls (`advance` is given by the engine), who publishes what.

An event in order is stepped as ever. An event in a slot that the stream has an input for is a duplicate, ignored or put
in the place of the first (`AllowedLateness.last_wins`). An event in another slot, at most K slots before that of the
stream's newest event, is put into place. What is older is left to the model, which calls it late. The forecast of the
slot itself, and those of the slots after it, are then what they would be had the events come in the order of time.

Invariants: what comes of an event depends on the events of its stream in their order and on nothing else; an event has
one result of its own however often it is stepped (again), and only that one is counted; an event that the quarantine
refuses leaves the stream, and what it had before, as they were.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from rillcast.arrays import AnyArray, FloatArray, IntArray, StatusArray
from rillcast.bundle.bundle import Status
from rillcast.engine import quarantine
from rillcast.engine.late.retained import Kept, RetainedSteps
from rillcast.engine.residents import Residents, SlotBatch

Columns: TypeAlias = dict[str, AnyArray]
Mask: TypeAlias = npt.NDArray[np.bool_]
Revision: TypeAlias = npt.NDArray[np.int32]
_ADVANCED: Final = np.array([status.advanced for status in Status])
_STREAMS_AT_ONCE: Final = 512  # that go back together: bounds the memory for what is stepped again


@dataclass(frozen=True, slots=True)
class Revised:
    """Forecasts that events put into place have changed; row `i` of every column belongs to one of them.

    Attributes:
        rows: `(m,)` int64, the event that did; increasing, and for one event in the order of time.
        ds: `(m,)` int64, time of the event whose forecast it is.
        forecast: `(m, H, Q)` float32.
        status: `(m,)` int8, `rillcast.bundle.bundle.Status`.
        anomaly: `(m,)` float32; None where the bundle has no such output.
        revision: `(m,)` int32, how often the forecast of this stream and slot has been revised, from 1.
    """

    rows: IntArray
    ds: IntArray
    forecast: FloatArray
    status: StatusArray
    anomaly: FloatArray | None
    revision: Revision


def merged(parts: list[Revised]) -> Revised | None:
    """Return all parts as one, in the order of the events that revised; None where there are none."""
    if not parts:
        return None
    rows = np.concatenate([part.rows for part in parts])
    order = np.argsort(rows, kind="stable")
    anomalies = [part.anomaly for part in parts if part.anomaly is not None]
    return Revised(
        rows=rows[order],
        ds=np.concatenate([part.ds for part in parts])[order],
        forecast=np.concatenate([part.forecast for part in parts])[order],
        status=np.concatenate([part.status for part in parts])[order],
        anomaly=np.concatenate(anomalies)[order] if anomalies else None,
        revision=np.concatenate([part.revision for part in parts])[order],
    )


class _Again(NamedTuple):
    """What was stepped again; `which` is the stream, as an index into those that went back, `number` the slot."""

    which: IntArray
    number: IntArray
    ds: IntArray
    columns: Columns


class LateReplay:
    """Steps stretches of events that may be late. Used from one thread."""

    def __init__(
        self,
        residents: Residents,
        history: RetainedSteps,
        advance: Callable[[SlotBatch, Columns], None],
        empty: Callable[[int], Columns],
    ) -> None:
        """Put the parts together.

        Args:
            residents: the streams.
            history: of the same slots.
            advance: steps events in the order in which they stand, whatever the streams, and fills in the rows of the
                columns that the stretch names.
            empty: makes columns for so many events.
        """
        self._residents = residents
        self._history = history
        self._advance = advance
        self._empty = empty
        self._frequency = history.rewind.frequency
        self._reach = history.rewind.periods
        self._last_wins = history.rewind.last_wins
        self._put_count = self._again_count = 0

    def step(self, stretch: SlotBatch, columns: Columns, revision: Revision, placed: Mask) -> list[Revised]:
        """Step events; return the forecasts that changed by it, in no order.

        Args:
            stretch: events of any streams, in the order of their arrival.
            columns: receives their results.
            revision: zeros; receives which revision of its slot's forecast an event's is.
            placed: false; receives whether an event was put into place.
        """
        revised: list[Revised] = []
        for events in _rounds(stretch.slots, self._numbers(stretch), self._newest(stretch.slots)):
            self._round(stretch[events], columns, revision, placed, revised)
        return revised

    def take_counts(self) -> tuple[int, int]:
        """Return since the last call: events that were put into place, and steps of earlier events that this took."""
        counts = self._put_count, self._again_count
        self._put_count = self._again_count = 0
        return counts

    def _numbers(self, stretch: SlotBatch) -> IntArray:
        """Return the slot of time of each event."""
        return self._frequency.period_of(stretch.inputs.ds)

    def _newest(self, slots: IntArray) -> IntArray:
        """Return the slot of time of each stream's newest event."""
        return self._frequency.period_of(self._residents.newest(slots))

    def _round(
        self, events: SlotBatch, columns: Columns, revision: Revision, placed: Mask, revised: list[Revised]
    ) -> None:
        """Step events of which each stream has one, or several that are in order."""
        history, numbers, newest = self._history, self._numbers(events), self._newest(events.slots)
        in_order = numbers > newest
        if in_order.all():
            self._step_in_order(events, columns)
            return
        reached = ~in_order & (numbers >= newest - self._reach) & (numbers > history.older(events.slots))
        known = reached & history.known(events.slots, numbers)
        ignored = known & (history.same(events.slots, numbers, events.inputs) | (not self._last_wins))
        if in_order.any():
            self._step_in_order(events[in_order], columns)
        if ignored.any():
            _ignore(events.rows[ignored], columns)
        if (beyond := ~in_order & ~reached).any():
            self._leave_to_the_model(events[beyond], columns)
        if (late := reached & ~ignored).any():
            picked, replaces = events[late], known[late]
            placed[picked.rows] = True
            for first in range(0, replaces.size, _STREAMS_AT_ONCE):
                part = np.arange(first, min(first + _STREAMS_AT_ONCE, replaces.size))
                self._put(picked[part], replaces[part], columns, revision, revised)
        self._residents.touched(events.slots, events.inputs.ds)

    # Events in order.

    def _step_in_order(self, events: SlotBatch, columns: Columns) -> None:
        """Step events that come after everything their streams have seen, and keep the anchors where they have to be.

        Where a stream has many, it jumps: nothing that lies more than K slots before the last of them can be reached
        afterwards, so that the first of them need not be remembered, and the anchor is set behind them.
        """
        history, numbers = self._history, self._numbers(events)
        streams, which = np.unique(events.slots, return_inverse=True)
        last = np.full(streams.size, np.iinfo(np.int64).min)
        np.maximum.at(last, which, numbers)
        out_of_reach = last - self._reach - 1
        far = numbers <= out_of_reach[which]
        if far.any():
            self._advance(events[far], columns)
            self._residents.touched(events.slots[far], events.inputs.ds[far])
        newest = self._newest(streams)
        jumps = newest <= out_of_reach
        if jumps.any():
            history.begin(streams[jumps], newest[jumps])
        turns = ~jumps & (history.younger(streams) <= out_of_reach)
        if turns.any():
            history.turn(streams[turns], newest[turns])
        near = events[~far] if far.any() else events
        self._advance(near, columns)
        taken = _taken(columns, near.rows)
        history.note(near.slots[taken], near.inputs.take(taken))
        self._residents.touched(near.slots, near.inputs.ds)

    def _leave_to_the_model(self, events: SlotBatch, columns: Columns) -> None:
        """Step events out of reach. Those that the model takes all the same (it refused newer ones) begin anew."""
        self._advance(events, columns)
        taken = _taken(columns, events.rows)
        if taken.any():
            self._history.begin(events.slots[taken], self._numbers(events)[taken])

    # Late events.

    def _put(
        self, events: SlotBatch, replaces: Mask, columns: Columns, revision: Revision, revised: list[Revised]
    ) -> None:
        """Put one event of each of some streams into place.

        Args:
            events: within reach.
            replaces: whether there is an input in the event's slot already, which gives way.
            columns: receives the results of the events.
            revision: receives which revision of its slot's forecast an event's is.
            revised: receives the forecasts that changed.
        """
        history, numbers, slots = self._history, self._numbers(events), events.slots
        before = history.get(slots, numbers)
        revisions = np.where(replaces, before.revisions, 0).astype(np.int32)
        history.put(slots, numbers, Kept(events.inputs, revisions))
        again = self._step_again(slots, numbers)
        own = np.flatnonzero(again.number == numbers[again.which])
        own = own[np.argsort(again.which[own])]
        for name, column in columns.items():
            column[events.rows] = again.columns[name][own]
        done = again.columns[quarantine.HEALTHY][own]
        self._put_count += int(np.count_nonzero(done))
        self._again_count += again.which.size - own.size
        if not done.all():
            # The quarantine refused it, so it changed nothing; but what it was to replace has to come back.
            history.put(slots[~done], numbers[~done], before.of(~done))
            if (lost := ~done & replaces).any():
                self._again_count += self._step_again(slots[lost], numbers[lost]).which.size
        if (second := done & replaces).any():
            revision[events.rows[second]] = history.revise(slots[second], numbers[second])
        changed = np.flatnonzero(
            done[again.which]
            & (again.number > numbers[again.which])
            & _taken(again.columns, np.arange(again.which.size))
        )
        if changed.size:
            which = again.which[changed]
            revised.append(
                Revised(
                    rows=events.rows[which],
                    ds=again.ds[changed],
                    forecast=again.columns["forecast"][changed],
                    status=again.columns["status"][changed],
                    anomaly=again.columns["anomaly"][changed] if "anomaly" in again.columns else None,
                    revision=history.revise(slots[which], again.number[changed]),
                )
            )

    def _step_again(self, slots: IntArray, numbers: IntArray) -> _Again:
        """Take streams back to before a slot of time each, and step their inputs from there to the present."""
        history = self._history
        older, younger = history.older(slots), history.younger(slots)
        from_younger = (younger > older) & (younger < numbers)
        history.restore(slots, from_younger)
        found = self._frequency.period_of(history.times(slots))
        which, place = np.nonzero(found > np.where(from_younger, younger, older)[:, None])
        number = found[which, place]
        in_time = np.lexsort((number, which))
        which, place, number = which[in_time], place[in_time], number[in_time]
        stretch = SlotBatch(np.arange(which.size), slots[which], history.kept(slots[which], place).inputs)
        columns = self._empty(which.size)
        # The younger anchor lies behind the event: it was copied from a row that had not seen it.
        outdated = (younger > older) & ~from_younger
        if outdated.any():
            first = outdated[which] & (number <= younger[which])
            self._advance(stretch[first], columns)
            history.renew(slots[outdated])
            self._advance(stretch[~first], columns)
        else:
            self._advance(stretch, columns)
        return _Again(which, number, stretch.inputs.ds, columns)


def _rounds(slots: IntArray, numbers: IntArray, newest: IntArray) -> list[IntArray]:
    """Split events so that in each round a stream has events in order, or a single one that is not.

    Args:
        slots: `(n,)`, of the streams.
        numbers: `(n,)`, slots of time.
        newest: `(n,)`, slot of time of each event's stream's newest event.

    Returns:
        Indices of events, each once; those of a stream in their order.
    """
    n = slots.size
    order = np.argsort(slots, kind="stable")
    ordered, number = slots[order], numbers[order]
    first: Mask = np.empty(n, np.bool_)
    first[:1] = True
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    before = newest[order]
    before[1:][~first[1:]] = number[:-1][~first[1:]]
    if (number > before).all():
        return [np.arange(n)] if n else []
    # The largest number so far of each stream, of all streams in one pass: ranks keep the sums within int64.
    ranks = np.unique(np.concatenate((number, newest[order])), return_inverse=True)[1].astype(np.int64)
    stream = np.cumsum(first) - 1
    base = stream * (ranks.size + 1)
    largest = np.maximum.accumulate(base + np.maximum(ranks[:n], ranks[n:]))
    so_far = base + ranks[n:]
    so_far[1:][~first[1:]] = largest[:-1][~first[1:]]
    out_of_order = base + ranks[:n] <= so_far
    begins = first | out_of_order
    begins[1:] |= out_of_order[:-1]
    nth = np.cumsum(begins)
    turn: IntArray = nth - np.maximum.accumulate(np.where(first, nth, 0))
    number_of: IntArray = np.empty(n, np.int64)
    number_of[order] = turn
    by_turn = np.argsort(number_of, kind="stable")
    return np.split(by_turn, np.cumsum(np.bincount(number_of))[:-1])


def _taken(columns: Mapping[str, AnyArray], rows: IntArray) -> Mask:
    """Return for each row whether its event moved its stream."""
    taken: Mask = columns[quarantine.HEALTHY][rows] & _ADVANCED[columns["status"][rows]]
    return taken


def _ignore(rows: IntArray, columns: Columns) -> None:
    """Say of events that their slots are known."""
    columns["status"][rows] = Status.DUPLICATE
    for name in ("forecast", "score", "anomaly"):
        if name in columns:
            columns[name][rows] = np.nan
