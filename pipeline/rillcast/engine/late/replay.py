"""Applies late events: restores an anchor and steps all later inputs again, in the order of time.

    newest ------------- older anchor --- younger anchor --- late event --- newest
                                             |  copied into the stream's row, then all inputs after it are stepped

An event in order is stepped as usual. An event in a period for which the stream has an input is a duplicate: it is
ignored, or replaces the first (`AllowedLateness.last_wins`). An event in another period, at most K periods before the
stream's newest event, is applied. An older event is left to the model, which reports it as late. The forecasts of the
event's period and of later periods are then what they would be if the events had come in the order of time.

Owns: which events are in order, late, known or replaced; the rounds in which they are stepped; which forecasts that
revises.
Does not know: how events become calls (`rillcast.engine.runner`), who publishes what.

Invariants: the result of an event depends on its stream's events in their order and on nothing else. An event has one
result however often it is stepped, and only that one is counted. An event that the quarantine refuses leaves the stream
and its retained steps unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from rillcast.arrays import AnyArray, FloatArray, IntArray, StatusArray
from rillcast.bundle.alarms import ALARM
from rillcast.bundle.bundle import Status
from rillcast.engine import quarantine
from rillcast.engine.inputs import SlotBatch
from rillcast.engine.late.alarms import AlarmChange, OpenAlarms, changes
from rillcast.engine.late.retained import RetainedSteps, Steps
from rillcast.engine.runner import BatchRunner, Outputs
from rillcast.engine.slot_state import SlotState

Mask: TypeAlias = npt.NDArray[np.bool_]
Revision: TypeAlias = npt.NDArray[np.int32]
_ADVANCED: Final = np.array([status.advanced for status in Status])
_MAX_STREAMS: Final = 512  # that are replayed together; bounds the memory of a replay


@dataclass(frozen=True, slots=True)
class Revised:
    """Forecasts that late events have changed; row `i` of every column belongs to one of them.

    Attributes:
        rows: `(m,)` int64, the event that changed it; increasing, and for one event in the order of time.
        ds: `(m,)` int64, time in milliseconds of the event whose forecast it is.
        forecast: `(m, H, Q)` float32.
        status: `(m,)` int8, `rillcast.bundle.bundle.Status`.
        anomaly: `(m,)` float32; None where the bundle has no such output.
        revision: `(m,)` int32, how often the forecast of this stream and period has been revised, from 1.
    """

    rows: IntArray
    ds: IntArray
    forecast: FloatArray
    status: StatusArray
    anomaly: FloatArray | None
    revision: Revision


@dataclass(slots=True)
class LateResults:
    """The part that late events add to the results of one call of the engine.

    Attributes:
        revision: `(n,)` int32, how often the forecast of the event's period had been revised before this one.
        late: `(n,)` bool, whether the event was late or a correction, and was applied.
        applied: Number of such events that counted.
        replayed: Number of steps of earlier events that this took.
        alarms: Alarms that open or close because of them; those of a stream in the order of its events.
    """

    revision: Revision
    late: Mask
    applied: int = 0
    replayed: int = 0
    alarms: list[AlarmChange] = field(default_factory=list)
    _revised: list[Revised] = field(default_factory=list)

    @classmethod
    def empty(cls, n: int) -> LateResults:
        """Return results for `n` events, none of them late."""
        return cls(np.zeros(n, np.int32), np.zeros(n, np.bool_))

    def add(self, revised: Revised) -> None:
        """Take in forecasts that changed."""
        self._revised.append(revised)

    @property
    def revised(self) -> Revised | None:
        """All forecasts that changed, in the order of the events that changed them; None where there are none."""
        parts = self._revised
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


class _Replayed(NamedTuple):
    """Steps of a replay; `which` indexes the replayed streams."""

    which: IntArray
    periods: IntArray
    ds: IntArray
    outputs: Outputs


class LateReplay:
    """Steps batches of events that may be late. Used from one thread."""

    def __init__(self, runner: BatchRunner, state: SlotState, retained: RetainedSteps) -> None:
        """Put the parts together.

        Args:
            runner: Steps events in the order of a batch.
            state: State of the slots that the runner steps.
            retained: Retained steps of the same slots.
        """
        self._runner = runner
        self._state = state
        self._retained = retained
        self._frequency = retained.lateness.frequency
        self._reach = retained.lateness.periods
        self._last_wins = retained.lateness.last_wins

    def run(self, batch: SlotBatch, outputs: Outputs, results: LateResults) -> None:
        """Step events in the order of their arrival.

        Args:
            batch: Events of any streams.
            outputs: Receives the events' outputs in the rows that the batch names.
            results: Receives what the late events among them changed.
        """
        for events in _rounds(batch.slots, self._periods(batch), self._newest(batch.slots)):
            self._run_round(batch[events], outputs, results)

    def _periods(self, batch: SlotBatch) -> IntArray:
        """Return the period of each event."""
        return self._frequency.period_of(batch.inputs.ds)

    def _newest(self, slots: IntArray) -> IntArray:
        """Return the period of each stream's newest event."""
        return self._frequency.period_of(self._state.newest(slots))

    def _run_round(self, events: SlotBatch, outputs: Outputs, results: LateResults) -> None:
        """Step events of which each stream has one, or several in order."""
        retained, periods, newest = self._retained, self._periods(events), self._newest(events.slots)
        in_order = periods > newest
        if in_order.all():
            self._run_in_order(events, outputs)
            return
        reached = ~in_order & (periods >= newest - self._reach) & (periods > retained.older(events.slots))
        known = reached & retained.known(events.slots, periods)
        ignored = known & (retained.same(events.slots, periods, events.inputs) | (not self._last_wins))
        if in_order.any():
            self._run_in_order(events[in_order], outputs)
        if ignored.any():
            _ignore(events.rows[ignored], outputs)
        if (beyond := ~in_order & ~reached).any():
            self._leave_to_the_model(events[beyond], outputs)
        if (late := reached & ~ignored).any():
            picked, replaces = events[late], known[late]
            results.late[picked.rows] = True
            for first in range(0, replaces.size, _MAX_STREAMS):
                part = np.arange(first, min(first + _MAX_STREAMS, replaces.size))
                self._apply(picked[part], replaces[part], outputs, results)
        self._state.note(events.slots, events.inputs.ds)

    # Events in order.

    def _run_in_order(self, events: SlotBatch, outputs: Outputs) -> None:
        """Step events that are newer than everything their streams have received, and move the anchors.

        A stream with many events may jump: no late event can reach more than K periods before the last of them. The
        first of them are then not retained, and the anchor is set behind them.
        """
        retained, periods = self._retained, self._periods(events)
        streams, which = np.unique(events.slots, return_inverse=True)
        last = np.full(streams.size, np.iinfo(np.int64).min)
        np.maximum.at(last, which, periods)
        out_of_reach = last - self._reach - 1
        far = periods <= out_of_reach[which]
        if far.any():
            self._runner.run(events[far], outputs)
            self._state.note(events.slots[far], events.inputs.ds[far])
        newest = self._newest(streams)
        jumps = newest <= out_of_reach
        if jumps.any():
            retained.restart(streams[jumps], newest[jumps])
        due = ~jumps & (retained.younger(streams) <= out_of_reach)
        if due.any():
            retained.advance(streams[due], newest[due])
        near = events[~far] if far.any() else events
        self._runner.run(near, outputs)
        taken = _taken(outputs, near.rows)
        retained.add(near.slots[taken], near.inputs.take(taken))
        self._state.note(near.slots, near.inputs.ds)

    def _leave_to_the_model(self, events: SlotBatch, outputs: Outputs) -> None:
        """Step events beyond reach. A stream whose model accepts one (it refused newer ones) restarts its anchors."""
        self._runner.run(events, outputs)
        taken = _taken(outputs, events.rows)
        if taken.any():
            self._retained.restart(events.slots[taken], self._periods(events)[taken])

    # Late events.

    def _apply(self, events: SlotBatch, replaces: Mask, outputs: Outputs, results: LateResults) -> None:
        """Apply one late event of each of some streams.

        Args:
            events: Events within reach.
            replaces: Whether the stream already has an input in the event's period, which this one replaces.
            outputs: Receives the outputs of the events.
            results: Receives the revisions, and the forecasts that changed.
        """
        retained, periods, slots = self._retained, self._periods(events), events.slots
        before = retained.get(slots, periods)
        alarms = self._alarms(slots, periods, results)
        revisions = np.where(replaces, before.revisions, 0).astype(np.int32)
        retained.set(slots, periods, Steps(events.inputs, revisions))
        replayed = self._replay(slots, periods)
        own = np.flatnonzero(replayed.periods == periods[replayed.which])
        own = own[np.argsort(replayed.which[own])]
        for name, column in outputs.items():
            # What it opens and closes is the difference of two histories, and not what its own step says.
            column[events.rows] = 0 if name == ALARM else replayed.outputs[name][own]
        done = replayed.outputs[quarantine.HEALTHY][own]
        results.applied += int(np.count_nonzero(done))
        results.replayed += replayed.which.size - own.size
        if not done.all():
            # The quarantine refused the event, so nothing may change; the input that it replaced comes back.
            retained.set(slots[~done], periods[~done], before.take(~done))
            if (lost := ~done & replaces).any():
                results.replayed += self._replay(slots[lost], periods[lost]).which.size
        if (second := done & replaces).any():
            results.revision[events.rows[second]] = retained.count_revision(slots[second], periods[second])
        if alarms is not None:
            steps = _steps_of_alarms(replayed, done)
            without = alarms.or_else(OpenAlarms.before(slots.size, *steps))
            results.alarms += changes(events.rows, without, OpenAlarms.after(slots.size, *steps), self._frequency)
        changed = np.flatnonzero(
            done[replayed.which]
            & (replayed.periods > periods[replayed.which])
            & _taken(replayed.outputs, np.arange(replayed.which.size))
        )
        if changed.size:
            which, found = replayed.which[changed], replayed.outputs
            results.add(
                Revised(
                    rows=events.rows[which],
                    ds=replayed.ds[changed],
                    forecast=found["forecast"][changed],
                    status=found["status"][changed],
                    anomaly=found["anomaly"][changed] if "anomaly" in found else None,
                    revision=retained.count_revision(slots[which], replayed.periods[changed]),
                )
            )

    def _alarms(self, slots: IntArray, periods: IntArray, results: LateResults) -> OpenAlarms | None:
        """Return the alarms that the streams have before they are corrected; None where the bundle has no alarms.

        Only the model knows the layout of its state, so the steps from the period on are stepped once more.
        """
        if not self._runner.has_alarm:
            return None
        replayed = self._replay(slots, periods)
        results.replayed += replayed.which.size
        return OpenAlarms.after(slots.size, *_steps_of_alarms(replayed, np.ones(slots.size, np.bool_)))

    def _replay(self, slots: IntArray, periods: IntArray) -> _Replayed:
        """Restore each stream to before a period, and step its inputs from there to the present."""
        retained = self._retained
        older, younger = retained.older(slots), retained.younger(slots)
        from_younger = (younger > older) & (younger < periods)
        retained.restore(slots, from_younger)
        found = self._frequency.period_of(retained.times(slots))
        which, index = np.nonzero(found > np.where(from_younger, younger, older)[:, None])
        replayed = found[which, index]
        in_time = np.lexsort((replayed, which))
        which, index, replayed = which[in_time], index[in_time], replayed[in_time]
        batch = SlotBatch(np.arange(which.size), slots[which], retained.at(slots[which], index).inputs)
        outputs = self._runner.empty_outputs(which.size)
        # A younger anchor after the event is outdated: it is a copy of a row that does not contain the event.
        outdated = (younger > older) & ~from_younger
        if outdated.any():
            first = outdated[which] & (replayed <= younger[which])
            self._runner.run(batch[first], outputs)
            retained.renew_younger(slots[outdated])
            self._runner.run(batch[~first], outputs)
        else:
            self._runner.run(batch, outputs)
        return _Replayed(which, replayed, batch.inputs.ds, outputs)


