"""Readers of observation files: each turns one format into raw JSON records, a chunk at a time.

Owns: JSON Lines, CSV and Parquet, and standard input. Does not know: offsets, pacing, the forms of a value
(`rillcast.reading`). Nothing is dropped here: a row that cannot become a record is handed over with its fault, so that
it becomes a dead letter with its reason. Blank lines are no records.
"""

from __future__ import annotations

import codecs
import contextlib
import itertools
import os
import select
import time
import zlib
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from operator import itemgetter
from pathlib import Path
from typing import IO, Final, Protocol

import msgspec

from rillcast.errors import DataError, SettingsError, TransportError
from rillcast.reading import files
from rillcast.reading.files import TextForm, UnreadableError
from rillcast.reading.refusals import RefusedValueError
from rillcast.reading.values import read_number
from rillcast.settings.input import METRIC_FORMATS
from rillcast.transports.file.batch import Batch, Pending
from rillcast.transports.file.columns import NAMES, FileColumns
from rillcast.transports.file.parquet import ParquetReader

_READ_BYTES: Final = 1 << 20
_TIMES: Final = 32_768  # cells whose time is remembered: three years of hours, some 6 MB
_PLAIN: Final = ("unique_id", "ds", "y")

_encode = msgspec.json.Encoder().encode


class Reader(Protocol):
    """A file that is being read."""

    @property
    def place(self) -> str:
        """Form of the place of a record, with `row` and `line`."""
        ...

    @property
    def ended(self) -> bool:
        """Whether every record has been read."""
        ...

    @property
    def total(self) -> int | None:
        """Number of records; None while it is unknown."""
        ...

    @property
    def share(self) -> float | None:
        """Share of the file that is read, 0 to 1; None = unknown."""
        ...

    def read(self, max_records: int, timeout_s: float) -> Batch:
        """Return at most `max_records` raw records; only a pipe waits, at most `timeout_s`."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...


def open_reader(
    path: str, file_format: str, columns: FileColumns | None = None, form: TextForm | None = None
) -> Reader:
    """Open `path` (`-` is standard input) as `json`, `csv`, `parquet`, or by its name (`auto`).

    Metrics (`telegraf`, `influx`) are lines, like JSON.

    `columns` names the columns of CSV and Parquet; by default they are named like the members of a record. `form` says
    how a text file is written.

    Raises:
        SettingsError: The name has no known ending, or the path cannot be read in that format.
        DataError: The file does not exist, does not have the format, or lacks a column.
    """
    if path == "-":
        if file_format not in ("auto", "json", *METRIC_FORMATS):
            raise SettingsError(
                f"input.format is {file_format!r}, but standard input has records of one line each; set it to json, "
                f"{' or '.join(METRIC_FORMATS)}"
            )
        return PipeReader()
    chosen, form = _format_of(path) if file_format == "auto" else file_format, form or TextForm()
    try:
        if chosen == "parquet":
            return ParquetReader(Path(path), columns)
        stream = files.open_bytes(Path(path))
        if chosen == "csv":
            return CsvReader(stream, path, columns, form)
        return _line_reader(stream, path, form.encoding)
    except UnreadableError as error:
        raise DataError(f"input.path {path}: {error}") from error
    except OSError as error:
        raise DataError(f"input.path {path}: {error.strerror or error}") from error


class LineReader:
    """JSON Lines in UTF-8 with LF or CRLF: every line that is not blank is a record."""

    place = "line {line}"
    total: int | None = None

    def __init__(self, stream: IO[bytes], name: str) -> None:
        self._stream, self._name = stream, name
        self._line = 0
        self.ended = False

    @property
    def share(self) -> float:
        """Share of the file's bytes that is read."""
        return _share(self._stream)

    def read(self, max_records: int, timeout_s: float) -> Batch:  # noqa: ARG002  a file never waits
        """Return the next lines without the blanks at their ends."""
        with _reading(self._name):
            lines = list(itertools.islice(self._stream, max_records))
        self.ended = len(lines) < max_records
        first, self._line = self._line + 1, self._line + len(lines)
        if first == 1 and lines:
            lines[0] = lines[0].removeprefix(codecs.BOM_UTF8)
        return _without_blanks(lines, first)

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


