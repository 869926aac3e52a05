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
        left_out: Rows that the settings leave out.
    """

    values: list[bytes]
    places: Sequence[int]
    faults: dict[int, RefusedValueError]
    rows: IntArray | None = None
    left_out: int = 0


class Pending:
    """Records that were read, and not handed over yet: a row may be several records."""

    def __init__(self) -> None:
        self._records: list[tuple[bytes, int, RefusedValueError | None]] = []
        self._left_out = 0

    def __len__(self) -> int:
        return len(self._records)

    def add(self, value: bytes, place: int, fault: RefusedValueError | None) -> None:
        """Take a record."""
        self._records.append((value, place, fault))

    def leave_out(self) -> None:
        """Count a row that is no record."""
        self._left_out += 1

    def take(self, most: int) -> Batch:
        """Hand over at most `most` records."""
        taken, self._records = self._records[:most], self._records[most:]
        left_out, self._left_out = self._left_out, 0
        faults = {at: fault for at, (_, _, fault) in enumerate(taken) if fault is not None}
        return Batch([value for value, _, _ in taken], [place for _, place, _ in taken], faults, left_out=left_out)
