"""Names of the numpy array types that cross module borders, and the rows of equal values."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

IntArray: TypeAlias = npt.NDArray[np.int64]
FloatArray: TypeAlias = npt.NDArray[np.float32]
StatusArray: TypeAlias = npt.NDArray[np.int8]
AnyArray: TypeAlias = npt.NDArray[Any]
_MOST_RUNS: Final = 64


def rows_of_each(values: IntArray) -> Iterator[tuple[int, slice | IntArray]]:
    """Yield the values of a column, each with rows that have it, in their order.

    Clients return one partition's records after the other's, so a column of partitions is a few runs: slices, which
    copy nothing. A value of several runs comes several times, in their order. Where there are many runs, a value comes
    once, with all of its rows.

    Args:
        values: `(n,)`, whole numbers.
    """
    if not values.size:
        return
    changes = np.flatnonzero(values[1:] != values[:-1]) + 1
    if changes.size < _MOST_RUNS:
        for first, end in pairwise((0, *changes.tolist(), values.size)):
            yield int(values[first]), slice(first, end)
    else:
        for value in np.unique(values).tolist():
            yield value, np.flatnonzero(values == value)
