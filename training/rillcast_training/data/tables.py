"""Tables of observations: any long or wide file to the columns `unique_id, ds, y`.

Owns: which files can be read, the form of a time and a value, and the message that names a bad cell. Does not know:
periods, frequencies, series, models.

Invariant: the result is complete. Every row has a stream's name and a time in milliseconds since the epoch; a value is
finite, or NaN for missing. Rows keep the order of the file.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import polars as pl

from rillcast.errors import DataError
from rillcast.outputs import replacing
from rillcast_training.data.columns import Columns

_DATE: Final = r"^\d{4}-\d{2}-\d{2}$"
_NO_SECONDS: Final = r"(T\d{2}:\d{2})($|Z|[+-])"
_HAS_OFFSET: Final = r"[+-]\d{2}:?\d{2}$"
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
_TIME_EXPECTED: Final = "ISO 8601 or whole milliseconds since the epoch"


def read(path: Path, columns: Columns | None = None) -> pl.DataFrame:
    """Read a table.

    Args:
        path: `.csv`, `.csv.gz`, `.jsonl`, `.jsonl.gz`, `.ndjson`, `.ndjson.gz` or `.parquet`. A time is ISO 8601 (UTC
            if it has no offset) or whole milliseconds since the epoch; an empty, null or NaN value is missing.
        columns: Names of its columns; by default `unique_id, ds, y`.

    Returns:
        `unique_id` (String), `ds` (Int64, milliseconds since the epoch), `y` (Float64, NaN = missing), then the
        covariates: numbers (Float64, NaN = missing) and texts (String, null = missing); then those of the columns
        `future.NAME` that the table has (List(Float64), the next period first, null = missing).

    Raises:
        DataError: the file cannot be used; it says which column and row.
    """
    return conform(_read(path), columns or Columns(), str(path))


def conform(frame: pl.DataFrame, columns: Columns, source: str) -> pl.DataFrame:
    """Give a table of any column names and types the columns that `read` returns; `source` names it in errors."""
    for column in columns.all:
        if column not in frame.columns:
            raise DataError(
                f"{source}: no column {column!r}; found {frame.columns}, expected {list(columns.all)} "
                f"(name others with --id-column, --time-column and --value-column)"
            )
    if frame.is_empty():
        raise DataError(f"{source}: no rows")
    names = _names(source, frame, columns, Path(source))
    times = _times(source, frame[columns.ds])
    numbers = [_values(source, frame[name]).alias(name) for name in columns.numbers]
    texts = [_texts(frame[name]) for name in columns.texts]
    given = [FUTURE + name for name in columns.ahead if FUTURE + name in frame.columns]
    lists = [_lists(source, frame[name]) for name in given]
    parts = []
    for column in columns.y:
        own = names if len(columns.y) == 1 else _under(names if columns.unique_id else None, column, len(frame))
        values = _values(source, frame[column])
        parts.append(pl.DataFrame([own.alias("unique_id"), times.alias("ds"), values, *numbers, *texts, *lists]))
    return pl.concat(parts)


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


def _names(source: str, frame: pl.DataFrame, columns: Columns, path: Path) -> pl.Series:
    if not columns.unique_id:
        return pl.Series("unique_id", [path.name.split(".")[0]], dtype=pl.String).new_from_index(0, len(frame))
    parts = [frame[column].cast(pl.String) for column in columns.unique_id]
    for column, part in zip(columns.unique_id, parts, strict=True):
        empty = part.is_null() | (part == "").fill_null(False)
        _refuse_first(source, empty, part, column, "a stream name")
    return frame.select(pl.concat_str(parts, separator="/").alias("unique_id")).to_series()


def _under(names: pl.Series | None, column: str, rows: int) -> pl.Series:
    """Return the streams' names for one of several value columns."""
    if names is None:
        return pl.Series("unique_id", [column], dtype=pl.String).new_from_index(0, rows)
    return names + f"/{column}"


