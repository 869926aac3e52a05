"""One graph of a bundle on a device: calls of it, on unique slots, with the state updated in place.

Owns: the session, the binding, padding to row buckets, and where outputs land. Does not know: streams, order, or what
the graph computes. The step takes one event of each slot, `[B]`; the sequence graph takes runs of them, `[B, T]`.

Invariant: nothing but events goes to the device and nothing but outputs comes back; the state arrays stay where they
are, bound as input and as output.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import onnxruntime as ort

from pipeline import guard
from pipeline.arrays import AnyArray, FloatArray, IntArray
from pipeline.bundle import StateSpec
from pipeline.device import Device

Bind: TypeAlias = Callable[[ort.IOBinding], None]


class Executor:
    """Used from one thread."""

    def __init__(
        self, model: bytes, states: Sequence[StateSpec], on: Device, bind: Bind, row_buckets: Sequence[int] = ()
    ) -> None:
        """Load a graph, with the quarantine in it.

        Args:
            model: the step or the sequence graph of a bundle.
            states: the bundle's kinds of state.
            on: where it runs.
            bind: binds the state arrays as input and output.
            row_buckets: increasing batch sizes to pad to with slot 0; none = no padding.

        Raises:
            DeviceError: the device cannot run the graph.
        """
        self._session = on.session(guard.protect(model, states))
        self._binding = self._session.io_binding()
        self._bind = bind
        self._bound: int | None = None
        self._buckets = np.sort(np.array(row_buckets, dtype=np.int64))

    def run(
        self,
        slots: IntArray,
        ds: IntArray,
        y: FloatArray,
        rows: IntArray,
        columns: Mapping[str, AnyArray],
        generation: int,
    ) -> None:
        """Run the graph once and store its outputs.

        Args:
            slots: `(B,)` int64, unique.
            ds: `(B,)` or `(B, T)` int64.
            y: float32, shaped like `ds`.
            rows: shaped like `ds`, where in `columns` the outputs of each event belong. The outputs of a run's only
                verdict, `healthy`, go to all of its events.
            columns: by name of the output, `(n, ...)`.
            generation: changes whenever the state arrays have moved.
        """
        if self._bound != generation:
            self._bind(self._binding)
            self._bound = generation
        n = slots.size
        padding = int(self._buckets[np.searchsorted(self._buckets, n)]) - n if self._buckets.size else 0
        if padding:
            slots, ds, y = _padded(slots, ds, y, padding)
        binding = self._binding
        binding.bind_cpu_input("slots", slots)
        binding.bind_cpu_input("ds", ds)
        binding.bind_cpu_input("y", y)
        flat = rows.reshape(-1)
        first, last = int(flat[0]), int(flat[-1])
        # Rows of a call that lie side by side and in order are a plain slice, which the model fills directly.
        in_place = not padding and last - first == flat.size - 1 and (rows.ndim == 1 or rows.shape[0] == 1)
        targets: dict[str, AnyArray] = {}
        for name, column in columns.items():
            shape = ds.shape[:1] if name == guard.HEALTHY else ds.shape
            if in_place and shape == ds.shape:
                target = column[first : last + 1].reshape((*shape, *column.shape[1:]))
            else:
                target = np.empty((*shape, *column.shape[1:]), column.dtype)
            targets[name] = target
            binding.bind_output(name, "cpu", 0, target.dtype.type, target.shape, target.ctypes.data)
        self._session.run_with_iobinding(binding)
        for name, target in targets.items():
            if name == guard.HEALTHY and ds.ndim == 2:
                columns[name][rows] = target[:n, None]
            elif not in_place:
                columns[name][rows] = target[:n]


def _padded(slots: IntArray, ds: IntArray, y: FloatArray, padding: int) -> tuple[IntArray, IntArray, FloatArray]:
    """Append pads: they step the scratch row with a missing value; several write it at once, and nobody reads it."""
    shape = (padding, *ds.shape[1:])
    return (
        np.concatenate((slots, np.zeros(padding, np.int64))),
        np.concatenate((ds, np.zeros(shape, np.int64))),
        np.concatenate((y, np.full(shape, np.nan, np.float32))),
    )
