"""Readers of observation files: each turns one format into raw JSON records, a chunk at a time.

Owns: JSON Lines, CSV and Parquet (and gzip for the first two), and standard input. Does not know: offsets, pacing, or
whether a record is valid. Nothing is dropped here: a row that cannot become a record is handed over in a form that the
decoder refuses, so that it becomes a dead letter with its reason.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import itertools
import logging
import os
import select
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final, Protocol

import msgspec

from rillcast.errors import DataError, SettingsError, TransportError
from rillcast.transports.file.columns import FileColumns, category, finite, number, numbers, record

log = logging.getLogger(__name__)

_READ_BYTES: Final = 1 << 20
_PARQUET_ROWS: Final = 65_536

_encode = msgspec.json.Encoder().encode


class Reader(Protocol):
    """A file that is being read."""

    @property
    def ended(self) -> bool:
        """Whether every record has been read."""
        ...

    @property
    def total(self) -> int | None:
        """Number of records; None while it is unknown."""
        ...

    def read(self, max_records: int, timeout_s: float) -> list[bytes]:
        """Return at most `max_records` raw records; only a pipe waits, at most `timeout_s`."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...


def open_reader(path: str, file_format: str, columns: FileColumns | None = None) -> Reader:
    """Open `path` (`-` is standard input) as `json`, `csv`, `parquet`, or by its name (`auto`).

    `columns` names the columns of CSV and Parquet; by default they are named like the members of a record.

    Raises:
        SettingsError: The name has no known ending, or the path cannot be read in that format.
        DataError: The file does not exist, does not have the format, or lacks a column.
    """
    if path == "-":
        if file_format not in ("auto", "json"):
            raise SettingsError(
                f"input.format is {file_format!r}, but standard input must be JSON Lines; set it to json"
            )
        return PipeReader()
    chosen = _format_of(path) if file_format == "auto" else file_format
    try:
        if chosen == "parquet":
            return ParquetReader(Path(path), columns)
        stream = _open_binary(Path(path))
        return CsvReader(stream, path, columns) if chosen == "csv" else LineReader(stream, path)
    except OSError as error:
        raise DataError(f"input.path {path}: {error.strerror or error}") from error


class LineReader:
    """JSON Lines: every line is a record, an empty one too."""

    total: int | None = None

    def __init__(self, stream: IO[bytes], name: str) -> None:
        self._stream = stream
        self._name = name
        self.ended = False

    def read(self, max_records: int, timeout_s: float) -> list[bytes]:  # noqa: ARG002  a file never waits
        """Return the next lines without their ends."""
        with _reading(self._name):
            lines = list(itertools.islice(self._stream, max_records))
        self.ended = len(lines) < max_records
        return [line.rstrip(b"\r\n") for line in lines]

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


class PipeReader:
    """JSON Lines from a file descriptor that may stay silent; it waits with `select`, so Ctrl-C and time-outs work."""

    total: int | None = None

    def __init__(self, descriptor: int = 0) -> None:
        self._descriptor = descriptor
        self._lines: list[bytes] = []
        self._partial: list[bytes] = []
        self._closed = False

    @property
    def ended(self) -> bool:
        """Whether the writer has closed the pipe and every line has been read."""
        return self._closed and not self._lines

    def read(self, max_records: int, timeout_s: float) -> list[bytes]:
        """Return the lines that are there, waiting at most `timeout_s` for a first one."""
        deadline = time.monotonic() + timeout_s
        while not self._lines and not self._closed:
            remaining = max(0.0, deadline - time.monotonic())
            if not select.select([self._descriptor], [], [], remaining)[0]:
                return []
            self._take(os.read(self._descriptor, _READ_BYTES))
        taken, self._lines = self._lines[:max_records], self._lines[max_records:]
        return taken

    def close(self) -> None:
        """Stop reading; the owner of the descriptor closes it."""
        self._closed = True
        self._lines = []

    def _take(self, data: bytes) -> None:
        if not data:
            self._closed = True
            if rest := b"".join(self._partial):
                self._lines.append(rest.rstrip(b"\r"))
            return
        first, *lines = data.split(b"\n")
        self._partial.append(first)
        if lines:
            complete = [b"".join(self._partial), *lines[:-1]]
            self._lines = [line.rstrip(b"\r") for line in complete]
            self._partial = [lines[-1]]