class DecodedLineReader:
    """JSON Lines of another encoding, or with lines that end with CR."""

    place = "line {line}"
    total: int | None = None

    def __init__(self, stream: IO[bytes], name: str, encoding: str) -> None:
        self._stream, self._name = stream, name
        self._lines = files.lines(stream, encoding)
        self.ended = False

    @property
    def share(self) -> float:
        """Share of the file's bytes that is read."""
        return _share(self._stream)

    def read(self, max_records: int, timeout_s: float) -> Batch:  # noqa: ARG002  a file never waits
        """Return the next lines."""
        with _reading(self._name):
            found = list(itertools.islice(self._lines, max_records))
        self.ended = len(found) < max_records
        return Batch([line for _, line in found], [number for number, _ in found], {})

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


class PipeReader:
    """JSON Lines from a file descriptor that may stay silent; it waits with `select`, so Ctrl-C and time-outs work."""

    place = "line {line}"
    total: int | None = None
    share: float | None = None

    def __init__(self, descriptor: int = 0) -> None:
        self._descriptor = descriptor
        self._lines: list[bytes] = []
        self._places: list[int] = []
        self._line = 0
        self._partial: list[bytes] = []
        self._closed = False

    @property
    def ended(self) -> bool:
        """Whether the writer has closed the pipe and every line has been read."""
        return self._closed and not self._lines

    def read(self, max_records: int, timeout_s: float) -> Batch:
        """Return the lines that are there, waiting at most `timeout_s` for a first one."""
        deadline = time.monotonic() + timeout_s
        while not self._lines and not self._closed:
            remaining = max(0.0, deadline - time.monotonic())
            if not select.select([self._descriptor], [], [], remaining)[0]:
                return Batch([], [], {})
            self._take(os.read(self._descriptor, _READ_BYTES))
        taken, self._lines = self._lines[:max_records], self._lines[max_records:]
        places, self._places = self._places[:max_records], self._places[max_records:]
        return Batch(taken, places, {})

    def close(self) -> None:
        """Stop reading; the owner of the descriptor closes it."""
        self._closed = True
        self._lines = []

    def _take(self, data: bytes) -> None:
        if not data:
            self._closed = True
            self._append([b"".join(self._partial)])
            return
        first, *lines = data.split(b"\n")
        self._partial.append(first)
        if lines:
            complete = [b"".join(self._partial), *lines[:-1]]
            self._partial = [lines[-1]]
            self._append(complete)

    def _append(self, lines: list[bytes]) -> None:
        if not self._line and lines:
            lines[0] = lines[0].removeprefix(codecs.BOM_UTF8)
        found = _without_blanks(lines, self._line + 1)
        self._line += len(lines)
        self._lines += found.values
        self._places += found.places


