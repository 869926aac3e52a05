"""Tables of observations: any long or wide file to the columns `unique_id, ds, y`.

Owns: the roles of the columns, and the files that are written. Does not know: how a file is read
(`rillcast_training.data.files`), the form of a time and a value (`rillcast_training.data.values`), periods, series.

Invariant: the result is complete. Every row has a stream's name and a time in milliseconds since the epoch; a value is
finite, or NaN for missing. Rows keep the order of the file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import polars as pl

from rillcast.errors import DataError
from rillcast.outputs import replacing
from rillcast.reading.files import UnreadableError, stream_of
from rillcast_training.data import files
from rillcast_training.data.columns import Columns
from rillcast_training.data.files import Raw
from rillcast_training.data.values import Reader

FUTURE: Final = "future."
"""Prefix of a covariate's name in the column of its values for the next periods; records in service have it too."""
_WRITERS: Final[Mapping[str, Callable[[pl.DataFrame, Path], Any]]] = {
    ".csv": pl.DataFrame.write_csv,
    ".jsonl": pl.DataFrame.write_ndjson,
    ".ndjson": pl.DataFrame.write_ndjson,
    ".parquet": pl.DataFrame.write_parquet,
}
ENDINGS: Final = (".csv", ".jsonl", ".parquet")
"""Endings of the files that `write` writes; `.ndjson` is `.jsonl`."""


def read(path: Path, columns: Columns | None = None) -> pl.DataFrame:
    """Read a table.

    Args:
        path: `.csv`, `.jsonl`, `.ndjson` (each also `.gz`) or `.parquet`. `rillcast.reading` defines the forms of times
            and values.
        columns: Names of its columns, and the form of the file; by default `unique_id, ds, y`.

    Returns:
        `unique_id` (String), `ds` (Int64, milliseconds since the epoch), `y` (Float64, NaN = missing), then the
        covariates: numbers (Float64, NaN = missing) and texts (String, null = missing); then those of the columns
        `future.NAME` that the table has (List(Float64), the next period first, null = missing).

    Raises:
        DataError: the file cannot be used; it says which column and row.
    """
    columns = columns or Columns()
    raw = files.read(path, columns.all, [FUTURE + name for name in columns.ahead], columns.form)
    return _conformed(raw, columns, str(path))


def conform(frame: pl.DataFrame, columns: Columns, source: str, before: int = 0) -> pl.DataFrame:
    """Give a table of any column names and types the columns that `read` returns.

    `source` names it in errors; `before` rows of that file stand before it.
    """
    try:
        raw = files.of_frame(frame, columns.all, [FUTURE + name for name in columns.ahead], before)
    except UnreadableError as error:
        raise DataError(f"{source}: {error}") from error
    return _conformed(raw, columns, source)


def write(path: Path, frame: pl.DataFrame) -> None:
    """Write `unique_id, ds, y` to a `.csv`, `.jsonl` or `.parquet` file; a missing value is left empty.

    Raises:
        DataError: the name has another ending.
        OutputError: the file cannot be written.
    """
    frame = frame.with_columns(pl.col("y").fill_nan(None))
    write = next((write for ending, write in _WRITERS.items() if path.name.lower().endswith(ending)), None)
    if write is None:
        raise DataError(f"{path}: format unknown; expected .csv, .jsonl or .parquet")
    with replacing(path) as partial:
        write(frame, partial)


def _conformed(raw: Raw, columns: Columns, source: str) -> pl.DataFrame:
    if not len(raw):
        raise DataError(f"{source}: no rows")
    given, reader = raw.columns, Reader(source, raw.place, columns.unit, columns.form.decimal)
    parts_of_ids = [reader.ids(name, given[name]) for name in columns.unique_id]
    times = reader.times(columns.ds, given[columns.ds]).alias("ds")
    numbers = [reader.numbers(name, given[name]) for name in columns.numbers]
    texts = [reader.categories(name, given[name]) for name in columns.texts]
    lists = [reader.lists(name, given[name]) for name in (FUTURE + one for one in columns.ahead) if name in given]
    parts = []
    if not columns.y:
        missing = pl.Series("y", [float("nan")]).new_from_index(0, len(raw))
        ids = _ids(parts_of_ids, Path(source), len(raw))
        return pl.DataFrame([ids, times, missing, *numbers, *texts, *lists])
    for column in columns.y:
        own = [] if len(columns.y) == 1 else [pl.Series([column], dtype=pl.String).new_from_index(0, len(raw))]
        ids = _ids([*parts_of_ids, *own], Path(source), len(raw))
        y = reader.numbers(column, given[column], limited=True).alias("y")
        parts.append(pl.DataFrame([ids, times, y, *numbers, *texts, *lists]))
    return pl.concat(parts)


def _ids(parts: Sequence[pl.Series], path: Path, rows: int) -> pl.Series:
    r"""Return the streams' ids for the columns that name them; a `/` within a part is written `\/`.

    `rillcast.reading.values.join_ids` does the same for one row.
    """
    if not parts:
        return pl.Series("unique_id", [stream_of(path)], dtype=pl.String).new_from_index(0, rows)
    if len(parts) == 1:
        return parts[0].alias("unique_id")
    named = [
        one.str.replace_all("\\", "\\\\", literal=True).str.replace_all("/", "\\/", literal=True).alias(str(number))
        for number, one in enumerate(parts)
    ]
    return pl.select(pl.concat_str(named, separator="/").alias("unique_id")).to_series()
