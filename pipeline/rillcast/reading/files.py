"""Text files: gzip, encodings, rows of CSV and lines of JSON, each with its line number.

A file is what its first bytes say. gzip is unpacked by its mark; a mark of UTF-8 or UTF-16 at the beginning is obeyed.
Blank lines, and rows of CSV in which every cell is blank, are no records. Lines end with LF, CRLF or CR.

Owns: how a file becomes rows of text or lines of bytes, and the likely cause where it does not. Does not know: the
meaning of a cell or a member.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

from rillcast.reading.refusals import RefusedValueError, listed, shown
from rillcast.reading.times import read_time
from rillcast.reading.values import read_number

_GZIP: Final = b"\x1f\x8b"
_UTF16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_FOREIGN: Final = {
    b"PK\x03\x04": "a zip archive or an Excel file",
    b"PAR1": "Parquet",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
}
_PEEK_BYTES: Final = 8_192
_SEPARATORS: Final = {";": "';'", "\t": "'\\t'", "|": "'|'"}


class UnreadableError(Exception):
    """A file is not what it should be; the message says the likely cause."""


@dataclass(frozen=True, slots=True)
class TextForm:
    r"""How a text file is written.

    Attributes:
        separator: Between the cells of CSV, one character.
        decimal: Between the whole part and the fraction of a number in CSV, `.` or `,`.
        encoding: Python's name of the encoding; a mark of UTF-16 at the beginning overrides `utf-8`.
    """

    separator: str = ","
    decimal: str = "."
    encoding: str = "utf-8"

    def check(self) -> None:
        """Refuse a form that no file has.

        Raises:
            ValueError: The separator is not one character or equals the decimal sign, the decimal sign is neither `.`
                nor `,`, or the encoding is unknown.
        """
        if len(self.separator) != 1 or self.separator in '"\r\n':
            raise ValueError(f"the separator is {self.separator!r}, expected one character such as ',', ';' or a tab")
        if self.decimal not in (".", ","):
            raise ValueError(f"the decimal sign is {self.decimal!r}, expected '.' or ','")
        if self.separator == self.decimal:
            raise ValueError(f"separator and decimal sign are both {self.decimal!r}; set the separator, such as ';'")
        try:
            codecs.lookup(self.encoding)
            "".encode(self.encoding)
        except LookupError as error:
            raise ValueError(f"the encoding {self.encoding!r} is unknown; expected utf-8, latin-1, ...") from error


class OptionNames(NamedTuple):
    """Names of the options of a caller, for messages."""

    separator: str
    decimal: str
    encoding: str
    columns: str


class Row(NamedTuple):
    """One row of CSV: the number of its last line, its cells, and what is wrong with it as a whole (`""` = nothing)."""

    line: int
    cells: list[str]
    fault: str


def stream_of(path: Path) -> str:
    """Return the id of the only stream of a file without ids: its name without endings."""
    return path.name.split(".")[0]


def open_bytes(path: Path) -> IO[bytes]:
    """Open a file of text, unpacked if it is gzip.

    Raises:
        OSError: It cannot be opened.
        UnreadableError: It is binary data of another kind, or is called `.gz` and is not gzip.
    """
    raw = path.open("rb")
    try:
        start = raw.read(4)
        if start[:2] == _GZIP:
            raw.close()
            return gzip.open(path, "rb")  # type: ignore[return-value]  # a GzipFile is a binary file object
        kind = next((kind for mark, kind in _FOREIGN.items() if start.startswith(mark)), None)
        if kind is not None:
            raise UnreadableError(f"the file is {kind}, which is not read as text")
        if path.suffix.lower() == ".gz" and start:
            raise UnreadableError("the name ends with .gz, but the file is not gzip; remove that ending")
        raw.seek(0)
    except BaseException:
        raw.close()
        raise
    return raw


def is_plain(stream: IO[bytes], encoding: str) -> bool:
    """Whether a stream with `peek` holds UTF-8 whose lines end with LF or CRLF."""
    head: bytes = stream.peek(_PEEK_BYTES)[:_PEEK_BYTES]  # type: ignore[attr-defined]  # callers bring one that has it
    return _encoding(head, encoding) == "utf-8-sig" and not (b"\r" in head and b"\n" not in head)


def lines(stream: IO[bytes], encoding: str = "utf-8") -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a file that are not blank, as UTF-8 without their ends, with their numbers from 1.

    Bytes that are not of the encoding stay as they are, so that the reader of a line can refuse them.
    """
    number = 0
    for chunk in _utf8_lines(stream, encoding):
        line = chunk.rstrip(b"\r\n")
        parts = [line] if b"\r" not in line else line.split(b"\r")  # a carriage return is never within a JSON text
        for part in parts:
            number += 1
            if part and not part.isspace():
                yield number, part