class CsvReader:
    """CSV with a header that names at least stream, time and observation; other columns are left out.

    `unique_id` stays text. `ds` becomes a number if it is a whole number. `y` becomes a number if it is finite, and
    null if it is empty or NaN. Any other text is unchanged. A row with more or fewer fields than the header is handed
    over as a JSON array, and a row that is not UTF-8 as its bytes: the decoder accepts neither as a record.
    """

    total: int | None = None

    def __init__(self, stream: IO[bytes], name: str, columns: FileColumns | None = None) -> None:
        self._stream = stream
        self._name = name
        self._columns = columns or FileColumns()
        self.ended = False
        text = io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="")
        self._rows = csv.reader(text)
        with _reading(name):
            header = [column.strip() for column in next(self._rows, [])]
        self._width = len(header)
        self._columns.check(header, name)
        self._positions = [header.index(column) for column in self._columns.required]
        now, future = self._columns.of_now(header), self._columns.of_future(header)
        self._x = [
            (one, header.index(at), category if self._columns.is_text(one) else number) for one, at in now.items()
        ]
        self._future = [(one, header.index(at)) for one, at in future.items()]

    def read(self, max_records: int, timeout_s: float) -> list[bytes]:  # noqa: ARG002  a file never waits
        """Return the next rows as JSON records."""
        with _reading(self._name):
            records = list(itertools.islice(self._records(), max_records))
        self.ended = len(records) < max_records
        return records

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def _records(self) -> Iterator[bytes]:
        (unique_id, ds, y), time_of = self._positions, self._columns.text_time
        while True:
            try:
                row = next(self._rows, None)
            except csv.Error as error:  # a field beyond the csv module's limit; the next row is read as usual
                yield _encode([f"line {self._rows.line_num}: {error}"])
                continue
            if row is None:
                return
            try:
                if len(row) != self._width:
                    yield _encode(row)
                else:
                    x = {name: read(row[at]) for name, at, read in self._x}
                    future = {name: numbers(row[at]) for name, at in self._future}
                    yield _encode(record(row[unique_id], time_of(row[ds]), number(row[y]), x, future))
            except UnicodeEncodeError:
                yield ",".join(row).encode("utf-8", "surrogateescape")


class ParquetReader:
    """Parquet with columns for stream, time and observation; times without a zone are UTC."""

    def __init__(self, path: Path, columns: FileColumns | None = None) -> None:
        pl = import_polars()
        self._columns = columns or FileColumns()
        if not path.is_file():
            raise DataError(f"input.path {path}: no such file")
        try:
            frame = pl.scan_parquet(path)
            schema = frame.collect_schema()
            self._columns.check(schema.names(), str(path))
            self._x = self._columns.of_now(schema.names())
            self._future = self._columns.of_future(schema.names())
            self._frame = frame.select(_json_columns(pl, schema, self._columns))
            self.total: int | None = int(frame.select(pl.len()).collect().item())
        except pl.exceptions.PolarsError as error:
            raise DataError(f"input.path {path} is not a Parquet file that can be read: {error}") from error
        self._path = path
        self._position = 0
        self._rows: list[bytes] = []

    @property
    def ended(self) -> bool:
        """Whether every row has been read."""
        return self._position == self.total and not self._rows

    def read(self, max_records: int, timeout_s: float) -> list[bytes]:  # noqa: ARG002  a file never waits
        """Return the next rows as JSON records."""
        if not self._rows and self._position != self.total:
            chunk = self._frame.slice(self._position, _PARQUET_ROWS).collect()
            self._position += chunk.height
            rows = zip(*(chunk[name].to_list() for name in self._columns.required), strict=True)
            xs = _by_row({one: chunk[column].to_list() for one, column in self._x.items()}, chunk.height)
            futures = _by_row({one: chunk[column].to_list() for one, column in self._future.items()}, chunk.height)
            self._rows = [
                _encode(record(unique_id, ds, finite(y), x, future))
                for (unique_id, ds, y), x, future in zip(rows, xs, futures, strict=True)
            ]
        taken, self._rows = self._rows[:max_records], self._rows[max_records:]
        return taken

    def close(self) -> None:
        """Drop rows that were read ahead."""
        self._rows = []


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


def _format_of(path: str) -> str:
    name = path.lower().removesuffix(".gz")
    for suffix, file_format in {
        ".csv": "csv",
        ".jsonl": "json",
        ".ndjson": "json",
        ".json": "json",
        ".parquet": "parquet",
    }.items():
        if name.endswith(suffix):
            return file_format
    raise SettingsError(f"input.path {path}: unknown format, expected .csv, .jsonl, .parquet or .gz; set input.format")


def _open_binary(path: Path) -> IO[bytes]:
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rb")  # type: ignore[return-value]  # a GzipFile is a binary file object
    return path.open("rb")


@contextlib.contextmanager
def _reading(name: str) -> Iterator[None]:
    """Name the file whose reading failed: a cut gzip stream, a disk error."""
    try:
        yield
    except (OSError, EOFError) as error:
        raise TransportError(f"input.path {name}: reading failed: {error}") from error


def _by_row(columns: dict[str, list[Any]], rows: int) -> list[dict[str, Any]]:
    """Return columns as one object per row."""
    if not columns:
        return [{}] * rows
    return [dict(zip(columns, map(finite, values), strict=True)) for values in zip(*columns.values(), strict=True)]


def _json_columns(pl: Any, schema: Any, columns: FileColumns) -> list[Any]:
    """Return expressions that turn each column into values for JSON; the decoder judges other types."""
    ds = pl.col(columns.ds)
    if isinstance(schema[columns.ds], pl.Datetime | pl.Date):
        ds = ds.dt.epoch("ms")
    elif schema[columns.ds].is_integer() and columns.scale != (1, 1):
        ds = ds.cast(pl.Int64) * columns.scale[0] // columns.scale[1]
    unique_id = pl.col(columns.unique_id)
    if not schema[columns.unique_id].is_nested():
        unique_id = unique_id.cast(pl.String)
    others = [columns.y, *columns.of_now(schema.names()).values()]
    numeric = [pl.col(name).fill_nan(None) if schema[name].is_float() else pl.col(name) for name in others]
    return [unique_id, ds, *numeric, *(pl.col(name) for name in columns.of_future(schema.names()).values())]