class CsvReader:
    """CSV with a header that names at least stream, time and observation; other columns are left out.

    A row with a fault is handed over with its reason. One with more or fewer fields than the header is a JSON array of
    its cells, and one with a cell that cannot be read is a record with that cell unchanged. A row that is not of the
    encoding is handed over as its bytes.
    """

    place = "row {row} (line {line})"
    total: int | None = None

    def __init__(
        self, stream: IO[bytes], name: str, columns: FileColumns | None = None, form: TextForm | None = None
    ) -> None:
        self._stream, self._name = stream, name
        self._columns, self._form = columns or FileColumns(), form or TextForm()
        self.ended = False
        with _reading(name):
            try:
                rows = files.CsvRows(stream, self._form)
            except UnreadableError as error:
                raise DataError(f"input.path {name}: {error}") from error
        self._columns.check(rows.header, name, self._form)
        self._rows = iter(rows)
        self._cells = self._columns.cells(rows.header, self._form.decimal)
        self._take = itemgetter(*(rows.header.index(cell.column) for cell in self._cells))
        self._header = rows.header
        self._pending = Pending()
        self._at_end = False
        if self._columns.is_spread:
            self.place = "line {line}"  # the number of a record is not that of its row
        # The streams of a file mostly share their times.
        self._of_time = lru_cache(_TIMES)(self._columns.time)
        self._of_number = partial(read_number, decimal=self._form.decimal)

    @property
    def share(self) -> float:
        """Share of the file's bytes that is read."""
        return _share(self._stream)

    def read(self, max_records: int, timeout_s: float) -> Batch:  # noqa: ARG002  a file never waits
        """Return the next rows as JSON records."""
        if self._columns.is_spread:
            return self._read_spread(max_records)
        batch = Batch([], [], {})
        places: list[int] = []
        with _reading(self._name):
            for line, cells, fault in itertools.islice(self._rows, max_records):
                value, refused = self._record(cells, fault)
                if refused is not None:
                    batch.faults[len(places)] = refused
                batch.values.append(value)
                places.append(line)
        self.ended = len(places) < max_records
        return batch._replace(places=places)

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def _read_spread(self, max_records: int) -> Batch:
        """Return records of the next rows, each of which may be several or none."""
        with _reading(self._name):
            while len(self._pending) < max_records and not self._at_end:
                rows = list(itertools.islice(self._rows, max_records))
                self._at_end = len(rows) < max_records
                for line, cells, fault in rows:
                    if not fault and self._columns.left_out(dict(zip(self._header, cells, strict=True))):
                        self._pending.leave_out()
                        continue
                    for value, refused in self._records(cells, fault):
                        self._pending.add(value, line, refused)
        batch = self._pending.take(max_records)
        self.ended = self._at_end and not len(self._pending)
        return batch

    def _records(self, cells: list[str], fault: str) -> list[tuple[bytes, RefusedValueError | None]]:
        """Return the records of a row, and why each cannot be read."""
        if fault:
            return [self._record(cells, fault)]
        try:
            found = self._columns.spread(self._cells, self._take(cells))
            return [(_encode(members), refused) for members, refused in found]
        except UnicodeEncodeError:
            return [self._not_of_encoding(cells)]

    def _record(self, cells: list[str], fault: str) -> tuple[bytes, RefusedValueError | None]:
        """Return the record of a row, and why it cannot be read."""
        try:
            if fault:
                return _encode(cells), RefusedValueError("wrong_type", fault)
            row = self._take(cells)
            try:
                if len(row) == len(_PLAIN) and self._columns.unique_id and row[0]:  # the usual row, without a loop
                    time, number = self._of_time, self._of_number
                    return _encode({"unique_id": row[0], "ds": time(row[1]), "y": number(row[2])}), None
                return _encode(self._columns.record(self._cells, row)), None
            except RefusedValueError:
                members, refused = self._columns.refused(self._cells, row)
                return _encode(members), refused
        except UnicodeEncodeError:
            return self._not_of_encoding(cells)

    def _not_of_encoding(self, cells: list[str]) -> tuple[bytes, RefusedValueError]:
        text = self._form.separator.join(cells)
        detail = files.not_of_encoding(text, self._form, NAMES)
        return text.encode("utf-8", "surrogateescape"), RefusedValueError("not_utf8", detail)


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


def _line_reader(stream: IO[bytes], name: str, encoding: str) -> LineReader | DecodedLineReader:
    if files.is_plain(stream, encoding):
        return LineReader(stream, name)
    return DecodedLineReader(stream, name, encoding)


def _share(stream: IO[bytes]) -> float:
    """Return the share of a file's bytes, packed ones of gzip, that were taken from the disk."""
    if stream.closed:  # whoever reads text closes it at its end
        return 1.0
    size = os.fstat(stream.fileno()).st_size
    return os.lseek(stream.fileno(), 0, os.SEEK_CUR) / size if size else 1.0


def _without_blanks(lines: Sequence[bytes], first: int) -> Batch:
    """Return lines that are not blank, without the blanks at their ends, and their numbers."""
    values = [stripped for line in lines if (stripped := line.rstrip())]
    if len(values) == len(lines):
        return Batch(values, range(first, first + len(lines)), {})
    return Batch(values, [number for number, line in enumerate(lines, first) if line.rstrip()], {})


@contextlib.contextmanager
def _reading(name: str) -> Iterator[None]:
    """Name the file whose reading failed: a cut gzip stream, a disk error."""
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        raise TransportError(f"input.path {name}: reading failed: {error}") from error
    except UnicodeError as error:
        raise DataError(f"input.path {name}: {error}; set input.encoding") from error
