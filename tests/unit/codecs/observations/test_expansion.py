"""Records that are several observations: which events they are, and how bad members are refused."""

from __future__ import annotations

import gc
import json
import weakref
from typing import Any

import numpy as np
import pytest

from rillcast.bundle.covariates import Covariate
from rillcast.codecs.connect import open_decoder
from rillcast.codecs.observations.decoder import ObservationDecoder
from rillcast.codecs.observations.expansion import Expansion
from rillcast.codecs.observations.rejections import Reason
from rillcast.errors import SettingsError
from rillcast.settings import Settings
from rillcast.transports.base import Polled
from tests.support.formats import format_of, mock_registry, writer_of
from tests.support.hostile import NOON_MS, polled
from tests.support.toy import ToyGraph

WIDE = {"host": "web-17", "at": NOON_MS, "cpu": 0.4, "mem": 7}


def decoder(fields: dict[str, str] | None = None, covariates: tuple[Covariate, ...] = (), **given: Any) -> Any:
    """Return the decoder that settings choose."""
    names = {"unique_id": "host", "ds": "at", "y": "cpu,mem"} if fields is None else fields
    settings = Settings.model_validate({"model": "m.onnx", "input": {"fields": names, "max_future_s": 0} | given})
    return open_decoder(settings, ToyGraph().metadata().model_copy(update={"covariates": covariates}))


def read(chosen: ObservationDecoder, *values: object, **options: Any) -> list[tuple[str, int, float | None]]:
    """Decode records that are all good."""
    events, rejections = chosen.decode(of(*values, **options))
    assert rejections == []
    return rows(events)


def rows(events: Any) -> list[tuple[str, int, float | None]]:
    y = [None if np.isnan(one) else round(float(one), 6) for one in events.y]
    return list(zip(events.unique_ids, events.ds.tolist(), y, strict=True))


def of(*values: object, **options: Any) -> Polled:
    return polled(
        [value if isinstance(value, bytes) or value is None else json.dumps(value).encode() for value in values]
    )


def refused(chosen: ObservationDecoder, *values: object) -> tuple[list[str], list[tuple[int, Reason, str]]]:
    events, rejections = chosen.decode(of(*values))
    return list(events.unique_ids), [(one.row, one.reason, one.detail) for one in rejections]


def test_every_member_is_a_stream_of_its_own() -> None:
    events, rejections = decoder().decode(of(WIDE, WIDE | {"host": "a/b", "cpu": None}))
    assert rejections == []
    assert rows(events) == [
        ("web-17/cpu", NOON_MS, 0.4),
        ("web-17/mem", NOON_MS, 7.0),
        (r"a\/b/cpu", NOON_MS, None),
        (r"a\/b/mem", NOON_MS, 7.0),
    ]
    assert events.rows.tolist() == events.offsets.tolist() == [0, 0, 1, 1]
    assert events.keys == ["web-17", "web-17", "a/b", "a/b"]


def test_a_record_has_the_members_that_it_has() -> None:
    assert read(decoder(), {"host": "a", "at": NOON_MS, "mem": 1}) == [("a/mem", NOON_MS, 1.0)]


def test_members_of_the_same_name_have_their_path_in_the_id() -> None:
    fields = {"unique_id": "host", "ds": "at", "y": "cpu.load,mem.load,mem.free"}
    record = {"host": "a", "at": NOON_MS, "cpu": {"load": 1}, "mem": {"load": 2, "free": 3}}
    assert [unique_id for unique_id, *_ in read(decoder(fields), record)] == ["a/cpu.load", "a/mem.load", "a/free"]


def test_every_number_of_an_object_is_a_stream() -> None:
    fields = {"unique_id": "tags.*", "ds": "at", "y": "fields.*"}
    record = {
        "tags": {"host": "w/1", "cpu": 0},
        "at": NOON_MS,
        "fields": {"a": 1, "b": None, "text": "x", "yes": True, "more": {"c": 2}},
    }
    start = r"cpu=0/host=w\/1/"
    assert read(decoder(fields), record) == [(start + "a", NOON_MS, 1.0), (start + "b", NOON_MS, None)]


