"""Steps events: columns of events in, forecasts out, state advanced in place.

Composes bundle, residents, batch runner and late replay. The bundle alone defines what a step computes; the engine
moves rows.

Owns: the outcome of each event, and the results of a call.
Does not know: Kafka, the metrics client, the wall clock (it receives a timer).
Invariants: the events of a stream are stepped in the given order, each exactly once, in any batch. Only
`rillcast.engine.late` changes that order. The result of an event is a function of its partition's events in their
order.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from rillcast.arrays import FloatArray, IntArray, StatusArray
from rillcast.bundle.alarms import ALARM, ONE_A_WEEK
from rillcast.bundle.bundle import Bundle
from rillcast.engine import dry_run, quarantine
from rillcast.engine.alarm_intervals import Budget
from rillcast.engine.batcher import Batching
from rillcast.engine.device import Device
from rillcast.engine.inputs import Inputs, SlotBatch
from rillcast.engine.late import AlarmChange, AllowedLateness, LateReplay, LateResults, Revised
from rillcast.engine.overdue import OverdueChange
from rillcast.engine.pages import Silence
from rillcast.engine.periods import Aggregation, Taken
from rillcast.engine.periods.stage import Closed, PeriodStage
from rillcast.engine.residents import Limits, Residents
from rillcast.engine.runner import BatchRunner, Outputs
from rillcast.engine.slots import NO_SLOT, TOO_MANY_AT_ONCE
from rillcast.events import EventBatch

DEFAULT_BATCHING: Final = Batching()
NO_LIMITS: Final = Limits()
MOST_NAMED: Final = 1_000
_NEVER_ASLEEP: Final = 2**62


class Outcome(enum.IntEnum):
    """The engine's decision on an event."""

    STEPPED = 0
    ALREADY_APPLIED = 1  # the stream's restored state already contains the event
    TOO_MANY_STREAMS = 2  # the stream is new, and its partition has reached the limit on streams
    QUARANTINED = 3  # the step would have left the state or forecast unusable; the state is unchanged
    TOO_MANY_NEW_STREAMS = 4  # the stream is new, and its partition has reached the limit on new streams a second


@dataclass(frozen=True, slots=True)
class StepStats:
    """Counts of one call of `StepEngine.step`.

    Attributes:
        events: Number of events given.
        calls: Calls of the model.
        in_runs: Events that went through the sequence graph.
        evicted: Streams that left.
        seconds: Duration of the call.
        late_events: Late or corrected events that were applied.
        replayed_steps: Steps of earlier events that this took.
    """

    events: int
    calls: int
    in_runs: int
    evicted: int
    seconds: float
    late_events: int = 0
    replayed_steps: int = 0


@dataclass(frozen=True, slots=True)
class StepResult:
    """Outputs of the model; row `i` belongs to event `i` as given.

    Attributes:
        outcome: `(n,)` int8, `Outcome`; the other columns are meaningful only where it is `STEPPED`.
        forecast: `(n, H, Q)` float32, in the stream's own unit.
        status: `(n,)` int8, `rillcast.bundle.bundle.Status`.
        score: `(n, K)` float32 in the order of `metadata.scores`, NaN = nothing to score; None if K = 0.
        anomaly: `(n,)` float32, NaN = unknown; None where the bundle has no such output.
        stats: Cost of the step.
        revision: `(n,)` int32, how often the forecast of the event's stream and period had been revised before this
            one; None where no lateness is allowed.
        late: `(n,)` bool, whether the event was late, or another value for its period, and was applied; None where no
            lateness is allowed.
        revised: Forecasts of earlier events that these events changed; None where they changed none.
        alarm: `(n, 8)` float32, see `rillcast.bundle.alarms`; None where the bundle has no such output.
        corrected_alarms: Alarms that open or close because these events corrected the past of their streams.
        overdue: The streams that fell silent or woke meanwhile, in the order of the records that decided it.
    """

    outcome: StatusArray
    forecast: FloatArray
    status: StatusArray
    score: FloatArray | None
    anomaly: FloatArray | None
    stats: StepStats
    revision: npt.NDArray[np.int32] | None = None
    late: npt.NDArray[np.bool_] | None = None
    revised: Revised | None = None
    alarm: FloatArray | None = None
    corrected_alarms: Sequence[AlarmChange] = ()
    overdue: Sequence[OverdueChange] = ()


@dataclass(frozen=True, slots=True)
class Advanced:
    """Events that were stepped: the given ones, or the periods that these closed.

    Attributes:
        events: The events of which each advanced its stream by a step.
        result: Row `i` belongs to event `i`.
        taken: The raw events that closed these periods; None where events are not aggregated.
    """

    events: EventBatch
    result: StepResult
    taken: Taken | None = None


class SilentStream(NamedTuple):
    """A stream without events.

    Attributes:
        unique_id: The stream.
        newest_ms: Time of its newest event in milliseconds since the epoch: with aggregation, when its period began.
        asleep: Whether its empty periods are not stepped any more; else it is overdue.
    """

    unique_id: str
    newest_ms: int
    asleep: bool


