"""Steps events: stream ids and columns in, forecasts out, state advanced in place.

Composes bundle, slab, slots and batcher. Knows no Kafka, no clock (a timer is passed in) and no metrics client. What
a step computes is in the bundle alone; the engine moves rows.

Invariant: the events of one stream are stepped in the order in which they are given, each exactly once, whatever
else is in the batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline import batcher, device
from pipeline.arrays import AnyArray, FloatArray, IntArray, StatusArray
from pipeline.bundle import Bundle
from pipeline.slab import Slab
from pipeline.slots import PAGE_SLOTS, SlotTable


@dataclass(frozen=True, slots=True)
class StepStats:
    """What one call of `StepEngine.step` did."""

    events: int
    calls: int
    seconds: float


@dataclass(frozen=True, slots=True)
class StepResult:
    """Outputs of the model; row `i` belongs to event `i` as given.

    Attributes:
        forecast: `(n, H, Q)` float32, in the stream's own unit.
        status: `(n,)` int8, `pipeline.bundle.Status`.
        score: `(n, K)` float32 in the order of `metadata.scores`, NaN = nothing to score; None if K = 0.
        anomaly: `(n,)` float32, NaN = unknown; None where the bundle has no such output.
        stats: cost of the step.
    """

    forecast: FloatArray
    status: StatusArray
    score: FloatArray | None
    anomaly: FloatArray | None
    stats: StepStats


class StepEngine:
    """The states of many streams and the model that steps them. Used from one thread."""

    def __init__(
        self,
        bundle: Bundle,
        on: device.Device,
        *,
        batch_rows: int = 256,
        row_buckets: Sequence[int] = (),
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Load the bundle on a device.

        Args:
            bundle: the model.
            on: where it runs.
            batch_rows: most rows in one call.
            row_buckets: increasing batch sizes that calls are padded to with slot 0, the largest at least
                `batch_rows`; none = no padding. Providers that specialise on shapes (CUDA graphs) want few shapes.
            timer: monotonic seconds, for the statistics only.

        Raises:
            DeviceError: the device cannot run the bundle.
        """
        if row_buckets and max(row_buckets) < batch_rows:
            raise ValueError(f"the largest of row_buckets {list(row_buckets)} is less than batch_rows {batch_rows}")
        self.bundle = bundle
        self._batch_rows = batch_rows
        self._buckets = np.sort(np.array(row_buckets, dtype=np.int64))
        self._timer = timer
        self._table = SlotTable()
        self._slab = Slab(bundle.metadata.states, on, self._table.num_slots)
        self._session = on.session(bundle.model)
        self._binding = self._session.io_binding()
        self._slab.bind(self._binding)

    @property
    def num_streams(self) -> int:
        """Streams that have state."""
        return self._table.num_streams

    @property
    def state_bytes(self) -> int:
        """Bytes of state on the device, spare rows included."""
        return self._slab.size_bytes

    def step(self, partitions: IntArray, unique_ids: Sequence[str], ds: IntArray, y: FloatArray) -> StepResult:
        """Advance each event's stream by one step.

        Args:
            partitions: `(n,)` int64, the partition that each event came from; equal ids in different partitions are
                different streams.
            unique_ids: stream ids.
            ds: `(n,)` int64, milliseconds since the epoch.
            y: `(n,)` float32, NaN = missing.

        Returns:
            One row of output per event, in the order given.
        """
        started = self._timer()
        slots = self._locate(partitions, unique_ids)
        n, metadata = len(unique_ids), self.bundle.metadata
        forecast: FloatArray = np.empty((n, metadata.horizon, len(metadata.quantiles)), np.float32)
        status: StatusArray = np.empty(n, np.int8)
        score: FloatArray | None = np.empty((n, len(metadata.scores)), np.float32) if self.bundle.has_score else None
        anomaly: FloatArray | None = np.empty(n, np.float32) if self.bundle.has_anomaly else None
        columns: dict[str, AnyArray] = {"forecast": forecast, "status": status}
        if score is not None:
            columns["score"] = score
        if anomaly is not None:
            columns["anomaly"] = anomaly
        calls = 0
        for rows in batcher.calls(slots, self._batch_rows):
            self._call(slots[rows], ds[rows], y[rows], rows, columns)
            calls += 1
        return StepResult(forecast, status, score, anomaly, StepStats(n, calls, self._timer() - started))

    def release(self, partition: int) -> None:
        """Forget the streams of a partition."""
        self._table.release(partition)

    def rows(self, partition: int, unique_ids: Sequence[str]) -> dict[str, AnyArray]:
        """Return a copy of the state rows of known streams, by name of the state.

        Raises:
            KeyError: a stream has no state.
        """
        known = self._table.streams(partition)
        return self._slab.gather(np.array([known[unique_id] for unique_id in unique_ids], dtype=np.int64))

    def _locate(self, partitions: IntArray, unique_ids: Sequence[str]) -> IntArray:
        present = np.unique(partitions)
        if present.size == 1:
            slots = self._table.locate(int(present[0]), unique_ids)
        else:
            slots = np.empty(len(unique_ids), dtype=np.int64)
            for partition in present.tolist():
                rows = np.flatnonzero(partitions == partition)
                slots[rows] = self._table.locate(partition, [unique_ids[row] for row in rows.tolist()])
        if self._slab.ensure(self._table.num_slots):
            self._slab.bind(self._binding)
        for page in self._table.take_new_pages():
            self._slab.clear(np.arange(page * PAGE_SLOTS, (page + 1) * PAGE_SLOTS, dtype=np.int64))
        return slots

    def _call(self, slots: IntArray, ds: IntArray, y: FloatArray, rows: IntArray, columns: dict[str, AnyArray]) -> None:
        """Run the model once on unique slots and store its outputs in `rows` of `columns`."""
        n = slots.size
        padding = int(self._buckets[np.searchsorted(self._buckets, n)]) - n if self._buckets.size else 0
        if padding:
            # A pad steps the scratch row with a missing value; several pads write it at once, and nobody reads it.
            slots = np.concatenate((slots, np.zeros(padding, np.int64)))
            ds = np.concatenate((ds, np.zeros(padding, np.int64)))
            y = np.concatenate((y, np.full(padding, np.nan, np.float32)))
        binding = self._binding
        binding.bind_cpu_input("slots", slots)
        binding.bind_cpu_input("ds", ds)
        binding.bind_cpu_input("y", y)
        # The rows of one wave increase, so equal span and count mean a plain slice, which the model fills directly.
        first, last = int(rows[0]), int(rows[-1])
        in_place = not padding and last - first == n - 1
        targets = {
            name: column[first : last + 1] if in_place else np.empty((n + padding, *column.shape[1:]), column.dtype)
            for name, column in columns.items()
        }
        for name, target in targets.items():
            binding.bind_output(name, "cpu", 0, target.dtype.type, target.shape, target.ctypes.data)
        self._session.run_with_iobinding(binding)
        if not in_place:
            for name, target in targets.items():
                columns[name][rows] = target[:n]
