"""Device-resident recurrent state, one row per slot.

Small ONNX graphs move rows (a Gather, a ScatterND in place, both in sequence). So the same code serves the CPU and the
GPU, and a row comes to the host only on request.

On the CPU the arrays are allocated once, as large as the machine's memory. An array of zeros takes only address space
until a row is written, so a growing number of streams never pauses the service to copy rows. On other devices the
arrays grow by doubling.

Owns: the arrays, their types, their device and their growth.
Does not know: stream ids, weights, Kafka.
Invariant: row 0 is scratch. Padding reads and writes it; no stream gets it.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime as ort
from onnx import helper, numpy_helper

from rillcast.arrays import AnyArray, IntArray
from rillcast.bundle.bundle import NEXT_SUFFIX, STATE_PREFIX, StateSpec
from rillcast.engine.device import IR_VERSION, OPSET, Device
from rillcast.errors import SlotError

_MAX_ROOM: Final = 2**26  # rows; a process that needs more is misconfigured
_STATM: Final = Path("/proc/self/statm")


def room(specs: Sequence[StateSpec], device: Device, host_bytes: int, least: int) -> int:
    """Return the initial number of rows: on the CPU as many as memory can hold, because unused rows take none.

    Args:
        specs: States of the bundle.
        device: Device of the rows.
        host_bytes: Bytes that the caller keeps for each row in its own arrays of zeros.
        least: Rows needed at once.
    """
    if device.name != "cpu":
        return least
    row_bytes = sum(spec.row_bytes for spec in specs) + host_bytes
    rows = min(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), _address_space()) // row_bytes
    return max(least, min(_MAX_ROOM, rows))


def _address_space() -> int:
    """Return half of the address space in bytes that `ulimit -v` leaves this process; the rest is for all else."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY or not _STATM.exists():
        return sys.maxsize
    taken = int(_STATM.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    return max(0, limit - taken) // 2


class Slab:
    """One array per state, `[num_slots, *row_shape]`, on one device. Used from one thread."""

    def __init__(self, specs: Sequence[StateSpec], device: Device, num_slots: int) -> None:
        self._specs = tuple(specs)
        self._device = device
        self._num_slots = num_slots
        self._row_bytes = sum(spec.row_bytes for spec in self._specs)  # read with every poll
        self._values = {spec.name: device.upload(self._zeros(spec, num_slots)) for spec in self._specs}
        self._gather = {spec.name: device.session(_gather_model(spec)) for spec in self._specs}
        self._scatter = {spec.name: device.session(_scatter_model(spec)) for spec in self._specs}
        self._copy: ort.InferenceSession | None = None  # created with the first copy

    @property
    def num_slots(self) -> int:
        """Number of rows, including the scratch rows."""
        return self._num_slots

    @property
    def row_bytes(self) -> int:
        """Bytes of one row on the device."""
        return self._row_bytes

    def bind(self, binding: ort.IOBinding) -> None:
        """Bind each array as `state.<name>` and as `state.<name>.next`, so that a step updates it in place.

        Bindings must be renewed after `ensure` has returned True.
        """
        for name, value in self._values.items():
            binding.bind_ortvalue_input(STATE_PREFIX + name, value)
            binding.bind_ortvalue_output(STATE_PREFIX + name + NEXT_SUFFIX, value)

    def ensure(self, num_slots: int) -> bool:
        """Make room for at least `num_slots` rows; rows keep their contents, new ones are zero.

        Returns:
            Whether the arrays moved and need new bindings. They at least double, so that copying costs a constant
            amount per stream.
        """
        if num_slots <= self._num_slots:
            return False
        grown = max(num_slots, 2 * self._num_slots)
        for spec in self._specs:
            array = self._zeros(spec, grown)
            with self._device.work():
                array[: self._num_slots] = self._values[spec.name].numpy()
                self._values[spec.name] = self._device.upload(array)
        self._num_slots = grown
        return True

    def gather(self, slots: IntArray, names: Collection[str] | None = None) -> dict[str, AnyArray]:
        """Copy rows to the host.

        Args:
            slots: `(batch,)` int64 in `[0, num_slots)`.
            names: States that are copied; None = all.

        Returns:
            By name of the state, `(batch, *row_shape)`; copies, never views.

        Raises:
            SlotError: A slot is out of range.
        """
        self._check(slots)
        rows: dict[str, AnyArray] = {}
        for spec in (spec for spec in self._specs if names is None or spec.name in names):
            with self._device.work():
                binding = self._gather[spec.name].io_binding()
                binding.bind_ortvalue_input("state", self._values[spec.name])
                binding.bind_cpu_input("slots", slots)
                binding.bind_output("rows", "cpu")
                self._gather[spec.name].run_with_iobinding(binding)
                rows[spec.name] = np.array(binding.get_outputs()[0].numpy())
        return rows

    def scatter(self, slots: IntArray, rows: Mapping[str, AnyArray]) -> None:
        """Overwrite rows in place.

        Args:
            slots: `(batch,)` int64 in `[0, num_slots)`, unique.
            rows: By name of the state, `(batch, *row_shape)` of its type, for every state.

        Raises:
            SlotError: A slot is out of range or repeats, or rows are missing or of another shape or type. Nothing is
                written.
        """
        self._check(slots)
        if np.unique(slots).size != slots.size:
            raise SlotError("slots repeat in one scatter; the result would depend on the device")
        for spec in self._specs:
            given = rows.get(spec.name)
            if given is None or given.shape != (slots.size, *spec.row_shape) or given.dtype != spec.numpy_dtype:
                found = "nothing" if given is None else f"{given.dtype}{list(given.shape)}"
                raise SlotError(
                    f"rows of state {spec.name!r}: found {found}, expected {spec.dtype}{[slots.size, *spec.row_shape]}"
                )
        for spec in self._specs:
            with self._device.work():
                binding = self._scatter[spec.name].io_binding()
                binding.bind_ortvalue_input("state", self._values[spec.name])
                binding.bind_cpu_input("slots", slots[:, None].copy())
                binding.bind_cpu_input("rows", np.ascontiguousarray(rows[spec.name]))
                binding.bind_ortvalue_output("next", self._values[spec.name])
                self._scatter[spec.name].run_with_iobinding(binding)

    def copy_from(self, other: Slab, slots: IntArray) -> None:
        """Overwrite rows with the same rows of another slab, on the device.

        Args:
            other: Slab of the same states on the same device.
            slots: `(batch,)` int64 in `[0, num_slots)` of both, unique.

        Raises:
            SlotError: A slot is out of range. Nothing is written.
        """
        self._check(slots)
        other._check(slots)
        if self._copy is None:
            self._copy = self._device.session(_copy_model(self._specs))
        with self._device.work():
            binding = self._copy.io_binding()
            binding.bind_cpu_input("slots", np.ascontiguousarray(slots))
            for spec in self._specs:
                binding.bind_ortvalue_input("from." + spec.name, other._values[spec.name])
                binding.bind_ortvalue_input("to." + spec.name, self._values[spec.name])
                binding.bind_ortvalue_output("next." + spec.name, self._values[spec.name])
            self._copy.run_with_iobinding(binding)

    def clear(self, slots: IntArray) -> None:
        """Set rows to zero, the state of a new stream."""
        self.scatter(slots, {spec.name: self._zeros(spec, slots.size) for spec in self._specs})

    def _check(self, slots: IntArray) -> None:
        if slots.size and (slots.min() < 0 or slots.max() >= self._num_slots):
            raise SlotError(f"slots {slots.min()}..{slots.max()} are out of range, expected 0..{self._num_slots - 1}")

    @staticmethod
    def _zeros(spec: StateSpec, num_slots: int) -> AnyArray:
        return np.zeros((num_slots, *spec.row_shape), dtype=spec.numpy_dtype)


def _gather_model(spec: StateSpec) -> bytes:
    element = helper.np_dtype_to_tensor_dtype(spec.numpy_dtype)
    graph = helper.make_graph(
        [helper.make_node("Gather", ["state", "slots"], ["rows"], axis=0)],
        "gather",
        [
            helper.make_tensor_value_info("state", element, ["N", *spec.row_shape]),
            helper.make_tensor_value_info("slots", helper.np_dtype_to_tensor_dtype(np.dtype(np.int64)), ["B"]),
        ],
        [helper.make_tensor_value_info("rows", element, ["B", *spec.row_shape])],
    )
    return _serialise(graph)


def _scatter_model(spec: StateSpec) -> bytes:
    element = helper.np_dtype_to_tensor_dtype(spec.numpy_dtype)
    graph = helper.make_graph(
        [helper.make_node("ScatterND", ["state", "slots", "rows"], ["next"])],
        "scatter",
        [
            helper.make_tensor_value_info("state", element, ["N", *spec.row_shape]),
            helper.make_tensor_value_info("slots", helper.np_dtype_to_tensor_dtype(np.dtype(np.int64)), ["B", 1]),
            helper.make_tensor_value_info("rows", element, ["B", *spec.row_shape]),
        ],
        [helper.make_tensor_value_info("next", element, ["N", *spec.row_shape])],
    )
    return _serialise(graph)


def _copy_model(specs: Sequence[StateSpec]) -> bytes:
    slot_type = helper.np_dtype_to_tensor_dtype(np.dtype(np.int64))
    nodes = [helper.make_node("Unsqueeze", ["slots", "last_axis"], ["rows"])]
    inputs = [helper.make_tensor_value_info("slots", slot_type, ["B"])]
    outputs = []
    for spec in specs:
        element, name = helper.np_dtype_to_tensor_dtype(spec.numpy_dtype), spec.name
        nodes.append(helper.make_node("Gather", ["from." + name, "slots"], ["row." + name], axis=0))
        nodes.append(helper.make_node("ScatterND", ["to." + name, "rows", "row." + name], ["next." + name]))
        for kind, count in (("from.", "M"), ("to.", "N")):
            inputs.append(helper.make_tensor_value_info(kind + name, element, [count, *spec.row_shape]))
        outputs.append(helper.make_tensor_value_info("next." + name, element, ["N", *spec.row_shape]))
    last_axis = numpy_helper.from_array(np.array([-1], np.int64), "last_axis")
    return _serialise(helper.make_graph(nodes, "copy", inputs, outputs, [last_axis]))


def _serialise(graph: Any) -> bytes:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    return bytes(model.SerializeToString())
