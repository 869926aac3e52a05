"""A batch of events as columns: the decoder makes it, the engine steps it, the publisher publishes its results.

Owns: the columns, and how some of the events are taken out. Does not know: bytes, models, where events come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np

from rillcast.arrays import FloatArray, IntArray

_ALL_ROWS: Final[IntArray] = np.empty(0, np.int64)


class Masked(NamedTuple):
    """How many values of declared covariates the model does not see.

    Attributes:
        missing: Values that are absent, in `x` or `future`.
        out_of_range: Values whose magnitude exceeds the limit.
        unknown: Categories that training has not seen; the model sees that they are unknown.
    """

    missing: int = 0
    out_of_range: int = 0
    unknown: int = 0


NOTHING_MASKED: Final = Masked()


@dataclass(frozen=True, slots=True, eq=False)
class EventBatch:
    """Events in the order in which they apply; row `i` of every column belongs to one event.

    Attributes:
        partitions: `(n,)` int64, the partition of each event; equal ids in different partitions are different streams.
        offsets: `(n,)` int64, the offset of each event's record in its partition, never decreasing within a partition.
            The events of one record share it, and are in one batch.
        unique_ids: The `n` stream ids.
        ds: `(n,)` int64, event times in milliseconds since the epoch.
        y: `(n,)` float32, observations; NaN = missing.
        x: `(n, C)` float32, the bundle's covariates at the events, NaN = missing; None = all missing.
        future: `(n, F, H)` float32, the covariates known ahead for the next H periods; None = all missing.
        timestamps_ms: `(n,)` int64, timestamps of the records, -1 = unknown; None = the limit on new streams, which
            goes by them, does not apply.
        rows: `(n,)` int64, the record of the poll that each event came from; 0 to n - 1 where none are given.
        masked: How many values of covariates the model does not see.
        left_out: Records and elements of arrays that the settings leave out, which have no event.
        keys: The `n` ids of the entities that the streams belong to (a host of `host/cpu`); None = the stream ids.
        routes: `(n,)` int64, the number of the model's table in the settings; None = there is one model.
        unmatched: Events of the records that no table's model takes, which are left out.
    """

    partitions: IntArray
    offsets: IntArray
    unique_ids: Sequence[str]
    ds: IntArray
    y: FloatArray
    x: FloatArray | None = None
    future: FloatArray | None = None
    timestamps_ms: IntArray | None = None
    rows: IntArray = field(default_factory=lambda: _ALL_ROWS)
    masked: Masked = NOTHING_MASKED
    left_out: int = 0
    keys: Sequence[str] | None = None
    routes: IntArray | None = None
    unmatched: int = 0

    def __post_init__(self) -> None:
        if self.rows is _ALL_ROWS:
            object.__setattr__(self, "rows", np.arange(len(self.unique_ids), dtype=np.int64))

    def __len__(self) -> int:
        return len(self.unique_ids)

    @classmethod
    def of(
        cls,
        unique_ids: Sequence[str],
        ds: Sequence[int] | IntArray,
        y: Sequence[float] | FloatArray,
        x: FloatArray | None = None,
        future: FloatArray | None = None,
        *,
        partition: int = 0,
        first_offset: int = 0,
    ) -> EventBatch:
        """Return events of one partition whose offsets follow each other from `first_offset` on."""
        n = len(unique_ids)
        offsets = np.arange(first_offset, first_offset + n, dtype=np.int64)
        times, observations = np.asarray(ds, np.int64), np.asarray(y, np.float32)
        return cls(np.full(n, partition, np.int64), offsets, unique_ids, times, observations, x, future)

    def take(self, rows: IntArray) -> EventBatch:
        """Return some of the events, in the order of `rows`; what is counted stays with the whole batch."""
        return EventBatch(
            self.partitions[rows],
            self.offsets[rows],
            [self.unique_ids[row] for row in rows.tolist()],
            self.ds[rows],
            self.y[rows],
            None if self.x is None else self.x[rows],
            None if self.future is None else self.future[rows],
            None if self.timestamps_ms is None else self.timestamps_ms[rows],
            self.rows[rows],
            keys=None if self.keys is None else [self.keys[row] for row in rows.tolist()],
            routes=None if self.routes is None else self.routes[rows],
        )
