"""The dry run of a foreign bundle: its graphs step a few events before any stream does.

A graph that keeps every clause on paper may still not run: types that do not fit each other, an operator without a
kernel, a batch size that the exporter wrote into a constant. It may also compute an event from more than the event and
its stream's row. So each graph runs on the CPU in plain ONNX Runtime, as the file has it, and as it is served: with the
quarantine, updating the state in place. Both have to agree.

Owns: the dry run. Bundles of Rillcast's own export were compared with their modules, and pass without it.
Does not know: what a graph computes. Data that the dry run does not have may still reveal a fault; the engine then ends
with a `DeviceError`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import onnxruntime as ort

from rillcast.arrays import AnyArray, IntArray
from rillcast.bundle.alarms import ALARM, ALARM_COLUMNS, ALARM_INTERVAL, LEAST_SLOTS
from rillcast.bundle.bundle import BOUNDS, CALIBRATE, NEXT_SUFFIX, REGULAR, STATE_PREFIX, Bundle, BundleMetadata, Graph
from rillcast.engine import quarantine
from rillcast.engine.device import Device
from rillcast.errors import BundleError, DeviceError

States: TypeAlias = dict[str, AnyArray]
"""By name of the state, `[N, *row_shape]`."""

_ROWS: Final = 6  # of state; row 0 is scratch
_STREAMS: Final = np.arange(1, _ROWS)
_SOME: Final = np.array([4, 2, 3])
_STEPS: Final = 3  # steps after which the states of the streams differ
_RUN: Final = 3  # events of a stream in one call of the sequence graph
_LONGEST: Final = 400  # characters of an error of ONNX Runtime
_START_MS: Final = 1_714_521_600_000  # 2024-05-01
_TOLERANCE: Final = {"float16": 2e-2, "float32": 1e-3, "float64": 1e-3}  # relative: sums may run in another order
_passed: set[bytes] = set()
"""Digests of the bundles that passed in this process."""


def check(bundle: Bundle) -> None:
    """Step a few events with the graphs of a bundle that another exporter made.

    Raises:
        BundleError: Clause `runs`: a graph cannot be run. `types`, `shapes`: its outputs are others than declared.
            `gathered-once`: an event depends on more than its stream's row. `in-place`: other rows change.
    """
    sequence = bundle.sequence
    if bundle.step.compared and (sequence is None or sequence.compared):
        return
    digest = hashlib.sha256(bundle.model).digest()
    if digest in _passed:
        return
    step = _DryRun(bundle, bundle.step, ())
    state = step.reach()
    step.run(state)
    if sequence is not None:
        _DryRun(bundle, sequence, (_RUN,)).run(state)
    _passed.add(digest)


@dataclass(frozen=True)
class _DryRun:
    """One graph; `events` is the shape of a stream's events in a call: () or (T,)."""

    bundle: Bundle
    graph: Graph
    events: tuple[int, ...]

    def reach(self) -> States:
        """Return states that the step leaves after a few events of each stream; rows differ as far as the model can."""
        session, state = self._session(self.graph.model), self._zeros()
        for number in range(_STEPS):
            state = self._plain(session, _STREAMS, number, state)[1]
        return state

    def run(self, state: States) -> None:
        """Make the dry run from this state; see `check` for the errors."""
        plain = self._session(self.graph.model)
        expected = self._some_streams(plain, state)
        rows = np.arange(1, _SOME.size + 1)
        elsewhere = self._zeros()
        for name, array in elsewhere.items():
            array[rows] = state[name][_SOME]
        moved = self._plain(plain, rows, _STEPS, elsewhere, as_if=_SOME)
        self._agree(expected, _taken(moved, rows), "depends on other rows of the state, or on the row's number")
        for at, slot in enumerate(_SOME.tolist()):
            alone = self._plain(plain, np.array([slot]), _STEPS, state)
            self._check_shapes(alone[0], 1)
            one = {name: array[at : at + 1] for name, array in expected.items()}
            self._agree(one, _taken(alone, np.array([slot])), "depends on the other events of the call")
        self._serve(expected, state)

    def _some_streams(self, plain: ort.InferenceSession, state: States) -> dict[str, AnyArray]:
        """Return what plain ONNX Runtime makes of some streams' events, and require that no other row changes."""
        outputs, following = self._plain(plain, _SOME, _STEPS, state)
        self._check_shapes(outputs, _SOME.size)
        others = np.setdiff1d(np.arange(_ROWS), _SOME)
        for name, array in following.items():
            if array.shape != state[name].shape or _differ(array[others], state[name][others]):
                reason = f"rows other than `slots` change in {STATE_PREFIX + name + NEXT_SUFFIX!r}"
                raise BundleError("in-place", self._where(reason))
        return _taken((outputs, following), _SOME)

    def _serve(self, expected: Mapping[str, AnyArray], state: States) -> None:
        """Require the same of the graph as it is served, in calls of several streams and of one."""
        session = self._session(quarantine.add(self.graph.served, self._metadata.states, branches=True))
        for slots, at in ((_SOME, slice(None)), (_SOME[1:2], slice(1, 2))):
            outputs, following = self._in_place(session, slots, _STEPS, state)
            healthy = outputs.pop(quarantine.HEALTHY)
            wanted = {name: array[at][healthy] for name, array in expected.items()}
            found = {name: array[healthy] for name, array in _taken((outputs, following), slots).items()}
            self._agree(wanted, found, "depends on more than its row `slots` of the state")

    @property
    def _metadata(self) -> BundleMetadata:
        return self.bundle.metadata

    def _zeros(self) -> States:
        return {spec.name: np.zeros((_ROWS, *spec.row_shape), spec.numpy_dtype) for spec in self._metadata.states}

    def _session(self, model: bytes) -> ort.InferenceSession:
        try:
            return Device("cpu").session(model)
        except DeviceError as error:
            raise BundleError("runs", self._where(str(error))) from error

    def _inputs(self, streams: IntArray, first: int) -> dict[str, AnyArray]:
        """Return the inputs of a call but `slots` and the states: whole numbers, in the periods from `first` on."""
        metadata, shape = self._metadata, (streams.size, *self.events)
        periods = first + np.arange(self.events[0] if self.events else 1).reshape(self.events)
        starts = metadata.frequency.start_of(metadata.frequency.period_of(_START_MS) + periods)
        numbers = streams.reshape(-1, *[1] * len(self.events))
        inputs: dict[str, AnyArray] = {
            "ds": np.broadcast_to(np.asarray(starts, np.int64), shape).copy(),
            "y": (10 + 7 * numbers + (periods * numbers) % 5 + np.zeros(shape)).astype(np.float32),
        }
        usual = [1.0 if one.kind == "category" else one.loc for one in metadata.covariates]
        if usual:
            inputs["x"] = np.broadcast_to(np.array(usual, np.float32), (*shape, len(usual))).copy()
        if ahead := [one.loc for one in metadata.known_ahead]:
            future = np.broadcast_to(np.array(ahead, np.float32)[:, None], (*shape, len(ahead), metadata.horizon))
            inputs["future"] = future.copy()
        if self.bundle.has_calibrate:
            inputs[CALIBRATE] = np.array(1, np.float32)
        if self.bundle.has_bounds:
            inputs[BOUNDS] = np.array(1, np.float32)
        if self.bundle.has_alarm_interval:
            inputs[ALARM_INTERVAL] = np.full(streams.size, LEAST_SLOTS, np.float32)
        return inputs

    def _plain(
        self, session: ort.InferenceSession, slots: IntArray, first: int, state: States, as_if: IntArray | None = None
    ) -> tuple[dict[str, AnyArray], States]:
        """Return the outputs and the whole following states; the events are those of the streams `as_if`."""
        inputs = self._inputs(slots if as_if is None else as_if, first)
        inputs |= {"slots": slots, **{STATE_PREFIX + name: array for name, array in state.items()}}
        with self._running():
            values = session.run(None, inputs)
        named = dict(zip((output.name for output in session.get_outputs()), values, strict=True))
        following = {name: named.pop(STATE_PREFIX + name + NEXT_SUFFIX) for name in state}
        return named, following

    def _in_place(
        self, session: ort.InferenceSession, slots: IntArray, first: int, state: States
    ) -> tuple[dict[str, AnyArray], States]:
        """Return the outputs and the states, after a call that updated copies of them in place as the engine does."""
        binding = session.io_binding()
        inputs = self._inputs(slots, first) | {"slots": slots}
        names = [*sorted(self.graph.outputs), quarantine.HEALTHY]
        copies = {name: array.copy() for name, array in state.items()}
        values = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in copies.items()}
        with self._running():
            for name, array in inputs.items():
                binding.bind_cpu_input(name, array)
            for name, value in values.items():
                binding.bind_ortvalue_input(STATE_PREFIX + name, value)
                binding.bind_ortvalue_output(STATE_PREFIX + name + NEXT_SUFFIX, value)
            for name in names:
                binding.bind_output(name)
            session.run_with_iobinding(binding)
            outputs = binding.get_outputs()[len(values) :]  # in the order of binding
        return {name: value.numpy() for name, value in zip(names, outputs, strict=True)}, copies

    def _check_shapes(self, outputs: Mapping[str, AnyArray], streams: int) -> None:
        """Require the types and shapes of the contract, which the file may have left open."""
        metadata, of_events = self._metadata, (streams, *self.events)
        expected: dict[str, tuple[str, tuple[int, ...]]] = {
            "forecast": ("float32", (*of_events, metadata.horizon, len(metadata.quantiles))),
            "status": ("int8", of_events),
            "score": ("float32", (*of_events, len(metadata.scores))),
            "anomaly": ("float32", of_events),
            ALARM: ("float32", (*of_events, len(ALARM_COLUMNS))),
            REGULAR: ("bool", (streams,)),
        }
        for name, array in outputs.items():
            dtype, shape = expected[name]
            if array.dtype != dtype:
                raise BundleError("types", self._where(f"output {name!r} is {array.dtype}, the contract says {dtype}"))
            if array.shape != shape:
                found = f"output {name!r} has shape {list(array.shape)} for {streams} streams"
                raise BundleError("shapes", self._where(f"{found}, the contract says {list(shape)}"))

    def _agree(self, expected: Mapping[str, AnyArray], found: Mapping[str, AnyArray], otherwise: str) -> None:
        used = expected.get(REGULAR, slice(None))  # of a run that the graph refuses, nothing is used
        for name, array in expected.items():
            if array.shape != found[name].shape or _differ(array[used], found[name][used]):
                output = name if name in self.graph.outputs else STATE_PREFIX + name + NEXT_SUFFIX
                raise BundleError("gathered-once", self._where(f"an event's {output!r} {otherwise}"))

    @contextmanager
    def _running(self) -> Iterator[None]:
        """Turn the exceptions of ONNX Runtime, which share no base below Exception, into one."""
        try:
            yield
        except Exception as error:
            raise BundleError("runs", self._where(f"ONNX Runtime {ort.__version__} cannot run it: {error}")) from error

    def _where(self, reason: str) -> str:
        """Return one line that names the sequence graph where it is meant."""
        line = " ".join(reason.split())
        if len(line) > _LONGEST:
            line = line[:_LONGEST] + "..."
        return f"sequence graph: {line}" if self.events else line


def _taken(of_call: tuple[dict[str, AnyArray], States], slots: IntArray) -> dict[str, AnyArray]:
    """Return the outputs, and the rows `slots` of the following states."""
    outputs, following = of_call
    return outputs | {name: array[slots] for name, array in following.items()}


def _differ(one: AnyArray, other: AnyArray) -> bool:
    """Return whether two arrays of one shape differ by more than the order of sums explains."""
    tolerance = _TOLERANCE.get(str(one.dtype))
    if tolerance is None:
        return not np.array_equal(one, other)
    largest = float(np.max(np.abs(one), initial=0, where=np.isfinite(one)))
    return not np.allclose(one, other, rtol=tolerance, atol=tolerance * min(1.0, largest) * 1e-2, equal_nan=True)
