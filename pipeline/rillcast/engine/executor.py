"""One graph of a bundle on a device: it is called on unique slots and updates the state in place.

The step takes one event of each slot, `[B]`; the sequence graph takes runs of them, `[B, T]`.

Without buckets a call binds the caller's arrays, which the model reads and fills on the CPU without a copy. To bind is
most of what a call of few rows costs besides the model, so these calls have arrays that stay bound, and copy. With
buckets (`Device.row_buckets`, on CUDA) the step has few shapes. Each shape has buffers on the device at fixed
addresses, so a call allocates nothing, and a CUDA graph can be captured over them (`cuda_graphs.py`).

Owns: the session, the bindings, padding to row buckets, and where outputs are written.
Does not know: streams, order, what the graph computes.
Invariant: only events go to the device and only outputs come back. The state arrays stay on the device, each bound as
input and output. A value that outlives a call is allocated outside of the session that captures.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeAlias

import numpy as np
import onnxruntime as ort

from rillcast.arrays import AnyArray, IntArray
from rillcast.bundle.bundle import StateSpec
from rillcast.engine import quarantine, reductions
from rillcast.engine.cuda_graphs import FIRST_NUMBER, CudaGraph
from rillcast.engine.device import Device
from rillcast.engine.inputs import PADS
from rillcast.errors import DeviceError

log = logging.getLogger(__name__)

# Calls of at most this many rows keep their arrays bound. Copies of more rows cost what they save.
KEPT_ROWS: Final = 32

Columns: TypeAlias = Mapping[str, AnyArray]
Bind: TypeAlias = Callable[[ort.IOBinding], None]
"""Binds values that all calls share. They are values of `Device.upload` and never `bind_cpu_input`.

