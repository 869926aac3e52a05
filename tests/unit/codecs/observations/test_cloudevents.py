"""CloudEvents in both modes of the Kafka binding."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest

from rillcast.codecs.observations.decoder import ObservationDecoder
from rillcast.codecs.observations.fields import Fields
from rillcast.codecs.observations.msgpack import MessagePackFormat
from rillcast.codecs.observations.rejections import Reason
from rillcast.transports.base import Headers
from tests.support.hostile import NOON_MS, polled, record

BINARY: list[tuple[str, bytes]] = [
    ("ce_specversion", b"1.0"),
    ("ce_id", b"1"),
    ("ce_source", b"/plant/1"),
    ("ce_type", b"reading"),
    ("content-type", b"application/json"),
]
STRUCTURED: list[tuple[str, bytes]] = [("content-type", b"application/cloudevents+json; charset=UTF-8")]
DATA = {"unique_id": "a", "ds": NOON_MS, "y": 1.5}


def event(**changes: Any) -> bytes:
    members = {"specversion": "1.0", "id": "1", "source": "/plant/1", "type": "reading", "data": DATA} | changes
    return json.dumps({name: member for name, member in members.items() if member is not ...}).encode()


def decode(value: bytes | None, headers: Headers, decoder: ObservationDecoder | None = None) -> Any:
    decoder = decoder or ObservationDecoder(cloudevents=True)
    events, rejections = decoder.decode(polled([value], headers=[headers]))
    assert len(events) + len(rejections) == 1
    return (events.unique_ids[0], int(events.ds[0]), float(events.y[0])) if len(events) else rejections[0].reason


def test_binary_mode_contains_the_observation() -> None:
    assert decode(record(), BINARY) == ("a", NOON_MS, 1.5)


def test_structured_mode_contains_it_in_the_event() -> None:
    assert decode(event(), STRUCTURED) == ("a", NOON_MS, 1.5)


def test_structured_data_in_base64_is_read_in_the_format_of_the_topic() -> None:
    packed = base64.b64encode(msgspec.msgpack.encode(DATA)).decode()
    decoder = ObservationDecoder(form=MessagePackFormat(), cloudevents=True)
    assert decode(event(data=..., data_base64=packed), STRUCTURED, decoder) == ("a", NOON_MS, 1.5)
    assert decode(event(), STRUCTURED, decoder) == ("a", NOON_MS, 1.5)
    assert decode(msgspec.msgpack.encode(DATA), BINARY, decoder) == ("a", NOON_MS, 1.5)


def test_both_modes_may_come_in_one_poll() -> None:
    decoder = ObservationDecoder(cloudevents=True)
    events, rejections = decoder.decode(polled([record(), event()], headers=[BINARY, STRUCTURED]))
    assert rejections == []
    assert events.unique_ids == ["a", "a"]


@pytest.mark.parametrize("structured", [True, False])
def test_attributes_can_be_stream_and_time(structured: bool) -> None:
    decoder = ObservationDecoder(fields=Fields("$ce.subject", "$ce.time", "value"), cloudevents=True)
    attributes = {"subject": "web-1", "time": "2024-05-01T12:00:00Z"}
    if structured:
        given = event(data={"value": 2}, **attributes), STRUCTURED
    else:
        headers = [*BINARY, *((f"ce_{name}", text.encode()) for name, text in attributes.items())]
        given = json.dumps({"value": 2}).encode(), headers
    assert decode(*given, decoder) == ("web-1", NOON_MS, 2.0)
    bare = (event(data={"value": 2}), STRUCTURED) if structured else (b'{"value": 2}', BINARY)
    assert decode(*bare, decoder) is Reason.MISSING_FIELD


@pytest.mark.parametrize(
    ("value", "headers", "reason"),
    [
        (record(), [], Reason.NOT_CLOUDEVENT),
        (record(), BINARY[1:], Reason.NOT_CLOUDEVENT),
        (record(), [("ce_specversion", b"0.3"), *BINARY[1:]], Reason.NOT_CLOUDEVENT),
        (record(), [("ce_specversion", b"\xff"), *BINARY[1:]], Reason.NOT_CLOUDEVENT),
        (None, BINARY, Reason.EMPTY),
        (b"", BINARY, Reason.EMPTY),
        (b"{", BINARY, Reason.NOT_JSON),
        (None, STRUCTURED, Reason.EMPTY),
        (b"{", STRUCTURED, Reason.NOT_CLOUDEVENT),
        (b"[]", STRUCTURED, Reason.NOT_CLOUDEVENT),
        (b"\xff", STRUCTURED, Reason.NOT_CLOUDEVENT),
        (b'{"a":' * 100_000, STRUCTURED, Reason.NOT_CLOUDEVENT),
        (event(id=...), STRUCTURED, Reason.NOT_CLOUDEVENT),
        (event(id=7), STRUCTURED, Reason.NOT_CLOUDEVENT),
        (event(specversion="2.0"), STRUCTURED, Reason.NOT_CLOUDEVENT),
        (event(data=...), STRUCTURED, Reason.EMPTY),
        (event(data=None), STRUCTURED, Reason.WRONG_TYPE),
        (event(data="text"), STRUCTURED, Reason.WRONG_TYPE),
        (event(data={"ds": 0}), STRUCTURED, Reason.MISSING_FIELD),
        (event(data_base64="AAAA"), STRUCTURED, Reason.NOT_CLOUDEVENT),
        (event(data=..., data_base64="!"), STRUCTURED, Reason.NOT_CLOUDEVENT),
        (event(data=..., data_base64="\u20ac"), STRUCTURED, Reason.NOT_CLOUDEVENT),
        (event(data=..., data_base64=7), STRUCTURED, Reason.NOT_CLOUDEVENT),
        (event(), [("content-type", b"application/cloudevents+avro")], Reason.NOT_CLOUDEVENT),
        (b"[" + event() + b"]", [("content-type", b"application/cloudevents-batch+json")], Reason.NOT_CLOUDEVENT),
    ],
)
def test_other_records_are_refused_with_their_reason(value: bytes | None, headers: Headers, reason: Reason) -> None:
    assert decode(value, headers) is reason
