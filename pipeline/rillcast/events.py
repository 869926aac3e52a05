"""A batch of events as columns: what the decoder makes, the engine steps and the publisher tells of."""

from __future__ import annotations

from typing import NamedTuple

from rillcast.arrays import AnyArray, FloatArray, IntArray


class EventBatch(NamedTuple):
    """The arguments of `StepEngine.step`."""

    partitions: IntArray
    offsets: IntArray
    unique_ids: list[str]
    ds: IntArray
    y: FloatArray
    x: FloatArray | None = None
    future: FloatArray | None = None
    timestamps_ms: AnyArray | None = None

    def take(self, rows: IntArray) -> EventBatch:
        """Return some of the events, in the order of `rows`."""
        unique_ids = [self.unique_ids[row] for row in rows.tolist()]
        x, future = (None if column is None else column[rows] for column in (self.x, self.future))
        times = None if self.timestamps_ms is None else self.timestamps_ms[rows]
        ds, y = self.ds[rows], self.y[rows]
        return EventBatch(self.partitions[rows], self.offsets[rows], unique_ids, ds, y, x, future, times)