`bind_cpu_input` copies its array into the memory arena of the session, perhaps into a block that an earlier captured
run had used and freed. The replays of that graph still write there. `Device.upload` allocates outside of every session.
"""


@dataclass(frozen=True, slots=True)
class _Bucket:
    """Buffers of one batch size, all of which stay: on the host for the copies, on the device to run a call.

    Attributes:
        binding: Of the session, over the buffers on the device.
        host: Inputs on the host, page-locked where possible, by name.
        inputs: Inputs on the device.
        outputs: Outputs on the device.
        returned: Outputs on the host, page-locked where possible.
        views: Arrays over `returned`.
    """

    binding: ort.IOBinding
    host: Mapping[str, AnyArray]
    inputs: Mapping[str, ort.OrtValue]
    outputs: Mapping[str, ort.OrtValue]
    returned: Mapping[str, ort.OrtValue]
    views: Mapping[str, AnyArray]

    def fill(self, events: Mapping[str, AnyArray]) -> None:
        """Write events into the inputs, at most one for each row of the bucket, and padding rows after them.

        A padding row steps the scratch row with a missing value. Several of them write it at once; no code reads it.
        """
        for name, given in events.items():
            host = self.host[name]
            host[: len(given)] = given
            host[len(given) :] = PADS.get(name, 0)
            self.inputs[name].update_inplace(host)

    def read(self, rows: IntArray | slice, n: int, columns: Mapping[str, AnyArray]) -> None:
        """Store the first `n` rows of the outputs: one copy from the device, and one on the host."""
        for name, value in self.outputs.items():
            self.returned[name].update_inplace(value)
            columns[name][rows] = self.views[name][:n]


@dataclass(frozen=True, slots=True)
class _Kept:
    """Arrays of one small batch size on the CPU that stay bound, so that a call is two copies and the run.

    Attributes:
        binding: Of the session, over the arrays.
        inputs: Inputs by name.
        outputs: Outputs by name.
    """

    binding: ort.IOBinding
    inputs: Mapping[str, AnyArray]
    outputs: Mapping[str, AnyArray]


class Executor:
    """A graph and its session. Used from one thread."""

    def __init__(
        self, model: bytes, states: Sequence[StateSpec], on: Device, bind: Bind, row_buckets: Sequence[int] = ()
    ) -> None:
        """Load a graph, with the quarantine in it.

        Args:
            model: The step or the sequence graph of a bundle.
            states: The bundle's states.
            on: Device that runs the graph.
            bind: Binds the state arrays as input and output, and other values that all calls share.
            row_buckets: Batch sizes to which the step is padded with slot 0; empty = no padding.

        Raises:
            DeviceError: The device cannot run the graph.
        """
        self._on = on
        served = quarantine.add(model, states, branches=on.name == "cpu" and not on.cuda_graphs)
        if on.name == "cuda":
            served = reductions.without_cudnn(served)
        self._session, self._captures = _load(served, on, fixed_buffers=bool(row_buckets))
        self._binding = self._session.io_binding()
        self._bind = bind
        self._bound: int | None = None
        self._sizes = np.sort(np.array(row_buckets, dtype=np.int64))
        self._buckets: dict[int, _Bucket] = {}
        self._kept: dict[int, _Kept] = {}  # by batch size
        self._scattered: dict[str, AnyArray] = {}  # flat, of outputs whose rows are not consecutive
        self._numbers = itertools.count(FIRST_NUMBER)
        self._graphs: dict[int, CudaGraph] = {}  # by bucket size

    def run(
        self,
        slots: IntArray,
        inputs: Columns,
        rows: IntArray,
        columns: Columns,
        generation: int,
    ) -> None:
        """Run the graph once and store its outputs.

        Args:
            slots: `(B,)` int64, unique.
            inputs: By name of the input, columns of `(B,)` streams or events, or of `(B, T)` events where the graph
                takes runs.
            rows: `(B,)` or `(B, T)`, the row of `columns` for the outputs of each event. A run has one value of
                `healthy`, which goes to all its events.
            columns: By name of the output, `(n, ...)`.
            generation: Changes whenever the state arrays have moved.

        Raises:
            DeviceError: ONNX Runtime fails, for lack of memory or by what the graph does with these events.
        """
        if self._bound != generation:
            self._bind(self._binding)
            for bucket in self._buckets.values():
                self._bind(bucket.binding)
            for kept in self._kept.values():
                self._bind(kept.binding)
            self._graphs.clear()  # captured over arrays that no longer exist
            self._bound = generation
        if self._sizes.size:
            self._run_in_bucket(slots, inputs, rows, columns)
        else:
            with self._on.work():
                keeps = self._on.name == "cpu" and rows.ndim == 1 and rows.size <= KEPT_ROWS
                (self._run_kept if keeps else self._run_in_place)(slots, inputs, rows, columns)

    def _run_kept(self, slots: IntArray, inputs: Columns, rows: IntArray, columns: Columns) -> None:
        events = {"slots": slots, **inputs}
        kept = self._kept.get(slots.size) or self._make_kept(slots.size, events, columns)
        for name, given in events.items():
            kept.inputs[name][...] = given
        self._call(partial(self._session.run_with_iobinding, kept.binding), slots.size)
        for name, column in columns.items():
            column[rows] = kept.outputs[name]

    def _run_in_place(self, slots: IntArray, inputs: Columns, rows: IntArray, columns: Columns) -> None:
        binding = self._binding
        binding.bind_cpu_input("slots", slots)
        for name, column in inputs.items():
            binding.bind_cpu_input(name, column)
        events = rows.shape
        # Consecutive rows in order are a slice, which the model fills directly.
        target_rows = _as_slice(rows.reshape(-1)) if rows.ndim == 1 or rows.shape[0] == 1 else None
        copied: dict[str, AnyArray] = {}
        for name, column in columns.items():
            of_runs = name == quarantine.HEALTHY and rows.ndim == 2
            shape = (*(events[:1] if of_runs else events), *column.shape[1:])
            if target_rows is not None and not of_runs:
                target = column[target_rows].reshape(shape)
            else:
                target = copied[name] = self._buffer(name, shape, column.dtype)
            binding.bind_output(name, "cpu", 0, target.dtype.type, target.shape, target.ctypes.data)
        self._call(partial(self._session.run_with_iobinding, binding), slots.size)
        for name, target in copied.items():
            columns[name][rows] = target[:, None] if name == quarantine.HEALTHY and rows.ndim == 2 else target

    def _run_in_bucket(self, slots: IntArray, inputs: Columns, rows: IntArray, columns: Columns) -> None:
        n = slots.size
        size = int(self._sizes[np.searchsorted(self._sizes, n)])
        bucket = self._buckets.get(size) or self._make_bucket(size, inputs, columns)
        events = {"slots": slots, **inputs}
        if self._captures:
            graph = self._graphs.get(size) or self._make_graph(size, bucket)
            nothing = {name: column[:0] for name, column in events.items()}
            self._call(partial(graph.capture, lambda: bucket.fill(nothing)), size)
            run = graph.replay
        else:
            run = partial(self._session.run_with_iobinding, bucket.binding)
        with self._on.work():
            bucket.fill(events)
            self._call(run, size)
            consecutive = _as_slice(rows)
            bucket.read(rows if consecutive is None else consecutive, n, columns)

    def _buffer(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> AnyArray:
        """Return memory that stays, for an output that is copied from there."""
        size = math.prod(shape)
        buffer = self._scattered.get(name)
        if buffer is None or buffer.size < size:
            buffer = self._scattered[name] = np.empty(size, dtype)
        return buffer[:size].reshape(shape)

    def _call(self, run: Callable[[], None], streams: int) -> None:
        try:
            run()
        except Exception as error:  # ONNX Runtime's exceptions share no base below Exception
            reason = " ".join(str(error).split())
            graphs = " with CUDA graphs (or set cuda_graphs=false)" if self._captures else ""
            raise DeviceError(
                f"ONNX Runtime cannot step {streams} streams on {self._on.name}{graphs}: {reason}"
            ) from error

    def _make_kept(self, size: int, events: Columns, columns: Columns) -> _Kept:
        """Allocate and bind the arrays of a small batch size; called once for each size."""
        binding = self._session.io_binding()
        self._bind(binding)
        inputs = {name: np.empty((size, *given.shape[1:]), given.dtype) for name, given in events.items()}
        outputs = {name: np.empty((size, *column.shape[1:]), column.dtype) for name, column in columns.items()}
        for name, array in inputs.items():
            binding.bind_ortvalue_input(name, self._on.upload(array))
        for name, array in outputs.items():
            binding.bind_ortvalue_output(name, self._on.upload(array))
        kept = self._kept[size] = _Kept(binding, inputs, outputs)
        return kept

    def _make_graph(self, size: int, bucket: _Bucket) -> CudaGraph:
        graph = self._graphs[size] = CudaGraph(next(self._numbers), self._session, bucket.binding)
        return graph

    def _make_bucket(self, size: int, inputs: Columns, columns: Columns) -> _Bucket:
        """Allocate the buffers of a batch size; called once for each size."""
        binding = self._session.io_binding()
        self._bind(binding)
        host_buffer = self._on.host_buffer
        given = {"slots": np.empty(0, np.int64), **inputs}
        host = {name: host_buffer((size, *array.shape[1:]), array.dtype) for name, array in given.items()}
        on_device = {name: self._on.upload(array.copy()) for name, array in host.items()}
        views = {name: host_buffer((size, *column.shape[1:]), column.dtype) for name, column in columns.items()}
        outputs = {name: self._on.upload(array.copy()) for name, array in views.items()}
        returned = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in views.items()}
        for name, value in on_device.items():
            binding.bind_ortvalue_input(name, value)
        for name, value in outputs.items():
            binding.bind_ortvalue_output(name, value)
        bucket = self._buckets[size] = _Bucket(binding, host, on_device, outputs, returned, views)
        return bucket


def _load(model: bytes, on: Device, *, fixed_buffers: bool) -> tuple[ort.InferenceSession, bool]:
    """Return the session of a graph, and whether it captures.

    Raises:
        DeviceError: The device cannot run the graph.
    """
    captures = fixed_buffers and on.cuda_graphs is not False
    try:
        return on.session(model, fixed_buffers=fixed_buffers), captures
    except DeviceError as error:
        if not captures or on.cuda_graphs is True:
            raise
        session = on.session(model)  # raises where the graph cannot be loaded at all
        log.warning("the model runs without CUDA graphs, because it cannot be captured: %s", error)
        return session, False


def _as_slice(rows: IntArray) -> slice | None:
    """Return the slice that row numbers `(n,)` in order are; None where they are not consecutive."""
    first, last = int(rows[0]), int(rows[-1])
    return slice(first, last + 1) if last - first == rows.size - 1 else None
