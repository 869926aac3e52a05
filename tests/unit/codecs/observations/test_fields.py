"""Records with other names, nested members and fields in their context are read like records with the plain names."""

from __future__ import annotations

import json

import pytest

from rillcast.codecs.observations.decoder import DecodeLimits, ObservationDecoder
from rillcast.codecs.observations.fields import Fields
from rillcast.codecs.observations.rejections import Reason
from tests.support.hostile import NOON_MS, polled


def value(**members: object) -> bytes:
    return json.dumps(members).encode()


def test_renamed_and_nested_members_are_found() -> None:
    decoder = ObservationDecoder(fields=Fields("tags.host", "time", "fields.value"))
    record = value(tags={"host": "web-1", "rack": 3}, time="2024-05-01T12:00:00Z", fields={"value": 1.5}, unique_id=9)
    events, rejections = decoder.decode(polled([record]))
    assert rejections == []
    assert (events.unique_ids, events.ds.tolist(), events.y.tolist()) == (["web-1"], [NOON_MS], [1.5])


def test_a_dot_within_a_name_is_written_with_a_backslash() -> None:
    decoder = ObservationDecoder(fields=Fields(r"host\.name", "ds", r"a\.b.c"))
    events, rejections = decoder.decode(polled([value(**{"host.name": "h", "ds": NOON_MS, "a.b": {"c": 2}})]))
    assert rejections == []
    assert (events.unique_ids, events.y.tolist()) == (["h"], [2.0])


@pytest.mark.parametrize("members", [{}, {"fields": None}, {"fields": {}}, {"fields": {"value": None}}])
def test_an_observation_is_missing_wherever_its_path_ends(members: dict[str, object]) -> None:
    decoder = ObservationDecoder(fields=Fields("id", "ds", "fields.value"))
    events, rejections = decoder.decode(polled([value(id="a", ds=NOON_MS, **members)]))
    assert rejections == []
    assert events.y.tolist() != events.y.tolist(), "NaN"


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"ds": 0}, Reason.MISSING_FIELD),
        ({"tags": {}, "ds": 0}, Reason.MISSING_FIELD),
        ({"tags": None, "ds": 0}, Reason.WRONG_TYPE),
        ({"tags": {"host": ""}, "ds": 0}, Reason.BAD_ID),
        ({"tags": {"host": 1.5}, "ds": 0}, Reason.WRONG_TYPE),
        ({"tags": {"host": "a"}, "ds": "soon"}, Reason.DS_OUT_OF_RANGE),
        ({"tags": {"host": "a"}, "ds": 0, "y": "one"}, Reason.WRONG_TYPE),
    ],
)
def test_a_mapped_record_is_refused_for_the_same_reasons(members: dict[str, object], reason: Reason) -> None:
    decoder = ObservationDecoder(fields=Fields("tags.host"))
    good = value(tags={"host": "a"}, ds=NOON_MS, y=1)
    events, rejections = decoder.decode(polled([good, value(**members), good]))
    assert events.rows.tolist() == [0, 2]
    assert [r.reason for r in rejections] == [reason]


def test_a_whole_number_is_an_id_where_ids_are_mapped() -> None:
    events, rejections = ObservationDecoder(fields=Fields("device")).decode(polled([value(device=42, ds=0)]))
    assert rejections == []
    assert events.unique_ids == ["42"]


@pytest.mark.parametrize(("unit", "ds"), [("s", 1714564800), ("us", NOON_MS * 1000 + 1), ("ns", NOON_MS * 10**6 + 1)])
def test_numbers_are_taken_in_their_unit(unit: str, ds: int) -> None:
    decoder = ObservationDecoder(fields=Fields(ds_unit=unit))  # type: ignore[arg-type]
    events, rejections = decoder.decode(
        polled([value(unique_id="a", ds=ds), value(unique_id="a", ds="2024-05-01T12:00:00Z")])
    )
    assert rejections == []
    assert events.ds.tolist() == [NOON_MS, NOON_MS]


