"""CloudEvents 1.0 in Kafka: which bytes are the data, and what the attributes say.

By the Kafka protocol binding: a record whose `content-type` header begins with `application/cloudevents` holds the
whole event (structured mode), one with a header `ce_specversion` only its data (binary mode). Own lines rather than
the SDK, which builds an event object for each record; required attributes and the version are checked as the
specification says.

Sources: CloudEvents specification 1.0.2; its Kafka protocol binding (sections 3.2, 3.3) and JSON event format (section
3).
"""

from __future__ import annotations

import base64
from typing import Any, Final, NamedTuple

import msgspec

from rillcast.codecs.observations.fields import Records
from rillcast.codecs.observations.rejections import Reason, RefusedError

_PREFIX: Final = "ce_"
_STRUCTURED: Final = "application/cloudevents"
_JSON_EVENT: Final = "application/cloudevents+json"
_VERSION: Final = "1.0"
_REQUIRED: Final = ("id", "source", "specversion", "type")


class Opened(NamedTuple):
    """The inside of one event: its data, whether that is certainly JSON, and the attributes that are text."""

    data: bytes
    is_json: bool
    attributes: dict[str, str]


class _Event(msgspec.Struct, gc=False):
    """Structured mode. The data stays as it is; the other members are attributes, read from the same bytes."""

    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    data_base64: str | msgspec.UnsetType = msgspec.UNSET


_event = msgspec.json.Decoder(_Event).decode
_members = msgspec.json.Decoder(dict[str, Any]).decode


def open_event(records: Records, row: int) -> Opened:
    """Return what the CloudEvent in record `row` holds.

    Raises:
        RefusedError: it is no CloudEvent, of another version, lacks an attribute, or has no data.
    """
    value = records.values[row]
    headers = records.headers(row)
    content_type = next((data.decode("latin-1") for name, data in headers if name.lower() == "content-type"), "")
    if content_type.lower().startswith(_STRUCTURED):
        if not value:
            raise RefusedError(Reason.EMPTY, "the record has no value")
        return _structured(value, content_type)
    try:
        attributes = {name[len(_PREFIX) :]: data.decode() for name, data in headers if name.startswith(_PREFIX)}
    except UnicodeDecodeError as error:
        raise RefusedError(Reason.NOT_CLOUDEVENT, f"an attribute is not UTF-8: {error}") from error
    _check(attributes)
    if not value:
        raise RefusedError(Reason.EMPTY, "the event has no data")
    return Opened(value, False, attributes)


def _structured(value: bytes, content_type: str) -> Opened:
    media_type = content_type.split(";")[0].strip().lower()
    if media_type != _JSON_EVENT:
        raise RefusedError(Reason.NOT_CLOUDEVENT, f"content type {media_type!r}; only {_JSON_EVENT} is read")
    try:
        event, members = _event(value), _members(value)
        attributes = {name: text for name, text in members.items() if isinstance(text, str)}
        _check(attributes)
        if event.data is not msgspec.UNSET and event.data_base64 is not msgspec.UNSET:
            raise RefusedError(Reason.NOT_CLOUDEVENT, "the event has both data and data_base64")
        if isinstance(event.data_base64, str):
            return Opened(base64.b64decode(event.data_base64, validate=True), False, attributes)
    except (
        msgspec.MsgspecError,
        RecursionError,
        ValueError,
    ) as error:  # of base64: binascii.Error, or a bare ValueError
        raise RefusedError(Reason.NOT_CLOUDEVENT, str(error)) from error
    if isinstance(event.data, msgspec.Raw):
        return Opened(bytes(event.data), True, attributes)
    raise RefusedError(Reason.EMPTY, "the event has no data")


def _check(attributes: dict[str, str]) -> None:
    if missing := [name for name in _REQUIRED if not attributes.get(name)]:
        raise RefusedError(Reason.NOT_CLOUDEVENT, f"attributes {missing} are missing")
    if attributes["specversion"] != _VERSION:
        raise RefusedError(
            Reason.NOT_CLOUDEVENT, f"specversion {attributes['specversion']!r}; version {_VERSION} is read"
        )
