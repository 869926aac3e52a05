"""Events as the engine moves them: the graph's inputs column by column, and batches of events with slots.

Owns: which input arrays exist, their names, and the values of a padding row. Code that keeps, orders or repeats events
moves an `Inputs` as one value, so that no part of an event is left behind.
Does not know: stream ids, models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rillcast.arrays import AnyArray, FloatArray, IntArray

PADS: Final[Mapping[str, float]] = {"ds": 0, "y": np.nan, "x": np.nan, "future": np.nan}
"""Value of each input in a padding row: time 0, and everything missing."""


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """Columns of events; `...` are the leading dimensions, `(n,)` or `(B, T)`.

    Attributes:
        ds: `(...)` int64, milliseconds since the epoch.
        y: `(...)` float32, NaN = missing.
        x: `(..., C)` float32, the covariates of the events, NaN = missing; None where the bundle declares none.
        future: `(..., F, H)` float32, covariates known for the next H periods; None where the bundle declares none.
    """

    ds: IntArray
    y: FloatArray
    x: FloatArray | None = None
    future: FloatArray | None = None

    def __len__(self) -> int:
        return len(self.ds)

    def take(self, rows: IntArray | npt.NDArray[np.bool_]) -> Inputs:
        """Return the events at `rows`, an array of any shape."""
        return Inputs(**{name: column[rows] for name, column in self.columns().items()})

    def columns(self) -> dict[str, Any]:
        """Return the arrays that exist, by the names of the graph's inputs."""
        columns: dict[str, AnyArray] = {"ds": self.ds, "y": self.y}
        if self.x is not None:
            columns["x"] = self.x
        if self.future is not None:
            columns["future"] = self.future
        return columns


@dataclass(frozen=True, slots=True)
class SlotBatch:
    """Events of streams that have slots, in the order in which they apply.

    Attributes:
        rows: `(n,)` int64, the row of the results that belongs to each event.
        slots: `(n,)` int64, the slot of each event's stream; slots may repeat.
        inputs: Columns of the `n` events.
    """

    rows: IntArray
    slots: IntArray
    inputs: Inputs

    def __getitem__(self, events: npt.NDArray[Any]) -> SlotBatch:
        """Return some of the events, by index or mask."""
        return SlotBatch(self.rows[events], self.slots[events], self.inputs.take(events))
