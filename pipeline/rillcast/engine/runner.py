"""Steps batches of events in order and writes what the model returns into columns.

Where a bundle has a sequence graph, consecutive events of a busy stream go through it together. The graph may refuse a
run in which an event is late, missing, follows a gap, or would be quarantined. It then leaves the stream unchanged, and
the runner steps the run's events one by one. On the CPU provider both graphs return the same bits.

Owns: the executors of a bundle's graphs, and the choice between steps and runs.
Does not know: stream ids, late events, limits, results of a whole call.
Invariant: the events of one stream are stepped in the order of the batch, each exactly once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from rillcast.arrays import AnyArray, FloatArray, IntArray
from rillcast.bundle.alarms import ALARM, ALARM_COLUMNS, ALARM_INTERVAL
from rillcast.bundle.bundle import BOUNDS, CALIBRATE, Bundle
from rillcast.engine import batcher, quarantine
from rillcast.engine.batcher import Batching, Runs
from rillcast.engine.device import Device
from rillcast.engine.executor import Executor
from rillcast.engine.inputs import SlotBatch
from rillcast.engine.slot_state import NEVER, SlotState

Outputs: TypeAlias = dict[str, AnyArray]
"""Columns by name of the graph's output or input, `(n, ...)` each."""


class Calls(NamedTuple):
    """Counts of a runner since they were last taken.

    Attributes:
        calls: Calls of the model.
        in_runs: Events that went through the sequence graph.
    """

    calls: int
    in_runs: int


class BatchRunner:
    """The graphs of a bundle on a device, over the state of all slots. Used from one thread."""

    def __init__(
        self,
        bundle: Bundle,
        state: SlotState,
        on: Device,
        batching: Batching,
        *,
        calibrate: bool,
        bounds: bool = True,
        alarm_intervals: Callable[[IntArray], FloatArray] | None = None,
    ) -> None:
        """Load the graphs.

        Args:
            bundle: The model.
            state: State of all slots, on the same device.
            on: Device that runs the graphs.
            batching: Rules by which events are put into calls.
            calibrate: Whether a bundle that learns an online correction of its forecasts applies it.
            bounds: Whether a bundle that learns which values a stream can have keeps its forecasts to them.
            alarm_intervals: Returns the periods in which one alarm of the streams in some slots is wanted; None = no
                alarm is.

        Raises:
            DeviceError: The device cannot run the bundle.
        """
        self._bundle, self._state = bundle, state
        self._batching = batching
        self._runs = batching.runs if bundle.sequence is not None else Runs()
        # On the device, like the state: see `executor.Bind`.
        shared = {CALIBRATE: (bundle.has_calibrate, calibrate), BOUNDS: (bundle.has_bounds, bounds)}
        values = {name: on.upload(np.array(on_off, np.float32)) for name, (has, on_off) in shared.items() if has}
        self._alarm_intervals = alarm_intervals
        states, bind = bundle.metadata.states, partial(_bind, state, values)
        self._step = Executor(bundle.step.served, states, on, bind, batching.row_buckets)
        self._sequence = Executor(bundle.sequence.served, states, on, bind) if bundle.sequence is not None else None
        self._calls = self._in_runs = 0

    @property
    def has_alarm(self) -> bool:
        """Whether the outputs have alarms."""
        return self._bundle.has_alarm

    def empty_outputs(self, n: int) -> Outputs:
        """Return columns for the outputs of `n` events; `healthy` is true until an event is quarantined."""
        metadata = self._bundle.metadata
        outputs: Outputs = {
            "forecast": np.empty((n, metadata.horizon, len(metadata.quantiles)), np.float32),
            "status": np.zeros(n, np.int8),
            quarantine.HEALTHY: np.ones(n, np.bool_),
        }
        if self._bundle.has_score:
            outputs["score"] = np.empty((n, len(metadata.scores)), np.float32)
        if self._bundle.has_anomaly:
            outputs["anomaly"] = np.empty(n, np.float32)
        if self._bundle.has_alarm:
            outputs[ALARM] = np.zeros((n, len(ALARM_COLUMNS)), np.float32)
        return outputs

    def run(self, batch: SlotBatch, outputs: Outputs) -> None:
        """Step events in the order of the batch.

        Args:
            batch: Events of any streams; a stream may have several.
            outputs: Receives the results in the rows that the batch names.
        """
        if not batch.slots.size:
            return
        follows = partial(self._follows, batch)
        for call in batcher.calls(batch.slots, self._batching.rows, self._runs, follows):
            if call.shape[1] == 1:
                self._step_once(batch, call[:, 0], outputs)
                self._calls += 1
            else:
                refused = self._step_runs(batch, call, outputs)
                self._calls += 1 + (call.shape[1] if refused else 0)
                self._in_runs += call.size - refused

    def take_calls(self) -> Calls:
        """Return the counts since the last call of this method."""
        taken = Calls(self._calls, self._in_runs)
        self._calls = self._in_runs = 0
        return taken

    def _of_streams(self, slots: IntArray) -> Outputs:
        """Return the inputs that have one value of each stream."""
        if not self._bundle.has_alarm_interval:
            return {}
        intervals = self._alarm_intervals
        return {ALARM_INTERVAL: np.zeros(slots.size, np.float32) if intervals is None else intervals(slots)}

    def _follows(self, batch: SlotBatch) -> npt.NDArray[np.bool_]:
        """Guess for each event whether it is observed and lies in the period after its stream's event before it.

        The guess uses the times alone; the graph decides. A stream's first event follows nothing.
        """
        period_of = self._bundle.metadata.frequency.period_of
        newest = self._state.newest(batch.slots)
        order = np.argsort(batch.slots, kind="stable")
        slots, periods = batch.slots[order], period_of(batch.inputs.ds[order])
        before = np.where(newest == NEVER, NEVER, period_of(newest))[order]
        repeated = slots[1:] == slots[:-1]
        before[1:][repeated] = periods[:-1][repeated]
        follows: npt.NDArray[np.bool_] = np.empty(slots.size, np.bool_)
        follows[order] = periods == before + 1
        return follows & np.isfinite(batch.inputs.y)

    def _step_once(self, batch: SlotBatch, call: IntArray, outputs: Outputs) -> None:
        """Step one event of each of some streams; `call` `(B,)` indexes the batch."""
        slots, inputs = batch.slots[call], batch.inputs.take(call)
        columns = inputs.columns() | self._of_streams(slots)
        self._step.run(slots, columns, batch.rows[call], outputs, self._state.num_slots)

    def _step_runs(self, batch: SlotBatch, call: IntArray, outputs: Outputs) -> int:
        """Take `(B, T)` events through the sequence graph, step the refused ones singly, and return their number."""
        assert self._sequence is not None  # without it there are no runs
        rows = batch.rows[call]
        slots, inputs = batch.slots[call[:, 0]], batch.inputs.take(call)
        columns = inputs.columns() | self._of_streams(slots)
        self._sequence.run(slots, columns, rows, outputs, self._state.num_slots)
        refused = call[~outputs[quarantine.HEALTHY][rows[:, 0]]]
        for events in refused.T if refused.size else ():
            self._step_once(batch, np.sort(events), outputs)
        return refused.size


def _bind(state: SlotState, values: Mapping[str, ort.OrtValue], binding: ort.IOBinding) -> None:
    """Bind what stays the same from call to call.

    As a method of the runner it would keep the runner and its sessions in a cycle, and the collector runs seldom
    (`rillcast.service.garbage_collection`): each model that another replaced would stay in memory for long.
    """
    state.slab.bind(binding)
    for name, value in values.items():
        binding.bind_ortvalue_input(name, value)
