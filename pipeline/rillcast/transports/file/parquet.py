"""The reader of Parquet files, which needs polars.

Owns: which columns polars turns into values of records as a whole. Does not know: the forms of a value
(`rillcast.reading`), CSV.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from rillcast.errors import DataError, SettingsError
from rillcast.reading.refusals import RefusedValueError
from rillcast.reading.values import read_id
from rillcast.transports.file.batch import Batch, Pending
from rillcast.transports.file.columns import Cell, FileColumns, column_of

_PARQUET_ROWS: Final = 65_536

_encode = msgspec.json.Encoder().encode


class ParquetReader:
    """Parquet with columns for stream, time and observation; times without a zone are UTC."""

    place = "row {row}"

    def __init__(self, path: Path, columns: FileColumns | None = None) -> None:
        pl = import_polars()
        self._columns = columns or FileColumns()
        if not path.is_file():
            raise DataError(f"input.path {path}: no such file")
        try:
            frame = pl.scan_parquet(path)
            schema = frame.collect_schema()
            self._columns.check(schema.names(), str(path))
            self._cells, expressions = _typed_cells(pl, schema, self._columns)
            self._frame = frame.select(expressions)
            self.total: int | None = int(frame.select(pl.len()).collect().item())
        except pl.exceptions.PolarsError as error:
            raise DataError(f"input.path {path} is not a Parquet file that can be read: {error}") from error
        self._path = path
        self._position = 0
        self._rows: list[tuple[bytes, RefusedValueError | None]] = []
        self._taken = 0
        self._height, self._pending = self.total, Pending()
        if self._columns.is_spread:
            self.place = "row {line}"  # the number of a record is not that of its row
            self.total = None

    @property
    def ended(self) -> bool:
        """Whether every row has been read."""
        return self._position == self._height and not self._rows and not len(self._pending)

    @property
    def share(self) -> float:
        """Share of the rows that were handed out."""
        return (self._position - len(self._rows)) / self._height if self._height else 1.0

    def read(self, max_records: int, timeout_s: float) -> Batch:  # noqa: ARG002  a file never waits
        """Return the next rows as JSON records."""
        if self._columns.is_spread:
            return self._read_spread(max_records)
        if not self._rows and self._position != self._height:
            self._rows = [self._record(row) for row in self._next_rows()]
        taken, self._rows = self._rows[:max_records], self._rows[max_records:]
        places = range(self._taken + 1, self._taken + 1 + len(taken))
        self._taken += len(taken)
        faults = {at: fault for at, (_, fault) in enumerate(taken) if fault is not None}
        return Batch([value for value, _ in taken], places, faults)

    def close(self) -> None:
        """Drop rows that were read ahead."""
        self._rows, self._pending = [], Pending()

    def _next_rows(self) -> Iterator[tuple[Any, ...]]:
        chunk = self._frame.slice(self._position, _PARQUET_ROWS).collect()
        self._position += chunk.height
        return zip(*(column.to_list() for column in chunk), strict=True)

    def _read_spread(self, max_records: int) -> Batch:
        """Return records of the next rows, each of which may be several or none."""
        names, count = [cell.column for cell in self._cells], len(self._cells) - len(self._columns.only)
        while len(self._pending) < max_records and self._position != self._height:
            first = self._position + 1
            for place, row in enumerate(self._next_rows(), start=first):
                if self._columns.left_out(dict(zip(names, row, strict=True))):
                    self._pending.leave_out()
                    continue
                for members, refused in self._columns.spread(self._cells[:count], row[:count]):
                    self._pending.add(msgspec.json.encode(members, enc_hook=str), place, refused)
        return self._pending.take(max_records)

    def _record(self, row: Sequence[Any]) -> tuple[bytes, RefusedValueError | None]:
        try:
            return _encode(self._columns.record(self._cells, row)), None
        except RefusedValueError:
            members, refused = self._columns.refused(self._cells, row)
            return msgspec.json.encode(members, enc_hook=str), refused


def import_polars() -> Any:
    """Return the polars module.

    Raises:
        SettingsError: It is not installed.
    """
    try:
        import polars
    except ImportError as error:
        raise SettingsError("Parquet needs polars: install the extra rillcast[parquet]") from error
    return polars


def _typed_cells(pl: Any, schema: Any, columns: FileColumns) -> tuple[list[Cell], list[Any]]:
    """Return the cells of a row, and the expression of each column.

    A column whose every value is what a record has needs no reader; polars turns whole columns of the usual types into
    such values.
    """
    cells, expressions = [], []
    for cell in columns.cells(schema.names()):
        kind, column = schema[cell.column], pl.col(cell.column)
        plain = None
        if cell.read is read_id and kind.is_integer():
            plain = column.cast(pl.String)
        elif cell.read is read_id and kind in (pl.Categorical, pl.Enum):
            column = column.cast(pl.String)
        elif cell.member == ("ds",) and isinstance(kind, pl.Datetime | pl.Date):
            plain = column.dt.epoch("ms")
        elif cell.member == ("ds",) and kind.is_integer() and columns.unit == "ms":
            plain = column
        elif cell.member in (("y",), ("x", cell.column)) and kind.is_decimal():
            column = column.cast(pl.Float64)
        elif cell.member == ("y",) and kind.is_integer():
            plain = column
        cells.append(cell if plain is None else cell._replace(read=None))
        expressions.append((column if plain is None else plain).alias(f"{len(cells)}"))
    for condition in columns.only:
        cells.append(Cell(("only",), column_of(condition), None))
        expressions.append(pl.col(column_of(condition)).alias(f"{len(cells)}"))
    return cells, expressions
