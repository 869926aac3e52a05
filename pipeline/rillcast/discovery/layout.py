"""The format of a topic's or file's records, and the fields in it.

Owns: the choice of format and envelope, and the records that the choice rests on. Does not know: streams' figures.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from rillcast.arrays import IntArray
from rillcast.codecs.connect import open_members
from rillcast.codecs.observations.cloudevents import open_event
from rillcast.codecs.observations.rejections import RefusedError
from rillcast.discovery import columns, fields, file_rows
from rillcast.discovery.columns import Column
from rillcast.errors import DataError, SettingsError
from rillcast.settings import Settings
from rillcast.settings.input import METRIC_FORMATS
from rillcast.transports.base import Polled

LOOKED_AT: Final = 20_000
"""Records that fields are chosen by."""
_TRIED: Final = 200
_ENOUGH: Final = 0.5
_FRAMED: Final = ("avro", "json_schema")
_MOST_TEXTS: Final = 12  # of a member that tells streams apart
_LABEL: Final = re.compile(r"(?:\$header\.)?[\w.-]+")
_TEXT: Final = re.compile(r"[\w./:-]+")  # needs no escape in a condition
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
        labels: Members and headers with few texts, which may tell streams apart: their texts, by their source.
    """

    settings: Settings
    chosen: fields.Chosen
    columns: int
    unreadable: float
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


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
    if tried.input.format in METRIC_FORMATS:
        return _metrics(tried, members)
    if tried.input.format == "protobuf":
        names = tried.input.fields
        return Layout(tried, fields.Chosen(names.unique_id, names.ds, tried.input.time_unit, names.y, {}, {}), 3, 0.0)
    attributes = None if envelope == "none" else [_attributes(some, row) for row in range(len(some))]
    context = columns.of_context(some, attributes)
    chosen = _layout(tried, columns.of_members(members) + context, members, some.partitions)
    if chosen.chosen.y is None and (elements := columns.exploded(members)) is not None:
        rows, numbers = elements
        again = [Column(each.source, each.name, [each.values[number] for number in numbers]) for each in context]
        return _layout(tried, columns.of_members(rows) + again, rows, some.partitions[numbers])
    return chosen


def of_file(settings: Settings) -> Layout:
    """Return the layout of a file's records.

    Raises:
        DataError: The file cannot be read, or is empty.
    """
    path = Path(str(settings.input.path))
    form, rows = file_rows.read(path, settings.input.form, LOOKED_AT)
    if not rows:
        raise DataError(f"input.path {path}: the file has no records")
    if not settings.input.is_table and 2 * sum(map(_is_metric, rows[:_TRIED])) > len(rows[:_TRIED]):
        given = settings.input.model_copy(update={"format": "telegraf"})
        documents = [row.get("metrics", [row]) for row in rows if row is not None]
        return _metrics(settings.model_copy(update={"input": given}), documents)
    given = settings.input.model_copy(
        update={"separator": form.separator, "decimal": form.decimal, "encoding": form.encoding}
    )
    found = columns.of_members(rows)
    if form.decimal == ",":
        found = [file_rows.with_points(column) for column in found]
    return _layout(settings.model_copy(update={"input": given}), found, rows, np.zeros(len(rows), np.int64))


def _metrics(settings: Settings, documents: Sequence[Any]) -> Layout:
    """Return the layout of metrics, whose members have names of their own; only the unit of their times differs."""
    metrics = [metric for document in documents if document is not None for metric in document][:LOOKED_AT]
    stamps = Column("timestamp", "timestamp", [metric.get("timestamp") for metric in metrics])
    given = settings.input.fields
    ds, unit = given.ds, "auto"
    if stamps.share_present < _ENOUGH and ds == type(given)().ds:
        ds = "$timestamp"
    elif stamps.time_unit is not None and stamps.time_unit != settings.input.time_unit:
        unit = stamps.time_unit
    why = {"ds": "most metrics have no time of their own"}
    unreadable = sum(document is None for document in documents) / max(1, len(documents))
    return Layout(settings, fields.Chosen(given.unique_id, ds, unit, given.y, why, {}), 4, unreadable)


def _layout(settings: Settings, found: Sequence[Column], members: Sequence[Any], partitions: IntArray) -> Layout:
    usual = type(settings.input.fields)()
    named = {name: getattr(settings.input.fields, name) for name in ("unique_id", "ds", "y")}
    fixed = {name: source for name, source in named.items() if source != getattr(usual, name)}
    chosen = fields.choose(found, partitions, fixed)
    unreadable = sum(each is None for each in members) / max(1, len(members))
    return Layout(settings, chosen, len(found), unreadable, _labels(found, chosen))


def _labels(found: Sequence[Column], chosen: fields.Chosen) -> dict[str, tuple[str, ...]]:
    """Return the members and headers with few texts; of arrays none, whose members have other paths in a condition."""
    used = f"{chosen.unique_id},{chosen.ds},{chosen.y}"
    if "[]" in used:
        return {}
    labels = {}
    for column in found:
        if column.source in used.split(",") or not _LABEL.fullmatch(column.source) or column.time_unit is not None:
            continue
        texts = {unique_id for unique_id in column.ids if unique_id is not None}
        if 2 <= len(texts) <= _MOST_TEXTS and all(map(_TEXT.fullmatch, texts)):
            labels[column.source] = tuple(sorted(texts))
    return labels


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
    if 2 * sum(_is_metric(_json(value)) for value in values) > len(values):
        return ["telegraf"]
    return ["json", "msgpack", "influx"]


def _json(value: bytes) -> Any:
    try:
        return msgspec.json.decode(value)
    except _FAILURES:
        return None


def _is_metric(document: Any) -> bool:
    """Whether a document is a metric, or a batch of them, as Telegraf writes them in JSON."""
    if isinstance(document, Mapping) and isinstance(document.get("metrics"), list):
        document = document["metrics"]
    first = document[0] if isinstance(document, list) and document else document
    return (
        isinstance(first, Mapping) and isinstance(first.get("fields"), Mapping) and isinstance(first.get("name"), str)
    )


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
        value = polled.values[row] or b""
        found = msgspec.json.decode(value) if value[:1] == b"[" else members(polled, row)
    except _FAILURES:
        return None
    return found if isinstance(found, Mapping) or (isinstance(found, list) and found) else None


def _attributes(polled: Polled, row: int) -> Mapping[str, str]:
    try:
        return open_event(polled, row).attributes
    except RefusedError:
        return {}


def _shown(value: bytes | None) -> str:
    return repr((value or b"")[:40])
