"""Series of Parquet files that do not fit into memory.

Owns: the order in which such a table is read. Does not know: forms of values (`rillcast_training.data.tables`), what
becomes of the series.

The files are read some rows at a time and distributed over files of whole streams; each of these is then made into
series as a whole table would be, and its arrays are kept on the disk. So memory holds a part of the rows, the names of
the streams, and the longest stream.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from typing import IO, Final

import numpy as np
import polars as pl

from rillcast.errors import DataError
from rillcast_training.data import files, tables
from rillcast_training.data.columns import Columns
from rillcast_training.data.scratch import Scratch
from rillcast_training.data.series import Series, require_likely_times, to_series

ROWS: Final = 500_000
"""Rows that are read at a time, and about as many observations of whole streams are made into series."""
_MOST_PARTS: Final = 256  # each is an open file
_RECORD: Final = np.dtype([("stream", np.int32), ("ds", np.int64), ("y", np.float64)])


def load(source: Path, freq: str, columns: Columns | None, scratch: Scratch, *, rows: int = ROWS) -> list[Series]:
    """Return the series of a Parquet file, or of all Parquet files below a folder, by name; their arrays on the disk.

    They are those that `series.load` returns, but for one rule: dates that are outlying for all streams together are
    looked for among the streams of a part.

    Args:
        source: The file or folder.
        freq: Frequency of the periods.
        columns: Names of the columns; by default `unique_id, ds, y`.
        scratch: Keeps the arrays.
        rows: Rows to read at a time.

    Raises:
        DataError: the data cannot be used; it says which file, column and row.
        OutputError: the disk cannot be written.
    """
    columns = columns or Columns()
    found = _files(source)
    total = sum(files.parquet_rows(path) for path in found) * max(len(columns.y), 1)
    parts = [scratch.file() for _ in range(min(max(-(-total // rows), 1), _MOST_PARTS))]
    names = _distribute(found, columns, scratch, parts, rows)
    series: list[Series] = []
    for part in parts:
        frame = _frame(part, names)
        part.close()
        if len(frame):
            require_likely_times(frame, freq, source)
            series += [
                replace(one, periods=scratch.keep(one.periods), y=scratch.keep(one.y)) for one in to_series(frame, freq)
            ]
    if not series:
        raise DataError(f"{source}: no rows")
    return sorted(series, key=attrgetter("unique_id"))


def _files(source: Path) -> list[Path]:
    """Return the Parquet files, in the order of their names.

    Raises:
        DataError: There is none.
    """
    if not source.is_dir():
        if source.suffix != ".parquet":
            raise DataError(f"{source}: --scratch takes Parquet, one file or a folder of them")
        return [source]
    if not (found := sorted(source.rglob("*.parquet"))):
        raise DataError(f"{source}: no file in this folder ends with .parquet")
    return found


def _distribute(
    found: Sequence[Path], columns: Columns, scratch: Scratch, parts: Sequence[IO[bytes]], rows: int
) -> pl.Series:
    """Write every row into the part of its stream, in the order of the files; return the streams' names by number."""
    numbers: dict[str, int] = {}
    for frame in _frames(found, columns, rows):
        names = frame["unique_id"].unique(maintain_order=True).to_list()
        own = [numbers.setdefault(name, len(numbers)) for name in names]
        records = np.empty(len(frame), _RECORD)
        records["stream"] = frame["unique_id"].replace_strict(names, own, return_dtype=pl.Int32).to_numpy()
        records["ds"], records["y"] = frame["ds"].to_numpy(), frame["y"].to_numpy()
        part = records["stream"] % len(parts)
        order = np.argsort(part, kind="stable")
        ends = np.searchsorted(part[order], np.arange(len(parts)), side="right")
        for file, chosen in zip(parts, np.split(order, ends[:-1]), strict=True):
            scratch.append(file, records[chosen])
    return pl.Series("unique_id", list(numbers), pl.String)


def _frames(found: Sequence[Path], columns: Columns, rows: int) -> Iterator[pl.DataFrame]:
    for path in found:
        for before in range(0, files.parquet_rows(path), rows):
            part = files.parquet_part(path, columns.all, before, rows)
            yield tables.conform(part, columns, str(path), before=before)


def _frame(part: IO[bytes], names: pl.Series) -> pl.DataFrame:
    part.seek(0)
    records = np.frombuffer(part.read(), _RECORD)
    ids = names.gather(records["stream"]) if len(records) else names.clear()
    return pl.DataFrame(
        {"unique_id": ids, "ds": np.ascontiguousarray(records["ds"]), "y": np.ascontiguousarray(records["y"])}
    )