def _read(path: Path) -> pl.DataFrame:
    """Read a file by its name; CSV columns stay text, so that a bad cell can be named."""
    name = path.name.lower()
    try:
        if name.endswith(".parquet"):
            return pl.read_parquet(path)
        raw = gzip.decompress(path.read_bytes()) if name.endswith(".gz") else path.read_bytes()
        name = name.removesuffix(".gz")
        if name.endswith(".csv"):
            return pl.read_csv(raw, infer_schema=False)
        if name.endswith((".jsonl", ".ndjson")):
            return pl.read_ndjson(raw, infer_schema_length=None)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    except (pl.exceptions.PolarsError, EOFError) as error:
        raise DataError(f"{path}: not readable as {path.suffix}: {str(error).splitlines()[0]}") from error
    raise DataError(f"{path}: format unknown; expected .csv, .jsonl (each also .gz) or .parquet")


def _times(source: str, column: pl.Series) -> pl.Series:
    """Return milliseconds since the epoch."""
    if column.dtype.is_integer():
        times = column.cast(pl.Int64)
    elif column.dtype == pl.Date or isinstance(column.dtype, pl.Datetime):
        times = column.cast(pl.Datetime("ms")).cast(pl.Int64)
    elif column.dtype == pl.String:
        times = column.cast(pl.Int64, strict=False)
        if times.null_count():
            times = times.to_frame().select(pl.coalesce(times, _parse_iso(column))).to_series()
    else:
        raise DataError(f"{source}: column {column.name!r} is {column.dtype}, expected {_TIME_EXPECTED}")
    _refuse_first(source, times.is_null(), column, column.name, _TIME_EXPECTED)
    return times


def _parse_iso(column: pl.Series) -> pl.Series:
    text = column.str.strip_chars().str.replace(" ", "T", literal=True)
    text = text.set(text.str.contains(_DATE), None).fill_null(column.str.strip_chars() + "T00:00:00")
    text = text.str.replace(_NO_SECONDS, "${1}:00${2}").str.replace(r"[Zz]$", "+00:00")
    text = text.set(~text.str.contains(_HAS_OFFSET), None).fill_null(text + "+00:00")
    parsed = text.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%z", time_unit="ms", time_zone="UTC", strict=False)
    return parsed.cast(pl.Int64)


def _values(source: str, column: pl.Series) -> pl.Series:
    """Return float64 with NaN for missing values."""
    if column.dtype == pl.String:
        text = column.str.strip_chars()
        text = text.set(text == "", None)
        values = text.cast(pl.Float64, strict=False)
        bad = values.is_null() & text.is_not_null()
        _refuse_first(source, bad, column, column.name, "a number, or nothing if missing")
    elif column.dtype.is_numeric() or column.dtype == pl.Null:
        values = column.cast(pl.Float64)
    else:
        raise DataError(f"{source}: column {column.name!r} is {column.dtype}, expected numbers")
    _refuse_first(source, values.is_infinite().fill_null(False), column, column.name, "a finite number")
    return values.fill_null(float("nan")).alias("y")


def _texts(column: pl.Series) -> pl.Series:
    """Return text with null for missing or empty values."""
    text = column.cast(pl.String)
    return text.set(text == "", None)


def _lists(source: str, column: pl.Series) -> pl.Series:
    """Return lists of numbers; in CSV they are the text of a JSON list."""
    kind = pl.List(pl.Float64)
    if column.dtype == pl.String:
        text = column.str.strip_chars()
        text = text.set(text == "", None)
        found = text.map_elements(_json_list, return_dtype=kind, skip_nulls=True)
        _refuse_first(source, found.is_null() & text.is_not_null(), column, column.name, "a JSON list of numbers")
        return found
    try:
        return column.cast(kind)
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{source}: column {column.name!r} is {column.dtype}, expected lists of numbers") from error


def _json_list(text: str) -> list[float | None] | None:
    try:
        return msgspec.json.decode(text, type=list[float | None])
    except msgspec.MsgspecError:
        return None


def _refuse_first(source: str, bad: pl.Series, column: pl.Series, name: str, expected: str) -> None:
    """Raise for the first bad cell, if any; rows count from 1, the header of a CSV file aside."""
    row = bad.arg_max() if bad.any() else None
    if row is not None:
        found: Any = column[row]
        raise DataError(f"{source}: column {name!r}, row {row + 1}: found {found!r}, expected {expected}")
