"""What a reader of a file hands over: records, where they stand, and which of them have a fault."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rillcast.arrays import IntArray
from rillcast.reading.refusals import RefusedValueError


class Batch(NamedTuple):
    """Raw records that were read together.

    Attributes:
        values: Records.
        places: Line of each record in a text file, its row in Parquet.
        faults: By index of a record, why it cannot be read.
        rows: `(n,)` int64, number of each record in the file, from 0; None = they follow those that were read before.
    """

    values: list[bytes]
    places: Sequence[int]
    faults: dict[int, RefusedValueError]
    rows: IntArray | None = None
