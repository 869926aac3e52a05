"""Steps events: stream ids and columns in, forecasts out, state advanced in place.

Composes bundle, executor, batcher and residents. Knows no Kafka, no clock (a timer is passed in) and no
metrics client. What a step computes is in the bundle alone; the engine moves rows.

Where a bundle has a sequence graph, consecutive events of a busy stream go through it together. It may refuse a run (an
event in it is late, missing, after a gap, or would be quarantined) and then has left the stream alone: the run's events
are stepped one by one. Both graphs give the same bits on the CPU provider, so which one was used is not to be seen.

Invariants: the events of one stream are stepped in the order in which they are given, each exactly once, whatever else
is in the batch (but where late events go back into their places: `rillcast.engine.late.replay`); whatever becomes of
an event is a
function of its partition's events in their order.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from rillcast.arrays import FloatArray, IntArray, StatusArray
from rillcast.bundle.bundle import CALIBRATE, Bundle
from rillcast.engine import batcher, device, quarantine
from rillcast.engine.batcher import Runs
from rillcast.engine.executor import Executor
from rillcast.engine.inputs import Inputs
from rillcast.engine.late.replay import Columns, LateReplay, Revised, merged
from rillcast.engine.late.retained import AllowedLateness, shapes_of
from rillcast.engine.residents import NO_WATERMARK, Limits, Residents, SlotBatch
from rillcast.engine.slots import NO_SLOT, TOO_MANY_AT_ONCE
from rillcast.events import EventBatch

DEFAULT_RUNS: Final = Runs(lengths=(256, 64, 16, 4), max_rows=1024)


class Outcome(enum.IntEnum):
    """What the engine did with an event."""

    STEPPED = 0
    ALREADY_APPLIED = 1  # the stream's restored state is newer than the event
    TOO_MANY_STREAMS = 2  # a new stream, and its partition has as many as the limits allow
    QUARANTINED = 3  # the step would have left the state or forecast unusable; the state is as before
    TOO_MANY_NEW_STREAMS = 4  # a new stream, and its partition had as many in this second as the limits allow


@dataclass(frozen=True, slots=True)
class StepStats:
    """What one call of `StepEngine.step` did.

    Attributes:
        events: how many it was given.
        calls: of the model.
        in_runs: events that went through the sequence graph.
        evicted: streams that left.
        seconds: it took.
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
        outcome: `(n,)` int8, `Outcome`; the other columns mean something only where it is `STEPPED`.
        forecast: `(n, H, Q)` float32, in the stream's own unit.
        status: `(n,)` int8, `rillcast.bundle.bundle.Status`.
        score: `(n, K)` float32 in the order of `metadata.scores`, NaN = nothing to score; None if K = 0.
        anomaly: `(n,)` float32, NaN = unknown; None where the bundle has no such output.
        stats: cost of the step.
        revision: `(n,)` int32, how often the forecast of the event's stream and slot had been revised before it became
            this one; None where streams do not go back.
        late: `(n,)` bool, whether the event was late, or another value for its period, and was applied; None where
            no lateness is allowed.
        revised: forecasts of earlier events that these events changed; None where they changed none.
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


