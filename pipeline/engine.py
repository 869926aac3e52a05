"""Steps events: stream ids and columns in, forecasts out, state advanced in place.

Composes bundle, guard, slab, slots, batcher and residents. Knows no Kafka, no clock (a timer is passed in) and no
metrics client. What a step computes is in the bundle alone; the engine moves rows.

Invariants: the events of one stream are stepped in the order in which they are given, each exactly once, whatever else
is in the batch; whatever becomes of an event is a function of its partition's events in their order.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline import batcher, device, guard
from pipeline.arrays import AnyArray, FloatArray, IntArray, StatusArray
from pipeline.bundle import Bundle
from pipeline.residents import Limits, Residents


class Outcome(enum.IntEnum):
    """What the engine did with an event."""

    STEPPED = 0
    ALREADY_APPLIED = 1  # the stream's restored state is newer than the event
    TOO_MANY_STREAMS = 2  # a new stream, and its partition has as many as the limits allow
    QUARANTINED = 3  # the step would have left the state or forecast unusable; the state is as before


@dataclass(frozen=True, slots=True)
class StepStats:
    """What one call of `StepEngine.step` did."""

    events: int
    calls: int
    evicted: int
    seconds: float


@dataclass(frozen=True, slots=True)
class StepResult:
    """Outputs of the model; row `i` belongs to event `i` as given.

    Attributes:
        outcome: `(n,)` int8, `Outcome`; the other columns mean something only where it is `STEPPED`.
        forecast: `(n, H, Q)` float32, in the stream's own unit.
        status: `(n,)` int8, `pipeline.bundle.Status`.
        score: `(n, K)` float32 in the order of `metadata.scores`, NaN = nothing to score; None if K = 0.
        anomaly: `(n,)` float32, NaN = unknown; None where the bundle has no such output.
        stats: cost of the step.
    """

    outcome: StatusArray
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
        limits: Limits | None = None,
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Load the bundle on a device.

        Args:
            bundle: the model.
            on: where it runs.
            batch_rows: most rows in one call.
            row_buckets: increasing batch sizes that calls are padded to with slot 0, the largest at least
                `batch_rows`; none = no padding. Providers that specialise on shapes (CUDA graphs) want few shapes.
            limits: which streams may be resident; None = all, for ever.
            timer: monotonic seconds, for the statistics only.

        Raises:
            DeviceError: the device cannot run the bundle.
        """
        if row_buckets and max(row_buckets) < batch_rows:
            raise ValueError(f"the largest of row_buckets {list(row_buckets)} is less than batch_rows {batch_rows}")
        self.bundle = bundle
        self.residents = Residents(bundle.metadata.states, on, limits or Limits())
        self._batch_rows = batch_rows
        self._buckets = np.sort(np.array(row_buckets, dtype=np.int64))
        self._timer = timer
        self._session = on.session(guard.protect(bundle))
        self._binding = self._session.io_binding()
        self._bound_slots = 0

    def step(
        self,
        partitions: IntArray,
        offsets: IntArray,
        unique_ids: Sequence[str],
        ds: IntArray,
        y: FloatArray,
    ) -> StepResult:
        """Advance each event's stream by one step.

        Args:
            partitions: `(n,)` int64, the partition that each event came from; equal ids in different partitions are
                different streams.
            offsets: `(n,)` int64, increasing within a partition.
            unique_ids: stream ids.
            ds: `(n,)` int64, milliseconds since the epoch.
            y: `(n,)` float32, NaN = missing.

        Returns:
            One row of output per event, in the order given.
        """
        started = self._timer()
        n, metadata = len(unique_ids), self.bundle.metadata
        columns: dict[str, AnyArray] = {
            "forecast": np.empty((n, metadata.horizon, len(metadata.quantiles)), np.float32),
            "status": np.zeros(n, np.int8),
            guard.HEALTHY: np.ones(n, np.bool_),
        }
        if self.bundle.has_score:
            columns["score"] = np.empty((n, len(metadata.scores)), np.float32)
        if self.bundle.has_anomaly:
            columns["anomaly"] = np.empty(n, np.float32)
        outcome: StatusArray = np.zeros(n, np.int8)
        calls = evicted = 0
        for rows, evictions in self.residents.stretches(partitions, ds):
            evicted += self.residents.evict(evictions)
            slots = self.residents.admit(partitions[rows], [unique_ids[row] for row in rows.tolist()])
            outcome[rows[slots == 0]] = Outcome.TOO_MANY_STREAMS
            outcome[rows[self.residents.applied(slots, offsets[rows])]] = Outcome.ALREADY_APPLIED
            stepped = outcome[rows] == Outcome.STEPPED
            if not stepped.all():
                rows, slots = rows[stepped], slots[stepped]
            for call in batcher.calls(slots, self._batch_rows):
                at = rows[call]
                self._call(slots[call], ds[at], y[at], at, columns)
                calls += 1
            self.residents.touched(slots, ds[rows])
        outcome[~columns[guard.HEALTHY]] = Outcome.QUARANTINED
        stats = StepStats(n, calls, evicted, self._timer() - started)
        return StepResult(
            outcome, columns["forecast"], columns["status"], columns.get("score"), columns.get("anomaly"), stats
        )

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
        if self._bound_slots != self.residents.num_slots:  # the arrays grew, so they moved
            self.residents.bind(binding)
            self._bound_slots = self.residents.num_slots
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
