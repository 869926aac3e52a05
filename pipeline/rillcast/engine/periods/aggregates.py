"""Aggregates of raw events, and the cells in which they are computed.

A cell has the events of one stream in one period. Every aggregate is exact in float64 for the values that it is given,
and takes them in the order of arrival, so that it does not depend on how events were polled.

Owns: what each aggregate computes. Does not know: streams, slots, when a period closes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from rillcast.arrays import AnyArray, FloatArray, IntArray
from rillcast.bundle.frequency import Frequency
from rillcast.engine.slot_state import NEVER

Kind: TypeAlias = Literal["last", "first", "mean", "sum", "count", "min", "max"]
Close: TypeAlias = Literal["stream", "partition"]
Empty: TypeAlias = Literal["auto", "missing", "zero"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
AFTER_ALL: Final = -NEVER
"""A time after all others."""
_SHORTEST_MONTH_MS: Final = 28 * 86_400_000
_IDENTITY: Final = {"min": np.inf, "max": -np.inf}
_FIRST_TIME: Final = {"first": AFTER_ALL, "last": NEVER}


def value_of_empty(kind: Kind, empty: Empty) -> Literal["missing", "zero"]:
    """Return what a period without values has; `auto` is 0 for `sum` and `count`."""
    if empty == "auto":
        return "zero" if kind in ("sum", "count") else "missing"
    return empty


@dataclass(frozen=True, slots=True)
class Aggregation:
    """How raw events become one observation for each period.

    Attributes:
        kind: What is computed of a period's events; `count` counts events, the others use those that have a value.
        frequency: Length of a period.
        close: Whether a period of a stream closes with the stream's first event of a later period, or with the
            partition's watermark.
        grace_ms: With `partition`, by how much the watermark lies behind the partition's newest event time.
        empty: Value of a period without values; NaN = missing.
        silent_after: A stream steps at most this many consecutive periods without events; then it sleeps until its next
            event. At least 1.
        correctable: Closed periods of a stream that late events still correct.
    """

    kind: Kind
    frequency: Frequency
    close: Close = "stream"
    grace_ms: int = 0
    empty: float = float("nan")
    silent_after: int = 100
    correctable: int = 0

    @property
    def timed(self) -> bool:
        """Whether a cell remembers the time of its value."""
        return self.kind in _FIRST_TIME

    @property
    def open_periods(self) -> int:
        """Most periods of a stream that are open at the same time."""
        if self.close == "stream":
            return 1
        frequency = self.frequency
        shortest = frequency.step * _SHORTEST_MONTH_MS if frequency.in_months else frequency.step
        return self.grace_ms // shortest + 2

    @property
    def cells(self) -> int:
        """Cells of a stream: of its open periods, and of the closed ones that may be corrected."""
        return self.open_periods + self.correctable


class Cells:
    """Columns of cells, all of the same length."""

    def __init__(self, aggregation: Aggregation, size: int) -> None:
        """Begin with cells without events.

        Args:
            aggregation: What is computed.
            size: Number of cells.
        """
        self._kind: Kind = aggregation.kind
        self._empty = aggregation.empty
        self.columns: dict[str, AnyArray] = {
            "value": np.zeros(size, np.float64),
            "values": np.zeros(size, np.int32),
            "events": np.zeros(size, np.int32),
        }
        if aggregation.timed:
            self.columns["at"] = np.zeros(size, np.int64)
        if size:
            self.clear(slice(None))

    @staticmethod
    def bytes_per_cell(aggregation: Aggregation) -> int:
        """Return the bytes of one cell."""
        return 24 if aggregation.timed else 16

    @property
    def events(self) -> npt.NDArray[np.int32]:
        """Number of events of each cell."""
        return self.columns["events"]

    def clear(self, cells: slice | IntArray) -> None:
        """Take all events out of some cells."""
        self.columns["value"][cells] = _IDENTITY.get(self._kind, 0.0)
        self.columns["values"][cells] = 0
        self.columns["events"][cells] = 0
        if "at" in self.columns:
            self.columns["at"][cells] = _FIRST_TIME[self._kind]

    def join(self, cells: IntArray, ds: IntArray, y: FloatArray) -> None:
        """Let events join their cells.

        Args:
            cells: `(n,)` int64, the cell of each event, in the order of arrival; cells may repeat.
            ds: `(n,)` int64, times of the events in milliseconds.
            y: `(n,)` float32, their values; NaN = missing.
        """
        columns = self.columns
        np.add.at(columns["events"], cells, np.ones(cells.size, np.int32))
        if self._kind == "count":
            return
        seen = ~np.isnan(y)
        if not seen.all():
            cells, ds, y = cells[seen], ds[seen], y[seen]
        np.add.at(columns["values"], cells, np.ones(cells.size, np.int32))
        value, wide = columns["value"], y.astype(np.float64)
        if self._kind in ("sum", "mean"):
            np.add.at(value, cells, wide)
        elif self._kind == "min":
            np.minimum.at(value, cells, wide)
        elif self._kind == "max":
            np.maximum.at(value, cells, wide)
        else:
            self._keep_one(cells, ds, wide)

    def _keep_one(self, cells: IntArray, ds: IntArray, y: npt.NDArray[np.float64]) -> None:
        """Keep the value of the first or last event by time; of several at one time, by arrival."""
        at, value = self.columns["at"], self.columns["value"]
        if self._kind == "first":
            before = at[cells]
            np.minimum.at(at, cells, ds)
            found = np.flatnonzero((ds == at[cells]) & (ds < before))
        else:
            np.maximum.at(at, cells, ds)
            found = np.flatnonzero(ds == at[cells])[::-1]
        which, nth = np.unique(cells[found], return_index=True)
        value[which] = y[found[nth]]

    def results(self, cells: slice | IntArray = slice(None)) -> FloatArray:
        """Return the aggregate of some cells; all by default."""
        columns = {name: column[cells] for name, column in self.columns.items()}
        if self._kind == "count":
            found, known = columns["events"].astype(np.float64), columns["events"] > 0
        else:
            found, known = columns["value"], columns["values"] > 0
            if self._kind == "mean":
                found = found / np.maximum(columns["values"], 1)
        return np.where(known, found, self._empty).astype(np.float32)
