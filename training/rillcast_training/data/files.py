"""Files of observations to raw columns: text, numbers or moments as they stand, with the place of each row.

Owns: which files can be read, and the place of a fault in them. Does not know: the forms of a value
(`rillcast_training.data.values`).
"""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec
import polars as pl

from rillcast.errors import DataError
from rillcast.reading import files
from rillcast.reading.files import CsvRows, OptionNames, Row, TextForm, UnreadableError, positions
from rillcast.reading.refusals import shown

NAMES: Final = OptionNames("--separator", "--decimal", "--encoding", "--id-column, --time-column and --value-column")
_CHUNK: Final = 100_000
Column: TypeAlias = pl.Series | list[Any]
"""A column: a series, or values of several types."""


class Raw(NamedTuple):
    """Columns by name, and a function that says where row `i` stands (`row 6 (line 7)`)."""

    columns: dict[str, Column]
    place: Callable[[int], str]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))


def read(path: Path, required: Sequence[str], optional: Sequence[str], form: TextForm) -> Raw:
    """Read columns of a `.csv`, `.jsonl` or `.ndjson` file (each also `.gz`), or of a `.parquet` file.

    Raises:
        DataError: The file cannot be read, or lacks a required column; it says the row and the likely cause.
    """
    name = path.name.lower()
    kind = name.removesuffix(".gz")
    try:
        if name.endswith(".parquet"):
            return of_frame(_parquet(path, required, optional), required, optional)
        if kind.endswith(".csv"):
            with files.open_bytes(path) as stream:
                return _csv(CsvRows(stream, form), required, optional, form)
        if kind.endswith((".jsonl", ".ndjson")):
            with files.open_bytes(path) as stream:
                return _json_lines(files.lines(stream, form.encoding), required, optional, form)
    except UnreadableError as error:
        raise DataError(f"{path}: {error}") from error
    except (EOFError, zlib.error) as error:
        raise DataError(f"{path}: the gzip file is cut short or damaged: {error}") from error
    except UnicodeError as error:
        raise DataError(f"{path}: {error}; name the encoding with --encoding") from error
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    if path.is_dir():
        raise DataError(f"{path}: a folder; only `rillcast train` with --scratch takes a folder, of Parquet")
    raise DataError(f"{path}: format unknown; expected .csv, .jsonl (each also .gz) or .parquet")


def of_frame(frame: pl.DataFrame, required: Sequence[str], optional: Sequence[str], before: int = 0) -> Raw:
    """Return columns of a table that polars has; `before` rows of its file stand before it.

    Raises:
        UnreadableError: A column is missing.
    """
    positions(frame.columns, required, NAMES)
    present = [*required, *(name for name in optional if name in frame.columns)]
    return Raw({name: frame[name] for name in present}, lambda row: f"row {before + row + 1}")


def parquet_rows(path: Path) -> int:
    """Return the number of rows of a Parquet file.

    Raises:
        DataError: The file cannot be read.
    """
    try:
        return int(pl.scan_parquet(path).select(pl.len()).collect().item())
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{path}: not readable as .parquet: {_first_line(error)}") from error


def parquet_part(path: Path, wanted: Sequence[str], before: int, rows: int) -> pl.DataFrame:
    """Return some rows of a Parquet file, with those of the wanted columns that it has.

    Raises:
        DataError: The file cannot be read.
    """
    try:
        scan = pl.scan_parquet(path)
        present = [name for name in scan.collect_schema() if name in wanted]
        return scan.select(present).slice(before, rows).collect()
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{path}: not readable as .parquet: {_first_line(error)}") from error


def _parquet(path: Path, required: Sequence[str], optional: Sequence[str]) -> pl.DataFrame:
    try:
        schema = pl.read_parquet_schema(path)
        positions(list(schema), required, NAMES)
        return pl.read_parquet(path, columns=[name for name in schema if name in (*required, *optional)])
    except pl.exceptions.PolarsError as error:
        raise UnreadableError(f"not readable as .parquet: {_first_line(error)}") from error