class SilentStreams(NamedTuple):
    """Streams without events.

    Attributes:
        overdue: Streams whose newest event lies too many periods behind their partition.
        sleeping: Aggregated streams whose empty periods are not stepped any more.
        named: Some of both, at most `MOST_NAMED` of each partition: those that had an event last.
    """

    overdue: int
    sleeping: int
    named: list[SilentStream]


class StepEngine:
    """The states of many streams and the model that steps them. Used from one thread."""

    def __init__(
        self,
        bundle: Bundle,
        on: Device,
        *,
        batching: Batching = DEFAULT_BATCHING,
        limits: Limits = NO_LIMITS,
        lateness: AllowedLateness | None = None,
        aggregation: Aggregation | None = None,
        calibrate: bool = True,
        bounds: bool = True,
        alarms: Budget = ONE_A_WEEK,
        overdue_periods: int = 0,
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Load the bundle on a device.

        Args:
            bundle: The model.
            on: Device that runs it.
            batching: Rules by which events are put into calls of the model.
            limits: Limits on resident streams.
            lateness: Allowed lateness of events; None = late events are left to the model.
            aggregation: How raw events become one event per period, in `advance`; None = each event is one.
            calibrate: Whether a bundle that learns an online correction of its forecasts applies it.
            bounds: Whether a bundle that learns which values a stream can have keeps its forecasts to them.
            alarms: How many alarms of a stream are wanted, such as `1/week`, or by patterns of stream ids.
            overdue_periods: Fewest periods behind its partition for which a stream is not overdue; its silence is told
                where it is (`rillcast.engine.overdue`). 0 = silences are not told.
            timer: Returns monotonic seconds, for the statistics only.

        Raises:
            BundleError: The bundle's graphs cannot be served; see `rillcast.engine.dry_run`.
            DeviceError: The device cannot run the bundle.
        """
        dry_run.check(bundle)
        self.bundle = bundle
        self.residents = Residents(bundle.metadata, on, limits, lateness, aggregation, alarms, overdue_periods)
        partials = self.residents.partials
        self._stage = None if partials is None else PeriodStage(self.residents, partials)
        state, retained = self.residents.state, self.residents.retained
        self._state = state
        self._overdue = self.residents.overdue
        intervals = self.residents.alarm_intervals.of
        self._runner = BatchRunner(
            bundle, state, on, batching, calibrate=calibrate, bounds=bounds, alarm_intervals=intervals
        )
        self._replay = None if retained is None else LateReplay(self._runner, state, retained)
        self._timer = timer

    def advance(self, events: EventBatch) -> Iterator[Advanced]:
        """Take events as they come, aggregated or not, and advance their streams.

        Args:
            events: Events in their order. Where events are aggregated, one raw event may close any number of periods.

        Yields:
            What was stepped, in its order.
        """
        if self._stage is None:
            yield Advanced(events, self.step(events))
            return
        started = self._timer()
        for closed in self._stage.take(events):
            yield self._step_closed(closed, started)
            started = self._timer()

    def finish(self, partition: int, offset: int) -> Advanced | None:
        """Close and step the open periods of a partition that has ended; None where events are not aggregated.

        Args:
            partition: The partition.
            offset: Offset of its last record.
        """
        if self._stage is None:
            return None
        started = self._timer()
        return self._step_closed(self._stage.finish(partition, offset), started)

    def silent_streams(self, partitions: Iterable[int], overdue_periods: int) -> SilentStreams:
        """Count and name streams without events, by how far their partition's event time has come.

        Args:
            partitions: The partitions.
            overdue_periods: Periods after a stream's newest event for which it is not overdue.
        """
        period_of = self.bundle.metadata.frequency.period_of
        partials, overdue, sleeping, named = self.residents.partials, 0, 0, list[SilentStream]()
        asleep_after = _NEVER_ASLEEP if partials is None else partials.aggregation.silent_after
        for partition in partitions:
            slots, newest = self.residents.newest(partition)
            behind = period_of(self.residents.reached(partition)) - period_of(newest)
            overdue += int(np.count_nonzero(behind > overdue_periods))
            sleeping += int(np.count_nonzero(behind > asleep_after))
            silent = np.flatnonzero(behind > min(overdue_periods, asleep_after))
            if silent.size > MOST_NAMED:
                silent = silent[np.argpartition(-newest[silent], MOST_NAMED)[:MOST_NAMED]]
            last = silent[np.argsort(-newest[silent], kind="stable")]
            ids = self.residents.ids(slots[last])
            named += map(SilentStream, ids, newest[last].tolist(), (behind[last] > asleep_after).tolist())
        return SilentStreams(overdue, sleeping, named)

    def closes_by(self, partition: int, watermark_ms: int) -> bool:
        """Return whether a partition's periods close when its time comes to a watermark without another event."""
        stage = self._stage
        return stage is not None and stage.closes_by(partition, watermark_ms)

    def silence(self, partition: int, silence: Silence) -> Advanced | None:
        """Let a partition's time go on without an event; None if it has come so far already.

        Args:
            partition: The partition.
            silence: The decision; repeated, it changes nothing.
        """
        if self._stage is None or silence.watermark_ms <= self.residents.silences.applied_to(partition):
            return None
        started = self._timer()
        return self._step_closed(self._stage.silence(partition, silence), started)

    def step(self, events: EventBatch) -> StepResult:
        """Advance each event's stream by one step; return one row of output per event, in the order given."""
        started = self._timer()
        unique_ids, timestamps_ms = events.unique_ids, events.timestamps_ms
        outputs = _Outputs.empty(self._runner, len(events), late=self._replay is not None)
        outcome, evicted, changes = outputs.outcome, 0, list[OverdueChange]()
        for rows, evictions in self.residents.until_evictions(events.partitions, events.ds):
            evicted += self.residents.evict(evictions)
            times = None if timestamps_ms is None else timestamps_ms[rows]
            ids = unique_ids if rows.size == len(events) else [unique_ids[row] for row in rows.tolist()]
            slots = self.residents.admit(events.partitions[rows], ids, times)
            if (slots <= NO_SLOT).any():
                outcome[rows[slots == NO_SLOT]] = Outcome.TOO_MANY_STREAMS
                outcome[rows[slots == TOO_MANY_AT_ONCE]] = Outcome.TOO_MANY_NEW_STREAMS
                slots = np.maximum(slots, NO_SLOT)
            outcome[rows[self._state.applied(slots, events.offsets[rows])]] = Outcome.ALREADY_APPLIED
            stepped = outcome[rows] == Outcome.STEPPED
            if self._overdue is not None:
                changes += self._overdue.take(events, rows, slots, stepped)
            if not stepped.all():
                rows, slots = rows[stepped], slots[stepped]
            self._run(events, rows, slots, outputs)
        return self._result(outputs, evicted, started, changes)

    def _step_closed(self, closed: Closed, started: float) -> Advanced:
        """Step closed periods, whose streams have slots and do not have them in their state yet."""
        outputs = _Outputs.empty(self._runner, len(closed.events), late=self._replay is not None)
        self._run(closed.events, np.arange(closed.slots.size, dtype=np.int64), closed.slots, outputs)
        return Advanced(closed.events, self._result(outputs, closed.evicted, started, closed.overdue), closed.taken)

    def _run(self, events: EventBatch, rows: IntArray, slots: IntArray, outputs: _Outputs) -> None:
        """Step some of the events, whose streams have slots."""
        batch = SlotBatch(rows, slots, self._inputs(events, rows))
        if self._replay is None or outputs.late is None:
            self._runner.run(batch, outputs.columns)
            self._state.note(slots, batch.inputs.ds)
        else:
            self._replay.run(batch, outputs.columns, outputs.late)

    def _result(self, outputs: _Outputs, evicted: int, started: float, overdue: Sequence[OverdueChange]) -> StepResult:
        """Return the results of the events that were run since `started`."""
        columns, outcome, late = outputs.columns, outputs.outcome, outputs.late
        outcome[~columns[quarantine.HEALTHY]] = Outcome.QUARANTINED
        calls, seconds = self._runner.take_calls(), self._timer() - started
        applied, replayed = (0, 0) if late is None else (late.applied, late.replayed)
        return StepResult(
            outcome,
            columns["forecast"],
            columns["status"],
            columns.get("score"),
            columns.get("anomaly"),
            StepStats(outcome.size, *calls, evicted, seconds, applied, replayed),
            revision=None if late is None else late.revision,
            late=None if late is None else late.late,
            revised=None if late is None else late.revised,
            alarm=columns.get(ALARM),
            corrected_alarms=() if late is None else late.alarms,
            overdue=overdue,
        )

    def _inputs(self, events: EventBatch, rows: IntArray) -> Inputs:
        """Return the inputs that the graph declares; missing covariates are NaN, undeclared ones are dropped."""
        metadata, x, future = self.bundle.metadata, None, None
        if declared := len(metadata.covariates):
            x = _rows_or_missing(events.x, rows, (declared,))
        if ahead := len(metadata.known_ahead):
            future = _rows_or_missing(events.future, rows, (ahead, metadata.horizon))
        return Inputs(events.ds[rows], events.y[rows], x, future)


@dataclass(frozen=True, slots=True)
class _Outputs:
    """The outputs of one call, filled in parts."""

    columns: Outputs
    outcome: StatusArray
    late: LateResults | None

    @classmethod
    def empty(cls, runner: BatchRunner, n: int, *, late: bool) -> _Outputs:
        """Return outputs for `n` events."""
        return cls(runner.empty_outputs(n), np.zeros(n, np.int8), LateResults.empty(n) if late else None)


def _rows_or_missing(column: FloatArray | None, rows: IntArray, shape: tuple[int, ...]) -> FloatArray:
    """Return some rows of a column of covariates; NaN of this shape each if there is no such column."""
    return np.full((rows.size, *shape), np.nan, np.float32) if column is None else column[rows]