class CsvRows:
    """The rows of a CSV file below its header. Iterating yields a `Row` for each that is not blank."""

    def __init__(self, stream: IO[bytes], form: TextForm) -> None:
        """Read the header.

        Raises:
            UnreadableError: The file is empty.
        """
        head, stream = _peek(stream)
        encoding = _encoding(head, form.encoding)
        text = io.TextIOWrapper(stream, encoding, errors="surrogateescape", newline="")
        self._form = form
        self._rows = csv.reader(text, delimiter=form.separator)
        self.header: list[str] = []
        for row in self._rows:
            if any(cell.strip() for cell in row):
                self.header = [cell.strip() for cell in row]
                break
        if not self.header:
            raise UnreadableError("the file is empty, expected a header with the names of the columns")

    def positions(self, wanted: Sequence[str], names: OptionNames) -> list[int]:
        """Return where the columns stand.

        Raises:
            UnreadableError: A column is missing, or stands twice.
        """
        return positions(self.header, wanted, names, self._form)

    def __iter__(self) -> Iterator[Row]:
        rows, width = self._rows, len(self.header)
        while True:
            try:
                cells = next(rows, None)
            except csv.Error as error:  # a field beyond the csv module's limit; the next row is read as usual
                yield Row(rows.line_num, [], f"{error} (a quotation mark that is not closed?)")
                continue
            if cells is None:
                return
            if len(cells) == width:
                if cells[0].strip() or any(cell and not cell.isspace() for cell in cells):
                    yield Row(rows.line_num, cells, "")
            elif any(cell and not cell.isspace() for cell in cells):
                yield Row(rows.line_num, cells, self._ragged(cells))

    def _ragged(self, cells: Sequence[str]) -> str:
        fault = f"found {len(cells)} {'field' if len(cells) == 1 else 'fields'}, the header has {len(self.header)}"
        if cells[0].lstrip().startswith("#"):
            return f"{fault}; the row begins with '#', and comments are not read: remove it"
        if len(cells) > len(self.header):
            return f"{fault}; a cell that contains {self._form.separator!r} needs quotation marks around it"
        return fault


def positions(
    header: Sequence[str], wanted: Sequence[str], names: OptionNames, form: TextForm | None = None
) -> list[int]:
    """Return where columns stand in a header; `form` is that of a CSV file.

    Raises:
        UnreadableError: A column is missing, or stands twice.
    """
    if missing := [name for name in wanted if name not in header]:
        which = f"no column {shown(missing[0])}" if len(missing) == 1 else f"no columns {listed(missing)}"
        raise UnreadableError(
            f"{which}; found {listed(header)}, expected {listed(list(wanted))}{_cause(header, missing, names, form)}"
        )
    if twice := [name for name in wanted if list(header).count(name) > 1]:
        raise UnreadableError(f"the column {shown(twice[0])} stands twice in the header; rename one of them")
    return [list(header).index(name) for name in wanted]


def _cause(header: Sequence[str], missing: Sequence[str], names: OptionNames, form: TextForm | None) -> str:
    """Return the likely cause of a missing column, and what helps."""
    first = header[0] if header else ""
    others = f"; name others with {names.columns}"
    if form is not None:
        if "\x00" in first:
            return f"; the file has zero bytes, as UTF-16 has: {names.encoding} utf-16-le"
        if first.startswith("#"):
            return "; the first line begins with '#', and comments are not read: remove it"
        for mark, text in _SEPARATORS.items():
            if mark != form.separator and mark in first:
                return f"; the header has {text} between its names: {names.separator} {text}"
        if any(_is_data(name) for name in header):
            return "; the first line looks like data: write the names of the columns above it"
        if any("\udc80" <= letter <= "\udcff" for name in header for letter in name):
            return f"; the header is not {form.encoding}: {names.encoding} latin-1, or cp1252"
    alike = {name.casefold(): name for name in header}
    found = [alike[name.casefold()] for name in missing if name.casefold() in alike]
    return f"{others} ({listed(found)} differ by capitals only)" if found else others


def json_cause(text: bytes) -> str:
    """Return the likely cause why a text is no JSON, to stand after the error; empty if none is known."""
    if b"NaN" in text or b"Infinity" in text:
        return "; JSON has no NaN and no infinity: write null for a missing value"
    return ""


def _is_data(cell: str) -> bool:
    """Whether a cell of a header is a number or a time."""
    for read in (read_number, read_time):
        try:
            if read(cell) is not None:
                return True
        except RefusedValueError:
            continue
    return False


def not_of_encoding(text: str, form: TextForm, names: OptionNames) -> str:
    """Return why a text that could not be decoded is refused."""
    shown_text = shown(text.encode("utf-8", "surrogateescape"))
    return f"found {shown_text}, which is not {form.encoding}: {names.encoding} latin-1, or cp1252"


def _utf8_lines(stream: IO[bytes], encoding: str) -> Iterator[bytes]:
    head, stream = _peek(stream)
    chosen = _encoding(head, encoding)
    if chosen == "utf-8-sig":
        first = True
        for line in stream:
            yield line.removeprefix(codecs.BOM_UTF8) if first else line
            first = False
        return
    for text in io.TextIOWrapper(stream, chosen, errors="surrogateescape", newline=""):
        yield text.encode("utf-8", "surrogateescape")


def _encoding(head: bytes, wanted: str) -> str:
    """Return the encoding to read with: the mark at the beginning of a file decides where UTF-8 is expected."""
    if codecs.lookup(wanted).name not in ("utf-8", "utf-8-sig"):
        return wanted
    return "utf-16" if head.startswith(_UTF16) else "utf-8-sig"


def _peek(stream: IO[bytes]) -> tuple[bytes, Any]:
    """Return the first two bytes, and a stream that still has them."""
    buffered: Any = stream if hasattr(stream, "peek") else io.BufferedReader(stream)
    return buffered.peek(2)[:2], buffered