def _rounds(slots: IntArray, periods: IntArray, newest: IntArray) -> list[IntArray]:
    """Split events so that in each round a stream has events in order, or a single one that is not.

    Args:
        slots: `(n,)`, slots of the streams.
        periods: `(n,)`, periods of the events.
        newest: `(n,)`, period of the newest event of each event's stream.

    Returns:
        Indices of events, each once; those of a stream in their order.
    """
    n = slots.size
    order = np.argsort(slots, kind="stable")
    ordered, period = slots[order], periods[order]
    first: Mask = np.empty(n, np.bool_)
    first[:1] = True
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    before = newest[order]
    before[1:][~first[1:]] = period[:-1][~first[1:]]
    if (period > before).all():
        return [np.arange(n)] if n else []
    # The largest period so far of each stream, for all streams in one pass; ranks keep the sums within int64.
    ranks = np.unique(np.concatenate((period, newest[order])), return_inverse=True)[1].astype(np.int64)
    stream = np.cumsum(first) - 1
    base = stream * (ranks.size + 1)
    largest = np.maximum.accumulate(base + np.maximum(ranks[:n], ranks[n:]))
    so_far = base + ranks[n:]
    so_far[1:][~first[1:]] = largest[:-1][~first[1:]]
    out_of_order = base + ranks[:n] <= so_far
    begins = first | out_of_order
    begins[1:] |= out_of_order[:-1]
    nth = np.cumsum(begins)
    round_of: IntArray = np.empty(n, np.int64)
    round_of[order] = nth - np.maximum.accumulate(np.where(first, nth, 0))
    by_round = np.argsort(round_of, kind="stable")
    return np.split(by_round, np.cumsum(np.bincount(round_of))[:-1])


def _taken(outputs: Mapping[str, AnyArray], rows: IntArray) -> Mask:
    """Return for each row whether its event moved its stream."""
    taken: Mask = outputs[quarantine.HEALTHY][rows] & _ADVANCED[outputs["status"][rows]]
    return taken


def _steps_of_alarms(replayed: _Replayed, of: Mask) -> tuple[IntArray, IntArray, FloatArray]:
    """Return stream, time and alarm of the steps that moved some of the replayed streams."""
    taken = _taken(replayed.outputs, np.arange(replayed.which.size)) & of[replayed.which]
    return replayed.which[taken], replayed.ds[taken], replayed.outputs[ALARM][taken]


def _ignore(rows: IntArray, outputs: Outputs) -> None:
    """Report events as duplicates, without a forecast."""
    outputs["status"][rows] = Status.DUPLICATE
    for name in ("forecast", "score", "anomaly"):
        if name in outputs:
            outputs[name][rows] = np.nan
    if ALARM in outputs:
        outputs[ALARM][rows] = 0