def test_members_are_joined_to_an_id_by_the_rule_of_tables() -> None:
    fields = {"unique_id": "tags.host,tags.cpu,$key", "ds": "at", "y": "v"}
    record = {"tags": {"host": "a/b", "cpu": 3}, "at": NOON_MS, "v": 1.5}
    value = json.dumps(record).encode()
    zeros = np.zeros(1, np.int64)
    events, _ = decoder(fields).decode(Polled(zeros, zeros, zeros, [b"k\\"], [value]))
    assert events.unique_ids == [r"a\/b/3/k\\"]
    assert events.keys == events.unique_ids


def test_elements_of_an_array_are_observations() -> None:
    fields = {"unique_id": "device", "ds": "readings[].t", "y": "readings[].v"}
    record = {"device": "d", "readings": [{"t": NOON_MS + i, "v": i} for i in range(3)]}
    events, rejections = decoder(fields).decode(of(record, record | {"readings": []}))
    assert rejections == []
    assert rows(events) == [("d", NOON_MS + i, float(i)) for i in range(3)]
    assert events.offsets.tolist() == [0, 0, 0]
    assert events.left_out == 1, "an empty array has no observation"


def test_a_record_may_be_an_array() -> None:
    fields = {"unique_id": "[].s", "ds": "[].t", "y": "[].a,[].b"}
    record = [{"s": "x", "t": NOON_MS, "a": 1, "b": 2}, {"s": "y", "t": NOON_MS, "b": 3}]
    assert [unique_id for unique_id, *_ in read(decoder(fields), record)] == ["x/a", "x/b", "y/b"]


def test_only_records_that_meet_the_conditions_are_taken() -> None:
    chosen = decoder(only="kind=cpu|mem,tags.dc=eu")
    records = [
        WIDE | {"kind": "cpu", "tags": {"dc": "eu"}},
        WIDE | {"kind": "disk", "tags": {"dc": "eu"}},
        WIDE | {"kind": "mem", "tags": {"dc": "us"}},
        WIDE | {"kind": "mem"},
        {"kind": "disk"},
        None,
    ]
    events, rejections = chosen.decode(of(*records))
    assert (events.rows.tolist(), events.left_out, rejections) == ([0, 0], 5, [])
    assert refused(chosen, b"{")[1][0][1] is Reason.NOT_JSON


def test_only_elements_that_meet_a_condition_are_taken() -> None:
    fields = {"unique_id": "m[].name", "ds": "m[].t", "y": "m[].v"}
    record = {"m": [{"name": name, "t": NOON_MS, "v": 1, "ok": ok} for name, ok in (("a", True), ("b", False))]}
    events, _ = decoder(fields, only="m[].ok=true").decode(of(record))
    assert (events.unique_ids, events.left_out) == (["a"], 1)


def test_a_change_event_of_debezium_is_read_by_path() -> None:
    fields = {"unique_id": "payload.after.id", "ds": "payload.after.at", "y": "payload.after.t", "ds_unit": "us"}
    chosen = decoder(fields, only="payload.op=c|r|u")
    after = {"id": 7, "at": NOON_MS * 1000, "t": 21.5}
    records = [{"schema": {}, "payload": {"op": op, "before": None, "after": after}} for op in "cru"]
    records.append({"schema": {}, "payload": {"op": "d", "before": after, "after": None}})
    events, rejections = chosen.decode(of(*records, None))
    assert rejections == []
    assert rows(events) == [("7", NOON_MS, 21.5)] * 3
    assert events.left_out == 2, "a deletion, and its tombstone"