def _csv(rows: CsvRows, required: Sequence[str], optional: Sequence[str], form: TextForm) -> Raw:
    wanted = list(dict.fromkeys([*required, *(name for name in optional if name in rows.header)]))
    at = rows.positions(required, NAMES)
    at = rows.positions(wanted, NAMES)
    lines, frames = array("q"), []

    def place(row: int) -> str:
        return f"row {row + 1} (line {lines[row]})"

    for chunk in _chunks(rows):
        for row in chunk:
            lines.append(row.line)
            if row.fault:
                raise UnreadableError(f"{place(len(lines) - 1)}: {row.fault}")
        frames.append(_text_columns(chunk, wanted, at, lambda row: place(len(lines) - len(chunk) + row), form))  # noqa: B023
    if not frames:
        return Raw({name: pl.Series(name, [], pl.String) for name in wanted}, place)
    frame = pl.concat(frames)
    return Raw({name: frame[name] for name in wanted}, place)


def _chunks(rows: CsvRows) -> Iterable[list[Row]]:
    each = iter(rows)
    while chunk := list(islice(each, _CHUNK)):
        yield chunk


def _text_columns(
    chunk: Sequence[Row], names: Sequence[str], at: Sequence[int], place: Callable[[int], str], form: TextForm
) -> pl.DataFrame:
    columns = [list(map(itemgetter(number), (row.cells for row in chunk))) for number in at]
    try:
        return pl.DataFrame(dict(zip(names, columns, strict=True)), schema=dict.fromkeys(names, pl.String))
    except UnicodeEncodeError:  # a byte that is not of the encoding stands in a text as half a surrogate
        for number, cells in enumerate(zip(*columns, strict=True)):
            for name, cell in zip(names, cells, strict=True):
                if any("\ud800" <= letter <= "\udfff" for letter in cell):
                    found = files.not_of_encoding(cell, form, NAMES)
                    raise UnreadableError(f"column {shown(name)}, {place(number)}: {found}") from None
        raise


def _json_lines(
    lines: Iterable[tuple[int, bytes]], required: Sequence[str], optional: Sequence[str], form: TextForm
) -> Raw:
    names = list(dict.fromkeys([*required, *optional]))
    attributes = [f"m{number}" for number in range(len(names))]
    shape = msgspec.defstruct(
        "Line",
        [(attribute, Any, msgspec.UNSET) for attribute in attributes],
        rename=dict(zip(attributes, names, strict=True)),
    )
    decode = msgspec.json.Decoder(shape).decode
    numbers, records, first = array("q"), [], b""

    def place(row: int) -> str:
        return f"row {row + 1} (line {numbers[row]})"

    for number, line in lines:
        first = first or line
        numbers.append(number)
        try:
            records.append(decode(line))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise UnreadableError(f"{place(len(numbers) - 1)}: {_json_fault(line, error, form)}") from error
    columns: dict[str, Column] = {}
    for name, attribute in zip(names, attributes, strict=True):
        values = [getattr(record, attribute) for record in records]
        if any(value is not msgspec.UNSET for value in values):
            columns[name] = _typed(name, [None if value is msgspec.UNSET else value for value in values])
    if not records:
        return Raw({name: [] for name in required}, place)
    if any(name not in columns for name in required):
        seen = list(msgspec.json.decode(first, type=dict[str, Any]))
        positions([*dict.fromkeys([*seen, *columns])], required, NAMES)
    return Raw(columns, place)


def _json_fault(line: bytes, error: Exception, form: TextForm) -> str:
    if isinstance(error, UnicodeDecodeError):
        return files.not_of_encoding(line.decode("utf-8", "surrogateescape"), form, NAMES)
    if cause := files.json_cause(line):
        return f"{error}{cause}"
    return f"{error}; found {shown(line.decode('utf-8', 'replace'))}, expected one JSON object"


def _typed(name: str, values: list[Any]) -> Column:
    """Return values as a series if they are of one type."""
    try:
        series = pl.Series(name, values, strict=True)
    except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError, UnicodeEncodeError):
        return values
    return values if series.dtype == pl.Object else series


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
