"""CloudEvents 1.0 in Kafka: the data and the attributes of an event.

By the Kafka protocol binding, a record whose `content-type` header begins with `application/cloudevents` contains the
whole event (structured mode). A record with a header `ce_specversion` contains only its data (binary mode). The SDK
would build an event object for each record, so this module reads the events itself. It checks the required attributes
and the version as the specification says.

Sources: CloudEvents specification 1.0.2; its Kafka protocol binding (sections 3.2, 3.3) and JSON event format (section
3).
"""

from __future__ import annotations

import base64
from typing import Any, Final, NamedTuple

import msgspec

from rillcast.codecs.observations.fields import PolledRecords
from rillcast.codecs.observations.rejections import Reason, RefusedError

_PREFIX: Final = "ce_"
_STRUCTURED: Final = "application/cloudevents"
_JSON_EVENT: Final = "application/cloudevents+json"
_VERSION: Final = "1.0"
_REQUIRED: Final = ("id", "source", "specversion", "type")


class Opened(NamedTuple):
    """The content of one event: its data, whether the data is known to be JSON, and the text attributes."""

    data: bytes
    is_json: bool
    attributes: dict[str, str]


class _Event(msgspec.Struct, gc=False):
    """An event in structured mode. Its data stays raw; the other members are attributes, read from the same bytes."""

    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    data_base64: str | msgspec.UnsetType = msgspec.UNSET


_event = msgspec.json.Decoder(_Event).decode
_members = msgspec.json.Decoder(dict[str, Any]).decode


def open_event(records: PolledRecords, row: int) -> Opened:
    """Return the content of the CloudEvent in record `row`.

    Raises:
        RefusedError: The record is no CloudEvent, has another version, lacks an attribute, or has no data.
    """
    value = records.values[row]
    headers = [(name, data or b"") for name, data in records.headers(row)]
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
        raise RefusedError(Reason.NOT_CLOUDEVENT, f"content type is {media_type!r}, expected {_JSON_EVENT}")
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
    ) as error:  # base64 raises binascii.Error or ValueError
        raise RefusedError(Reason.NOT_CLOUDEVENT, str(error)) from error
    if isinstance(event.data, msgspec.Raw):
        return Opened(bytes(event.data), True, attributes)
    raise RefusedError(Reason.EMPTY, "the event has no data")


def _check(attributes: dict[str, str]) -> None:
    if missing := [name for name in _REQUIRED if not attributes.get(name)]:
        raise RefusedError(Reason.NOT_CLOUDEVENT, f"attributes {missing} are missing")
    if attributes["specversion"] != _VERSION:
        raise RefusedError(Reason.NOT_CLOUDEVENT, f"specversion is {attributes['specversion']!r}, expected {_VERSION}")