TELEGRAF = {
    "name": "cpu",
    "tags": {"host": "w", "cpu": "cpu0"},
    "fields": {"usage_user": 3.5, "usage_idle": 90, "note": "x"},
    "timestamp": NOON_MS // 1000,
}
INFLUX = b'cpu,host=w,cpu=cpu0 usage_user=3.5,usage_idle=90i,note="x" %d' % (NOON_MS * 1_000_000)
CPU = [("cpu/cpu=cpu0/host=w/usage_user", NOON_MS, 3.5), ("cpu/cpu=cpu0/host=w/usage_idle", NOON_MS, 90.0)]


@pytest.mark.parametrize("record", [TELEGRAF, [TELEGRAF], {"metrics": [TELEGRAF]}])
def test_telegrafs_json_needs_no_mapping(record: object) -> None:
    assert read(decoder({}, format="telegraf"), record) == CPU


def test_line_protocol_needs_no_mapping() -> None:
    assert read(decoder({}, format="influx"), INFLUX) == CPU
    assert read(decoder({}, format="influx"), b"# comment\n" + INFLUX + b"\n\n" + INFLUX + b"\r\n") == CPU * 2


@pytest.mark.parametrize(("name", "value"), [("telegraf", json.dumps(TELEGRAF).encode()), ("influx", INFLUX)])
def test_metrics_take_a_mapping_of_their_own(name: str, value: bytes) -> None:
    fields = {"unique_id": "tags.host,tags.cpu", "y": "fields.usage_user"}
    assert read(decoder(fields, format=name, only="name=cpu"), value) == [("w/cpu0", NOON_MS, 3.5)]
    events, _ = decoder(fields, format=name, only="name=mem").decode(of(value))
    assert (len(events), events.left_out) == (0, 1)
    in_ms = value.replace(b"%d000000" % NOON_MS, b"%d" % NOON_MS).replace(
        b": %d" % (NOON_MS // 1000), b": %d" % NOON_MS
    )
    assert read(decoder(fields | {"ds_unit": "ms"}, format=name), in_ms) == [("w/cpu0", NOON_MS, 3.5)]


@pytest.mark.parametrize(
    ("line", "metric"),
    [
        (rb"a\ b\,c,t\=1=x\ y v=1", {"name": "a b,c", "tags": {"t=1": "x y"}, "fields": {"v": 1.0}}),
        (b'm a="x, y=\\"z\\" \\\\",b=t,c=False,d=-1.5e3,e=7u 12', {
            "name": "m", "tags": {}, "timestamp": 12,
            "fields": {"a": 'x, y="z" \\', "b": True, "c": False, "d": -1500.0, "e": 7},
        }),
        (b"m  v=1i  -5 ", {"name": "m", "tags": {}, "fields": {"v": 1}, "timestamp": -5}),
    ],
)  # fmt: skip
def test_line_protocol_is_read_as_its_reference_says(line: bytes, metric: dict[str, Any]) -> None:
    from rillcast.codecs.observations.influx import read_lines

    assert read_lines(line) == [metric]


@pytest.mark.parametrize(
    "line",
    [
        b"m", b"m v", b"m v=", b"m v=x", b"m,t v=1", b"m,t= v=1", b"m v=1 x", b"m v=1,", b'm v="x', b"m v=1ii",
        b" ,v=1", b"{}",
    ],
)  # fmt: skip
def test_another_syntax_is_a_dead_letter_with_its_place(line: bytes) -> None:
    ids, ((row, reason, detail),) = refused(decoder({}, format="influx"), INFLUX + b"\n" + line, INFLUX)
    assert (ids, row, reason) == ([unique_id for unique_id, *_ in CPU], 0, Reason.NOT_INFLUX)
    assert detail.startswith("line 2, column ")


def test_a_metric_without_a_time_has_that_of_its_record() -> None:
    value = b"m v=1"
    zeros = np.zeros(1, np.int64)
    events, _ = decoder({"ds": "$timestamp"}, format="influx").decode(
        Polled(zeros, zeros, zeros + NOON_MS, [None], [value])
    )
    assert rows(events) == [("m/v", NOON_MS, 1.0)]
    assert refused(decoder({}, format="influx"), value)[1][0][1:] == (
        Reason.MISSING_FIELD,
        "[0]: the record has no [].timestamp",
    )


@pytest.mark.parametrize("name", ["json", "msgpack", "avro", "protobuf", "json_schema"])
def test_every_format_can_be_wide(name: str) -> None:
    registry = mock_registry()
    write = writer_of(name, registry)
    chosen = ObservationDecoder(form=format_of(name, registry), expansion=Expansion("unique_id,unique_id", "ds", "y,z"))
    value = write({"unique_id": "a", "ds": NOON_MS, "y": 1.5})
    assert rows(chosen.decode(polled([value]))[0]) == [("a/a/y", NOON_MS, 1.5)]
    ids, ((_, reason, _),) = refused(chosen, value[:-3] if name != "protobuf" else value[:8])
    assert (ids, reason in Reason) == ([], True)


BAD = [
    ("no observation", {"host": "a", "at": NOON_MS}, Reason.MISSING_FIELD, "expected a number in cpu, mem"),
    ("no part of the id", {"at": NOON_MS, "cpu": 1}, Reason.MISSING_FIELD, "host"),
    ("a part of the id is null", {"host": None, "at": NOON_MS, "cpu": 1}, Reason.WRONG_TYPE, "host"),
    ("a part of the id is empty", {"host": "", "at": NOON_MS, "cpu": 1}, Reason.BAD_ID, "host"),
    ("a part of the id is an object", {"host": {}, "at": NOON_MS, "cpu": 1}, Reason.WRONG_TYPE, "host"),
    ("no time", {"host": "a", "cpu": 1}, Reason.MISSING_FIELD, "at"),
    ("a time of another type", {"host": "a", "at": [], "cpu": 1}, Reason.WRONG_TYPE, "at"),
    ("text", {"host": "a", "at": NOON_MS, "cpu": "high"}, Reason.WRONG_TYPE, "cpu"),
    ("a truth value", {"host": "a", "at": NOON_MS, "cpu": True}, Reason.WRONG_TYPE, "cpu"),
    ("an object", {"host": "a", "at": NOON_MS, "cpu": {}}, Reason.WRONG_TYPE, "cpu"),
    ("too large", {"host": "a", "at": NOON_MS, "cpu": 1e16}, Reason.Y_OUT_OF_RANGE, "max_abs_y"),
    ("far too large", {"host": "a", "at": NOON_MS, "cpu": 10**400}, Reason.Y_OUT_OF_RANGE, ""),
    ("an id that is too long", {"host": "a" * 600, "at": NOON_MS, "cpu": 1}, Reason.BAD_ID, "max_id_bytes"),
    ("no object", [1], Reason.MISSING_FIELD, "host"),
    ("no JSON", b"{", Reason.NOT_JSON, ""),
    ("not UTF-8", b'{"host": "\xff"}', Reason.NOT_UTF8, ""),
    ("nothing", None, Reason.EMPTY, ""),
]  # fmt: skip


@pytest.mark.parametrize(("record", "reason", "detail"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_a_bad_record_is_a_dead_letter_and_stops_no_other(record: object, reason: Reason, detail: str) -> None:
    ids, found = refused(decoder(), WIDE, record, WIDE)
    assert ids == ["web-17/cpu", "web-17/mem"] * 2
    ((row, why, said),) = found
    assert (row, why) == (1, reason)
    assert detail in said


def test_one_bad_member_costs_its_own_event_and_the_record_is_one_dead_letter() -> None:
    fields = {"unique_id": "host", "ds": "at", "y": "a,b,c"}
    ids, ((row, reason, detail),) = refused(decoder(fields), {"host": "h", "at": NOON_MS, "a": "x", "b": 2, "c": "y"})
    assert (ids, row, reason) == (["h/b"], 0, Reason.WRONG_TYPE)
    assert detail.startswith("a: found 'x'")
    assert detail.endswith("(and 1 more of this record)")


def test_one_bad_element_costs_its_own_events() -> None:
    fields = {"unique_id": "d", "ds": "r[].t", "y": "r[].v"}
    record = {"d": "x", "r": [{"t": NOON_MS, "v": 1}, {"v": 2}, 7, {"t": NOON_MS + 1, "v": 3}]}
    ids, ((_, reason, detail),) = refused(decoder(fields), record)
    assert (ids, reason) == (["x", "x"], Reason.MISSING_FIELD)
    assert detail == "r[1]: the record has no r[].t (and 1 more of this record)"
    for array, expected in ((None, Reason.MISSING_FIELD), ({}, Reason.WRONG_TYPE), ("ab", Reason.WRONG_TYPE)):
        assert refused(decoder(fields), {"d": "x", "r": array})[1][0][1] is expected


def test_an_object_without_tags_has_no_id() -> None:
    fields = {"unique_id": "tags.*", "ds": "at", "y": "v"}
    some: list[object] = [{}, None, 3]
    for tags in some:
        ids, ((_, reason, detail),) = refused(decoder(fields), {"tags": tags, "at": NOON_MS, "v": 1})
        assert (ids, reason, detail) == ([], Reason.BAD_ID, "tags.*: no part of the id is there")


def test_covariates_belong_to_every_event_of_a_record() -> None:
    declared = (Covariate("price", "known"), Covariate("region", "category", categories=("north",)))
    record = WIDE | {"x": {"price": 2, "region": "north"}, "future": {"price": [3, None]}}
    events, rejections = decoder(None, declared).decode(of(record, record | {"x": {"price": "dear"}}))
    assert [one.reason for one in rejections] == [Reason.WRONG_TYPE]
    assert events.unique_ids == ["web-17/cpu", "web-17/mem"]
    assert events.x is not None
    assert events.x[:, 0].tolist() == [2.0, 2.0]
    assert events.future is not None
    np.testing.assert_array_equal(events.future[0, 0], np.array([3, np.nan], np.float32))


@pytest.mark.parametrize(
    ("fields", "given", "what"),
    [
        ({"y": "a,,b"}, {}, "a name in it is empty"),
        ({"y": "a[].v"}, {}, "need a ds or a unique_id of their own"),
        ({"ds": "a[].t", "y": "b[].v"}, {}, "different arrays"),
        ({"unique_id": "$timestamp,host"}, {}, "input.fields.unique_id"),
        ({"unique_id": "", "y": "a,b"}, {}, "only a file may have"),
        ({}, {"only": "kind"}, "MEMBER=TEXT"),
    ],
)
def test_a_mapping_that_means_nothing_is_refused_at_the_start(
    fields: dict[str, str], given: dict[str, Any], what: str
) -> None:
    with pytest.raises((SettingsError, ValueError), match=what):
        decoder(fields, **given)


def test_one_member_each_is_read_by_the_faster_way() -> None:
    assert decoder({"unique_id": "a.b", "ds": "at", "y": "v"})._expanded is None
    assert decoder({"unique_id": "$key", "ds": "$timestamp", "y": r"a\,b"})._expanded is None


def test_a_file_is_taken_in_turns_of_entities_and_as_it_stands_where_a_record_has_several() -> None:
    records = [WIDE, WIDE | {"host": "b"}, {"host": "c"}]
    assert decoder().streams(of(*records)) == ["web-17", "b", None]
    inside = decoder({"unique_id": "[].s", "ds": "[].t", "y": "[].a"})
    assert inside.streams(of([{"s": "x", "t": NOON_MS, "a": 1}])) == [None]


class Held:
    """What a caller has at hand."""


def test_a_record_that_is_refused_leaves_with_what_callers_had_at_hand_without_the_garbage_collector() -> None:
    def poll() -> weakref.ref[Held]:
        held = Held()
        assert chosen.decode(polled([b"{"]))[1], "it is refused"
        return weakref.ref(held)

    chosen = decoder()
    gc.disable()
    try:
        assert poll()() is None
    finally:
        gc.enable()
