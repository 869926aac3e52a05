"""The first rows of a file that nobody has described: its separator, decimal sign and encoding are found.

Owns: how the form of a text file is found. Does not know: what the columns mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

import msgspec

from rillcast.discovery import columns
from rillcast.discovery.columns import Column
from rillcast.errors import DataError, SettingsError
from rillcast.reading import files
from rillcast.reading.files import TextForm, UnreadableError

_SEPARATORS: Final = (",", ";", "\t", "|")
_ENCODINGS: Final = ("utf-8", "cp1252", "latin-1")


def read(path: Path, form: TextForm, most: int) -> tuple[TextForm, list[Any]]:
    """Return how a file is written, and at most `most` of its first rows by the names of their columns.

    Args:
        path: CSV, Parquet or JSON Lines, by its name.
        form: What is known of its form; parts that are as usual are found.
        most: Rows to read.

    Raises:
        DataError: The file does not exist, or cannot be read.
        SettingsError: The reader of its format is not installed.
    """
    name = path.name.lower().removesuffix(".gz")
    if not path.is_file():
        raise DataError(f"input.path {path}: there is no such file")
    try:
        if name.endswith(".csv"):
            return _csv(path, form, most)
        rows = _parquet(path, most) if name.endswith(".parquet") else _json_lines(path, form)
        return form, list(islice(rows, most))
    except (OSError, UnreadableError, UnicodeError) as error:
        raise DataError(f"input.path {path}: {error}") from error


def _csv(path: Path, form: TextForm, most: int) -> tuple[TextForm, list[dict[str, Any]]]:
    """Return how a CSV file is written, and its first rows."""
    usual = TextForm()
    separators = _SEPARATORS if form.separator == usual.separator else (form.separator,)
    encodings = _ENCODINGS if form.encoding == usual.encoding else (form.encoding,)
    best: tuple[TextForm, list[dict[str, Any]]] = (form, [])
    width = 0
    for separator in separators:
        tried = TextForm(separator, form.decimal, form.encoding)
        with files.open_bytes(path) as stream:
            rows = files.CsvRows(stream, tried)
            header = rows.header
            some = [dict(zip(header, row.cells, strict=True)) for row in islice(rows, most) if not row.fault]
        if some and len(header) > width:
            best, width = (tried, some), len(header)
    tried, rows_found = best
    encoding = next((name for name in encodings if _is_of(rows_found, name)), form.encoding)
    tried = TextForm(tried.separator, tried.decimal, encoding)
    if tried.separator != "," and form.decimal == usual.decimal and _has_commas(rows_found):
        tried = TextForm(tried.separator, ",", encoding)
    if encoding != form.encoding:
        return _csv(path, tried, most)
    return tried, rows_found


def _is_of(rows: Sequence[Mapping[str, Any]], encoding: str) -> bool:
    """Whether text that was read as UTF-8 is of an encoding; bytes that are not UTF-8 were kept as surrogates."""
    if encoding == "utf-8":
        return not any("\udc80" <= letter <= "\udcff" for row in rows for cell in row.values() for letter in cell)
    try:
        for row in rows:
            for cell in row.values():
                cell.encode("utf-8", "surrogateescape").decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _has_commas(rows: Sequence[Mapping[str, str]]) -> bool:
    """Whether some column has numbers with decimal commas, and none with decimal points."""
    found = columns.of_members(rows)
    return any(not column.is_numeric and with_points(column).is_numeric for column in found)


def with_points(column: Column) -> Column:
    """Return a column with a decimal point in place of a comma in every number."""
    values = [value.replace(",", ".") if isinstance(value, str) else value for value in column.values]
    changed = Column(column.source, column.name, values)
    return changed if changed.is_numeric else column


def _json_lines(path: Path, form: TextForm) -> Iterator[Any]:
    decode = msgspec.json.Decoder(dict[str, Any]).decode
    with files.open_bytes(path) as stream:
        for _, line in files.lines(stream, form.encoding):
            try:
                yield decode(line)
            except (msgspec.MsgspecError, UnicodeError):
                yield None


def _parquet(path: Path, most: int) -> Iterator[dict[str, Any]]:
    try:
        import polars
    except ImportError as error:
        raise SettingsError("Parquet needs polars: install the extra rillcast[parquet]") from error
    yield from polars.scan_parquet(path).head(most).collect().iter_rows(named=True)