class StepEngine:
    """The states of many streams and the model that steps them. Used from one thread."""

    def __init__(
        self,
        bundle: Bundle,
        on: device.Device,
        *,
        batch_rows: int = 256,
        row_buckets: Sequence[int] = (),
        runs: Runs = DEFAULT_RUNS,
        limits: Limits | None = None,
        calibrate: bool = True,
        lateness: AllowedLateness | None = None,
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Load the bundle on a device.

        Args:
            bundle: the model.
            on: where it runs.
            batch_rows: most rows in one call.
            row_buckets: increasing batch sizes that calls are padded to with slot 0, the largest at least
                `batch_rows`; none = no padding. Providers that specialise on shapes (CUDA graphs) want few shapes.
            runs: when consecutive events of a stream go together, where the bundle has a sequence graph.
            limits: which streams may be resident; None = all, for ever.
            calibrate: whether a bundle that learns an online correction of its forecasts applies it.
            lateness: How late an event may be; None = late events are left to the model.
            timer: monotonic seconds, for the statistics only.

        Raises:
            DeviceError: the device cannot run the bundle.
        """
        if row_buckets and max(row_buckets) < batch_rows:
            raise ValueError(f"the largest of row_buckets {list(row_buckets)} is less than batch_rows {batch_rows}")
        self.bundle = bundle
        self.residents = Residents(bundle.metadata.states, on, limits or Limits(), lateness, shapes_of(bundle.metadata))
        history = self.residents.history
        self._rewinder = (
            None if history is None else LateReplay(self.residents, history, self._advance, self._empty_columns)
        )
        self._batch_rows = batch_rows
        self._runs = runs if bundle.sequence is not None else Runs()
        self._timer = timer
        self._calls = self._in_runs = 0  # of the step under way
        self._calibrate = np.array(calibrate, np.float32)
        states, bind = bundle.metadata.states, self._bind
        self._one = Executor(bundle.model, states, on, bind, row_buckets)
        self._many = Executor(bundle.sequence, states, on, bind) if bundle.sequence is not None else None

    def _bind(self, binding: ort.IOBinding) -> None:
        """Bind what stays the same from call to call."""
        self.residents.bind(binding)
        if self.bundle.has_calibrate:
            binding.bind_cpu_input(CALIBRATE, self._calibrate)

    def step(self, events: EventBatch) -> StepResult:
        """Advance each event's stream by one step; return one row of output per event, in the order given."""
        started = self._timer()
        n, unique_ids, timestamps_ms = len(events), events.unique_ids, events.timestamps_ms
        inputs = self._inputs(events)
        columns = self._empty_columns(n)
        outcome: StatusArray = np.zeros(n, np.int8)
        places = n if self._rewinder is not None else 0
        revision, placed = np.zeros(places, np.int32), np.zeros(places, np.bool_)
        evicted, revised = 0, list[Revised]()
        self._calls = self._in_runs = 0
        for rows, evictions in self.residents.stretches(events.partitions, events.ds):
            evicted += self.residents.evict(evictions)
            times = None if timestamps_ms is None else timestamps_ms[rows]
            slots = self.residents.admit(events.partitions[rows], [unique_ids[row] for row in rows.tolist()], times)
            if (slots <= NO_SLOT).any():
                outcome[rows[slots == NO_SLOT]] = Outcome.TOO_MANY_STREAMS
                outcome[rows[slots == TOO_MANY_AT_ONCE]] = Outcome.TOO_MANY_NEW_STREAMS
                slots = np.maximum(slots, NO_SLOT)
            outcome[rows[self.residents.applied(slots, events.offsets[rows])]] = Outcome.ALREADY_APPLIED
            stepped = outcome[rows] == Outcome.STEPPED
            if not stepped.all():
                rows, slots = rows[stepped], slots[stepped]
            stretch = SlotBatch(rows, slots, inputs.take(rows))
            if self._rewinder is None:
                self._advance(stretch, columns)
                self.residents.touched(slots, stretch.inputs.ds)
            else:
                revised += self._rewinder.step(stretch, columns, revision, placed)
        outcome[~columns[quarantine.HEALTHY]] = Outcome.QUARANTINED
        put, again = (0, 0) if self._rewinder is None else self._rewinder.take_counts()
        stats = StepStats(n, self._calls, self._in_runs, evicted, self._timer() - started, put, again)
        return StepResult(
            outcome,
            columns["forecast"],
            columns["status"],
            columns.get("score"),
            columns.get("anomaly"),
            stats,
            revision if self._rewinder is not None else None,
            placed if self._rewinder is not None else None,
            merged(revised),
        )

    def _empty_columns(self, n: int) -> Columns:
        """Return columns for the results of `n` events."""
        metadata = self.bundle.metadata
        columns: Columns = {
            "forecast": np.empty((n, metadata.horizon, len(metadata.quantiles)), np.float32),
            "status": np.zeros(n, np.int8),
            quarantine.HEALTHY: np.ones(n, np.bool_),
        }
        if self.bundle.has_score:
            columns["score"] = np.empty((n, len(metadata.scores)), np.float32)
        if self.bundle.has_anomaly:
            columns["anomaly"] = np.empty(n, np.float32)
        return columns

    def _advance(self, stretch: SlotBatch, columns: Columns) -> None:
        """Step events in the order in which they stand."""
        if not stretch.slots.size:
            return
        follows = partial(self._follows, stretch)
        for call in batcher.calls(stretch.slots, self._batch_rows, self._runs, follows):
            if call.shape[1] == 1:
                self._step(stretch, call[:, 0], columns)
                self._calls += 1
            else:
                refused = self._run(stretch, call, columns)
                self._calls += 1 + (call.shape[1] if refused else 0)
                self._in_runs += call.size - refused

    def _inputs(self, events: EventBatch) -> Inputs:
        """Return what the graph takes: what it declares is there, if only as missing, and nothing else is."""
        metadata, n = self.bundle.metadata, len(events)
        x, future = events.x, events.future
        declared, ahead = len(metadata.covariates), len(metadata.known_ahead)
        if declared and x is None:
            x = np.full((n, declared), np.nan, np.float32)
        if ahead and future is None:
            future = np.full((n, ahead, metadata.horizon), np.nan, np.float32)
        return Inputs(events.ds, events.y, x if declared else None, future if ahead else None)

    def _follows(self, stretch: SlotBatch) -> npt.NDArray[np.bool_]:
        """Guess for each event whether it is observed, in the slot after that of its stream's event before it.

        A guess, from the times alone: the graph decides. A stream's first event ever follows nothing.
        """
        period_of = self.bundle.metadata.frequency.period_of
        newest = self.residents.newest(stretch.slots)
        order = np.argsort(stretch.slots, kind="stable")
        slots, times = stretch.slots[order], period_of(stretch.inputs.ds[order])
        before = np.where(newest == NO_WATERMARK, NO_WATERMARK, period_of(newest))[order]
        again = slots[1:] == slots[:-1]
        before[1:][again] = times[:-1][again]
        follows: npt.NDArray[np.bool_] = np.empty(slots.size, np.bool_)
        follows[order] = times == before + 1
        return follows & np.isfinite(stretch.inputs.y)

    def _step(self, stretch: SlotBatch, call: IntArray, columns: Columns) -> None:
        """Step one event of each of some streams; `call` `(B,)` indexes the stretch."""
        events = stretch.slots[call], stretch.inputs.take(call)
        self._one.run(*events, stretch.rows[call], columns, self.residents.num_slots)

    def _run(self, stretch: SlotBatch, call: IntArray, columns: Columns) -> int:
        """Take `(B, T)` events through the sequence graph, step those that it refuses, and return how many."""
        assert self._many is not None  # else there are no runs
        rows = stretch.rows[call]
        self._many.run(stretch.slots[call[:, 0]], stretch.inputs.take(call), rows, columns, self.residents.num_slots)
        refused = call[~columns[quarantine.HEALTHY][rows[:, 0]]]
        for events in refused.T if refused.size else ():
            self._step(stretch, np.sort(events), columns)
        return refused.size
