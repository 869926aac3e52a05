"""The inputs of a graph for some events, column by column.

Owns: which arrays there are, their names, and what a pad is. Whatever keeps, orders or repeats events moves an `Inputs`
as one value, so that nothing of an event is left behind. Knows no streams and no models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rillcast.arrays import AnyArray, FloatArray, IntArray

PADS: Final[Mapping[str, float]] = {"ds": 0, "y": np.nan, "x": np.nan, "future": np.nan}
"""What stands in each input for no event: time 0, and everything missing."""


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """Columns of events; `...` are the leading dimensions, `(n,)` or `(B, T)`.

    Attributes:
        ds: `(...)` int64, milliseconds since the epoch.
        y: `(...)` float32, NaN = missing.
        x: `(..., C)` float32, the covariates of the events, NaN = missing; None where the bundle declares none.
        future: `(..., F, H)` float32, those that are known ahead, for the next H slots; None where there are none.
    """

    ds: IntArray
    y: FloatArray
    x: FloatArray | None = None
    future: FloatArray | None = None

    def __len__(self) -> int:
        return len(self.ds)

    def take(self, rows: IntArray | npt.NDArray[np.bool_]) -> Inputs:
        """Return the events at `rows`, of any shape."""
        return Inputs(**{name: column[rows] for name, column in self.columns().items()})

    def columns(self) -> dict[str, Any]:
        """Return the arrays that there are, by the names of the graph's inputs."""
        columns: dict[str, AnyArray] = {"ds": self.ds, "y": self.y}
        if self.x is not None:
            columns["x"] = self.x
        if self.future is not None:
            columns["future"] = self.future
        return columns

    @classmethod
    def joined(cls, parts: Sequence[Inputs]) -> Inputs:
        """Return the events of several, which have the same columns, one after the other."""
        names = parts[0].columns()
        return cls(**{name: np.concatenate([part.columns()[name] for part in parts]) for name in names})
