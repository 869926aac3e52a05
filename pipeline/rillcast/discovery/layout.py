"""The format of a topic's or file's records, and the fields in it.

Owns: the choice of format and envelope, and the records that the choice rests on. Does not know: streams' figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from rillcast.arrays import IntArray
from rillcast.codecs.connect import open_members
from rillcast.codecs.observations.cloudevents import open_event
from rillcast.codecs.observations.rejections import RefusedError
from rillcast.discovery import columns, fields
from rillcast.discovery.columns import Column
from rillcast.errors import DataError, SettingsError
from rillcast.reading import files
from rillcast.reading.files import TextForm, UnreadableError
from rillcast.settings import Settings
from rillcast.transports.base import Polled

LOOKED_AT: Final = 20_000
"""Records that fields are chosen by."""
_TRIED: Final = 200
_ENOUGH: Final = 0.5
_SEPARATORS: Final = (",", ";", "\t", "|")
_ENCODINGS: Final = ("utf-8", "cp1252", "latin-1")
_FRAMED: Final = ("avro", "json_schema")
_FAILURES: Final = (
    RefusedError,
    msgspec.MsgspecError,
    ValueError,
    TypeError,
    ArithmeticError,
    RecursionError,
    EOFError,
)


@dataclass(frozen=True, slots=True)
class Layout:
    """How records are written.

    Attributes:
        settings: The settings, with format, envelope and fields.
        chosen: The fields, and why.
        columns: Number of members, keys, headers and attributes that were looked at.
        unreadable: Share of the records that cannot be decoded.
    """

    settings: Settings
    chosen: fields.Chosen
    columns: int
    unreadable: float


def of_topic(settings: Settings, polled: Polled) -> Layout:
    """Return the layout of a topic's records.

    Raises:
        SettingsError: The records need a schema registry, and none is named.
        DataError: The records have no known format.
        TransportError: The registry does not answer.
    """
    some = _some(polled)
    given = settings.input
    envelope = given.envelope if given.envelope != "none" else _envelope(some)
    formats = [given.format] if given.format != "auto" else _likely_formats(settings, some)
    tried, members = None, list[Any]()
    for name in formats:
        update = {"format": name, "envelope": envelope}
        tried = settings.model_copy(update={"input": given.model_copy(update=update)})
        members = _decoded(tried, some)
        if sum(each is not None for each in members) >= _ENOUGH * len(members):
            break
    else:
        raise DataError(
            f"topic {given.topic}: the records are neither {' nor '.join(formats)}; the first is "
            f"{_shown(some.values[0])}. Say with --input.format what they are"
        )
    assert tried is not None
    if tried.input.format == "protobuf":
        names = tried.input.fields
        return Layout(tried, fields.Chosen(names.unique_id, names.ds, tried.input.time_unit, names.y, {}, {}), 3, 0.0)
    attributes = None if envelope == "none" else [_attributes(some, row) for row in range(len(some))]
    found = columns.of_members(members, paths=True) + columns.of_context(some, attributes)
    return _layout(tried, found, members, some.partitions)


def of_file(settings: Settings) -> Layout:
    """Return the layout of a file's records.

    Raises:
        DataError: The file cannot be read, or is empty.
    """
    path = Path(str(settings.input.path))
    name = path.name.lower().removesuffix(".gz")
    if not path.is_file():
        raise DataError(f"input.path {path}: there is no such file")
    form, table = settings.input.form, settings.input.is_table
    try:
        if name.endswith(".csv"):
            form, rows = _csv(path, form)
        elif name.endswith(".parquet"):
            rows = list(islice(_parquet(path), LOOKED_AT))
        else:
            rows = list(islice(_json_lines(path, form), LOOKED_AT))
    except (OSError, UnreadableError, UnicodeError) as error:
        raise DataError(f"input.path {path}: {error}") from error
    if not rows:
        raise DataError(f"input.path {path}: the file has no records")
    given = settings.input.model_copy(
        update={"separator": form.separator, "decimal": form.decimal, "encoding": form.encoding}
    )
    found = columns.of_members(rows, paths=not table)
    if form.decimal == ",":
        found = [_with_points(column) for column in found]
    return _layout(settings.model_copy(update={"input": given}), found, rows, np.zeros(len(rows), np.int64))


def _layout(settings: Settings, found: Sequence[Column], members: Sequence[Any], partitions: IntArray) -> Layout:
    usual = type(settings.input.fields)()
    named = {name: getattr(settings.input.fields, name) for name in ("unique_id", "ds", "y")}
    fixed = {name: source for name, source in named.items() if source != getattr(usual, name)}
    chosen = fields.choose(found, partitions, fixed)
    unreadable = sum(each is None for each in members) / max(1, len(members))
    return Layout(settings, chosen, len(found), unreadable)


# Topics.


def _some(polled: Polled) -> Polled:
    """Return as many records of each partition as fit, in order."""
    if len(polled) <= LOOKED_AT:
        return polled
    each = max(1, LOOKED_AT // len(np.unique(polled.partitions)))
    rows = [np.flatnonzero(polled.partitions == partition)[-each:] for partition in np.unique(polled.partitions)]
    return polled.take(np.concatenate(rows))


def _envelope(polled: Polled) -> str:
    """Return `cloudevents` where the headers of most records say so."""
    rows = range(min(_TRIED, len(polled)))
    events = sum(
        any(
            name == "ce_specversion"
            or (name.lower() == "content-type" and (value or b"").lower().startswith(b"application/cloudevents"))
            for name, value in polled.headers(row)
        )
        for row in rows
    )
    return "cloudevents" if 2 * events > len(rows) else "none"


def _likely_formats(settings: Settings, polled: Polled) -> list[str]:
    """Return the formats to try, the likely one first.

    Raises:
        SettingsError: The records are framed by a schema registry, and none is named.
    """
    values = [value for value in polled.values[:_TRIED] if value]
    framed = sum(len(value) > 5 and value[0] == 0 for value in values)
    if 2 * framed > len(values):
        if settings.registry.url is None:
            number = int.from_bytes(next(v for v in values if v[0] == 0)[1:5], "big")
            raise SettingsError(
                f"topic {settings.input.topic}: the records begin with the frame of a schema registry (schema "
                f"{number}); name the registry with --registry.url"
            )
        return list(_FRAMED)
    return ["json", "msgpack"]


def _decoded(settings: Settings, polled: Polled) -> list[Any]:
    """Return the members of each record, None where it cannot be decoded.

    Raises:
        TransportError: The registry does not answer.
    """
    if settings.input.format == "protobuf":
        return [dict.fromkeys(("unique_id", "ds", "y"))] * len(polled)  # its message says where they are
    members = open_members(settings)
    return [_or_none(members, polled, row) for row in range(len(polled))]


def _or_none(members: Callable[[Polled, int], Any], polled: Polled, row: int) -> Any:
    try:
        found = members(polled, row)
    except _FAILURES:
        return None
    return found if isinstance(found, Mapping) else None


def _attributes(polled: Polled, row: int) -> Mapping[str, str]:
    try:
        return open_event(polled, row).attributes
    except RefusedError:
        return {}


def _shown(value: bytes | None) -> str:
    return repr((value or b"")[:40])


# Files.


def _csv(path: Path, form: TextForm) -> tuple[TextForm, list[dict[str, Any]]]:
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
            some = [dict(zip(header, row.cells, strict=True)) for row in islice(rows, LOOKED_AT) if not row.fault]
        if some and len(header) > width:
            best, width = (tried, some), len(header)
    tried, rows_found = best
    encoding = next((name for name in encodings if _is_of(rows_found, name)), form.encoding)
    tried = TextForm(tried.separator, tried.decimal, encoding)
    if tried.separator != "," and form.decimal == usual.decimal and _has_commas(rows_found):
        tried = TextForm(tried.separator, ",", encoding)
    if encoding != form.encoding:
        return _csv(path, tried)
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
    found = columns.of_members(rows, paths=False)
    return any(not column.is_numeric and _with_points(column).is_numeric for column in found)


def _with_points(column: Column) -> Column:
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
            except _FAILURES:
                yield None


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    try:
        import polars
    except ImportError as error:
        raise SettingsError("Parquet needs polars: install the extra rillcast[parquet]") from error
    yield from polars.scan_parquet(path).head(LOOKED_AT).collect().iter_rows(named=True)