def test_key_and_timestamp_of_the_record_are_taken() -> None:
    decoder = ObservationDecoder(fields=Fields("$key", "$timestamp", "value", ds_unit="s"))
    records = polled([value(value=1), value(value=2)], keys=[b"a", "€".encode()], timestamp_ms=NOON_MS)
    events, rejections = decoder.decode(records)
    assert rejections == []
    assert (events.unique_ids, events.ds.tolist()) == (["a", "€"], [NOON_MS, NOON_MS])


def test_headers_are_taken() -> None:
    decoder = ObservationDecoder(fields=Fields("$header.device", "$header.at"))
    headers = [
        [("device", b"d1"), ("at", b"2024-05-01T12:00:00Z")],
        [("device", b"d2"), ("at", str(NOON_MS).encode())],
        [("device", b"d3")],
        [("device", b"\xff"), ("at", b"0")],
        [("device", b""), ("at", b"0")],
        [("device", b"d"), ("at", b"soon")],
    ]
    events, rejections = decoder.decode(polled([value(y=1)] * 6, headers=headers))
    assert (events.unique_ids, events.ds.tolist()) == (["d1", "d2"], [NOON_MS, NOON_MS])
    assert [r.reason for r in rejections] == [
        Reason.MISSING_FIELD,
        Reason.NOT_UTF8,
        Reason.BAD_ID,
        Reason.DS_OUT_OF_RANGE,
    ]


@pytest.mark.parametrize(("keys", "timestamp"), [([None], NOON_MS), ([b"a"], -1)])
def test_absent_parts_of_the_context_are_missing(keys: list[bytes | None], timestamp: int) -> None:
    decoder = ObservationDecoder(fields=Fields("$key", "$timestamp", "y"))
    _, rejections = decoder.decode(polled([value(y=1)], keys=keys, timestamp_ms=timestamp))
    assert [r.reason for r in rejections] == [Reason.MISSING_FIELD]


@pytest.mark.parametrize(
    ("names", "what"),
    [
        ({"unique_id": "a..b"}, "empty"),
        ({"y": ""}, "empty"),
        ({"y": "$key"}, r"input\.fields\.y"),
        ({"ds": "$key"}, r"\$timestamp"),
        ({"unique_id": "$timestamp"}, r"\$key"),
        ({"unique_id": "$header"}, r"\$header\.NAME"),
        ({"unique_id": "$key.x"}, r"\$key"),
        ({"ds": "unique_id.ds"}, "leads through"),
        ({"ds": "y"}, "leads through"),
    ],
)
def test_an_impossible_mapping_is_refused(names: dict[str, str], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        Fields(**names)  # type: ignore[arg-type]


def test_limits_hold_for_mapped_records() -> None:
    decoder = ObservationDecoder(DecodeLimits(max_id_bytes=3, max_abs_y=10), fields=Fields("id", "ds", "v"))
    records = polled([value(id="abcd", ds=0, v=1), value(id="abc", ds=0, v=11), value(id="abc", ds=0, v=10)])
    events, rejections = decoder.decode(records)
    assert events.rows.tolist() == [2]
    assert [r.reason for r in rejections] == [Reason.BAD_ID, Reason.Y_OUT_OF_RANGE]


def test_an_event_from_the_future_is_refused_by_the_records_own_time() -> None:
    decoder = ObservationDecoder(DecodeLimits(max_future_ms=1000))
    values = [value(unique_id="a", ds=NOON_MS + ahead) for ahead in (-(10**9), 0, 1000, 1001)]
    events, rejections = decoder.decode(polled(values, timestamp_ms=NOON_MS))
    assert events.rows.tolist() == [0, 1, 2]
    assert [(r.row, r.reason) for r in rejections] == [(3, Reason.FROM_THE_FUTURE)]
    assert "1.001 s after" in rejections[0].detail


def test_without_a_timestamp_or_a_limit_no_event_is_from_the_future() -> None:
    values = [value(unique_id="a", ds=NOON_MS)]
    assert ObservationDecoder(DecodeLimits(max_future_ms=1)).decode(polled(values))[1] == []
    assert ObservationDecoder(DecodeLimits(max_future_ms=0)).decode(polled(values, timestamp_ms=0))[1] == []
