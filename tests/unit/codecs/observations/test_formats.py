"""Every format reads what its writers write, and refuses other values with the reason."""

from __future__ import annotations

import datetime as dt
import io
import json
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import fastavro
import msgspec
import numpy as np
import pytest
from confluent_kafka.schema_registry import Schema
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from rillcast.codecs.observations.avro import AvroFormat
from rillcast.codecs.observations.decoder import ObservationDecoder
from rillcast.codecs.observations.fields import Fields
from rillcast.codecs.observations.json_schema import JsonSchemaFormat
from rillcast.codecs.observations.msgpack import MessagePackFormat
from rillcast.codecs.observations.protobuf import ProtobufFormat, message_from_descriptors
from rillcast.codecs.observations.rejections import Reason
from rillcast.codecs.schema_registry import Registry
from rillcast.errors import SettingsError
from rillcast.settings import RegistrySettings
from tests.support.formats import FORMATS, format_of, mock_registry, writer_of
from tests.support.hostile import NOON_MS, polled

GOOD = {"unique_id": "a", "ds": NOON_MS, "y": 1.5}
WITH_REGISTRY = ("avro", "protobuf", "json_schema")


def reasons(decoder: ObservationDecoder, *values: bytes | None) -> list[Reason]:
    events, rejections = decoder.decode(polled(values))
    assert len(events) + len(rejections) == len(values)
    return [rejection.reason for rejection in rejections]


@pytest.mark.parametrize("name", FORMATS)
def test_written_records_are_read(name: str) -> None:
    registry = mock_registry()
    write, decoder = writer_of(name, registry), ObservationDecoder(form=format_of(name, registry))
    events, rejections = decoder.decode(polled([write(GOOD), write({"unique_id": "€", "ds": NOON_MS + 1, "y": -2.0})]))
    assert rejections == []
    assert events.unique_ids == ["a", "€"]
    assert events.ds.tolist() == [NOON_MS, NOON_MS + 1]
    assert events.y.tolist() == [1.5, -2.0]


@pytest.mark.parametrize("name", FORMATS)
def test_an_absent_observation_is_missing_and_zero_is_not(name: str) -> None:
    registry = mock_registry()
    write, decoder = writer_of(name, registry), ObservationDecoder(form=format_of(name, registry))
    events, rejections = decoder.decode(polled([write({"unique_id": "a", "ds": NOON_MS}), write(GOOD | {"y": 0.0})]))
    assert rejections == []
    assert np.isnan(events.y).tolist() == [True, False]


@pytest.mark.parametrize("name", FORMATS)
def test_garbage_is_refused_and_its_neighbours_are_kept(name: str) -> None:
    registry = mock_registry()
    write, decoder = writer_of(name, registry), ObservationDecoder(form=format_of(name, registry))
    good = write(GOOD)
    events, rejections = decoder.decode(polled([good, b"\xff\xfe garbage \x00", None, good]))
    assert events.rows.tolist() == [0, 3]
    expected = {"json": Reason.NOT_UTF8, "msgpack": Reason.NOT_MSGPACK}.get(name, Reason.NOT_FRAMED)
    # A lone byte is a number in MessagePack: well-formed, and no map.
    assert rejections[0].reason in (expected, Reason.WRONG_TYPE)
    assert rejections[1].reason is Reason.EMPTY


@pytest.mark.parametrize("name", WITH_REGISTRY)
def test_a_cut_payload_is_refused(name: str) -> None:
    registry = mock_registry()
    write, decoder = writer_of(name, registry), ObservationDecoder(form=format_of(name, registry))
    (reason,) = reasons(decoder, write(GOOD)[:8])
    assert (
        reason
        in {
            "avro": (Reason.NOT_AVRO,),
            "protobuf": (Reason.NOT_PROTOBUF,),
            "json_schema": (Reason.NOT_JSON,),
        }[name]
    )


@pytest.mark.parametrize("name", WITH_REGISTRY)
def test_a_schema_that_is_not_there_is_the_records_fault(name: str) -> None:
    registry = mock_registry()
    write, decoder = writer_of(name, registry), ObservationDecoder(form=format_of(name, registry))
    good = write(GOOD)
    for number in (999, 2**31 - 1, 2**32 - 1):
        assert reasons(decoder, b"\0" + number.to_bytes(4, "big") + good[5:], good) == [Reason.UNKNOWN_SCHEMA]


@pytest.mark.parametrize("name", WITH_REGISTRY)
def test_a_schema_of_another_type_is_refused(name: str) -> None:
    registry = mock_registry()
    write, decoder = writer_of(name, registry), ObservationDecoder(form=format_of(name, registry))
    good = write(GOOD)
    other = Schema('"string"', "AVRO") if name != "avro" else Schema("{}", "JSON")
    number = registry.client.register_schema("other-value", other)
    assert reasons(decoder, b"\0" + number.to_bytes(4, "big") + good[5:]) == [Reason.UNKNOWN_SCHEMA]


def test_a_guid_frame_is_refused() -> None:
    decoder = ObservationDecoder(form=AvroFormat(mock_registry()))
    assert reasons(decoder, b"\x01" + bytes(20)) == [Reason.NOT_FRAMED]


def test_an_unknown_schema_is_asked_for_once_in_a_while() -> None:
    now = [0.0]
    registry = Registry(RegistrySettings(url="mock://registry"), clock=lambda: now[0])
    asked: list[int] = []
    answer = registry.client.get_schema

    def get_schema(number: int) -> Any:
        asked.append(number)
        return answer(number)

    registry.client.get_schema = get_schema
    decoder = ObservationDecoder(form=AvroFormat(registry))
    record = b"\0\0\0\x03\xe7payload"
    # Each poll looks twice at a bad record: once with its neighbours, once alone.
    for _ in range(3):
        assert reasons(decoder, record) == [Reason.UNKNOWN_SCHEMA]
    assert asked == [999]
    now[0] += 60
    assert reasons(decoder, record) == [Reason.UNKNOWN_SCHEMA]
    assert asked == [999, 999]


def avro_writer(registry: Registry, schema: object) -> Any:
    write = AvroSerializer(registry.client, json.dumps(schema), conf={"subject.name.strategy.type": "TOPIC"})
    return lambda members: write(members, SerializationContext("t", MessageField.VALUE))


def test_avro_members_are_mapped_from_any_schema() -> None:
    registry = mock_registry()
    write = avro_writer(
        registry,
        {
            "type": "record",
            "name": "Reading",
            "fields": [
                {"name": "device", "type": {"type": "record", "name": "D", "fields": [{"name": "id", "type": "int"}]}},
                {"name": "at", "type": "long"},
                {"name": "measurement", "type": ["null", "float"]},
            ],
        },
    )
    decoder = ObservationDecoder(
        form=AvroFormat(registry), fields=Fields("device.id", "at", "measurement", ds_unit="s")
    )
    values = [write({"device": {"id": 7}, "at": NOON_MS // 1000, "measurement": y}) for y in (0.5, None, float("nan"))]
    events, rejections = decoder.decode(polled(values))
    assert rejections == []
    assert events.unique_ids == ["7"] * 3
    assert events.ds.tolist() == [NOON_MS] * 3
    np.testing.assert_array_equal(events.y, np.array([0.5, np.nan, np.nan], np.float32))


DEVICE = "0F8FAD5B-d9cb-469f-a165-70867728950e"  # in capitals, which stay
LOGICAL_IDS = [
    ({"type": "string", "logicalType": "uuid"}, DEVICE, DEVICE),
    ({"type": "fixed", "name": "U", "size": 16, "logicalType": "uuid"}, bytes(15) + b"\x07", str(uuid.UUID(int=7))),
    ("long", 7, "7"),
    ("bytes", b"web", "web"),
    ({"type": "enum", "name": "E", "symbols": ["north"]}, "north", "north"),
]


@pytest.mark.parametrize(("kind", "given", "right"), LOGICAL_IDS)
def test_an_avro_id_of_a_logical_type_is_its_text(kind: object, given: object, right: str) -> None:
    events, rejections = decoded(avro_fields(unique_id=(kind, given)))
    assert (events.unique_ids, rejections) == ([right], [])


LOGICAL_TIMES = [
    ("timestamp-millis", "long", NOON_MS),
    ("timestamp-micros", "long", NOON_MS * 1_000 + 999),
    ("timestamp-nanos", "long", NOON_MS * 1_000_000 + 999_999),
    ("local-timestamp-nanos", "long", NOON_MS * 1_000_000),
    ("date", "int", NOON_MS // 86_400_000),
]


@pytest.mark.parametrize(("logical", "kind", "given"), LOGICAL_TIMES)
def test_an_avro_time_of_a_logical_type_has_its_unit(logical: str, kind: str, given: int) -> None:
    events, rejections = decoded(avro_fields(ds=({"type": kind, "logicalType": logical}, given)))
    assert rejections == []
    assert events.ds.tolist() == [NOON_MS - (12 * 3_600_000 if logical == "date" else 0)]


def test_an_avro_time_of_day_is_no_time() -> None:
    _, rejections = decoded(avro_fields(ds=({"type": "int", "logicalType": "time-millis"}, 43_200_000)))
    assert [(one.reason, "12:00:00 without a date" in one.detail) for one in rejections] == [(Reason.WRONG_TYPE, True)]


def test_an_avro_decimal_is_a_number() -> None:
    kind = {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 3}
    events, rejections = decoded(avro_fields(y=(kind, Decimal("10.841"))))
    assert (events.y.tolist(), rejections) == ([np.float32(10.841)], [])


def avro_fields(**fields: tuple[object, object]) -> dict[str, tuple[object, object]]:
    return {"unique_id": ("string", "a"), "ds": ("long", NOON_MS), "y": ("double", 1.5)} | fields


def decoded(fields: dict[str, tuple[object, object]]) -> Any:
    """Write a record as an Avro producer does (fastavro, without a writer's checks of ours), and decode it."""
    registry, out = mock_registry(), io.BytesIO()
    schema = {"type": "record", "name": "R", "fields": [{"name": n, "type": kind} for n, (kind, _) in fields.items()]}
    number = registry.client.register_schema("t-value", Schema(json.dumps(schema), "AVRO"))
    plain = json.loads(json.dumps(schema))
    for field in plain["fields"]:
        if isinstance(field["type"], dict) and field["type"].get("logicalType") != "decimal":
            field["type"].pop("logicalType", None)  # the raw number or text is at hand
    fastavro.schemaless_writer(out, fastavro.parse_schema(plain), {name: value for name, (_, value) in fields.items()})
    value = b"\0" + number.to_bytes(4, "big") + out.getvalue()
    return ObservationDecoder(form=AvroFormat(registry)).decode(polled([value]))


def test_wrappers_of_protobuf_are_what_they_contain() -> None:
    file = descriptor_pb2.FileDescriptorProto(name="wrapped.proto", package="t", syntax="proto3")
    file.dependency.extend(["google/protobuf/wrappers.proto", "google/protobuf/struct.proto"])
    message = file.message_type.add(name="Reading")
    kinds = {"unique_id": "StringValue", "ds": "Int64Value", "y": "DoubleValue", "z": "Value"}
    for number, (name, kind) in enumerate(kinds.items(), 1):
        message.field.add(
            name=name, number=number, type=descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE,
            label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL, type_name=f".google.protobuf.{kind}",
        )  # fmt: skip
    pool = descriptor_pool.Default()
    pool.Add(file)
    reading: Any = message_factory.GetMessageClass(pool.FindMessageTypeByName("t.Reading"))
    registry = mock_registry()
    write = ProtobufSerializer(reading, registry.client, {"subject.name.strategy.type": "TOPIC"})
    full, bare = reading(), reading()
    full.unique_id.value, full.ds.value, full.y.value, full.z.number_value = "a", NOON_MS, 2.5, 7.5
    bare.unique_id.value, bare.ds.value = "b", NOON_MS
    values = [bytes(write(one, SerializationContext("t", MessageField.VALUE))) for one in (full, bare)]
    for y, right in (("y", [2.5, np.nan]), ("z", [7.5, np.nan]), ("y.value", [2.5, np.nan])):
        decoder = ObservationDecoder(form=ProtobufFormat(registry, reading), fields=Fields(y=y))
        events, rejections = decoder.decode(polled(values))
        assert (events.unique_ids, events.ds.tolist(), rejections) == (["a", "b"], [NOON_MS] * 2, [])
        np.testing.assert_array_equal(events.y, right)


def test_avro_without_the_members_is_refused() -> None:
    registry = mock_registry()
    write = avro_writer(registry, {"type": "record", "name": "R", "fields": [{"name": "ds", "type": "long"}]})
    decoder = ObservationDecoder(form=AvroFormat(registry))
    assert reasons(decoder, write({"ds": 1})) == [Reason.MISSING_FIELD]


def test_json_is_validated_only_where_the_settings_ask_for_it() -> None:
    registry = mock_registry()
    schema = Schema(json.dumps({"type": "object", "properties": {"y": {"minimum": 0}}}), "JSON")
    number = registry.client.register_schema("t-value", schema)
    value = b"\0" + number.to_bytes(4, "big") + json.dumps(GOOD | {"y": -1}).encode()
    assert reasons(ObservationDecoder(form=JsonSchemaFormat(registry, validate=False)), value) == []
    checked = ObservationDecoder(form=JsonSchemaFormat(registry, validate=True))
    assert reasons(checked, value) == [Reason.SCHEMA_VIOLATION]
    assert reasons(checked, value.replace(b"-1", b" 1")) == []


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", Reason.EMPTY),
        (b"\xc1", Reason.NOT_MSGPACK),
        (b"\xdf\xff\xff\xff\xff", Reason.NOT_MSGPACK),
        (b"\x07", Reason.WRONG_TYPE),
        (msgspec.msgpack.encode({"ds": 1}), Reason.MISSING_FIELD),
        (msgspec.msgpack.encode(GOOD | {"y": float("inf")}), Reason.Y_OUT_OF_RANGE),
        (msgspec.msgpack.encode(GOOD | {"y": "one"}), Reason.WRONG_TYPE),
        (msgspec.msgpack.encode(GOOD | {"unique_id": b"\xff"}), Reason.BAD_ID),
        (msgspec.msgpack.encode(GOOD | {"unique_id": "x" * 600}), Reason.BAD_ID),
        (msgspec.msgpack.encode(GOOD | {"ds": "2024-13-01T00:00:00Z"}), Reason.DS_OUT_OF_RANGE),
        (b"\x81\xa1a" * 100_000, Reason.NOT_MSGPACK),
        (b"\x83\xa9unique_id\xa2\xff\xfe\xa2ds\x00\xa1y\x00", Reason.NOT_UTF8),
    ],
)
def test_bad_messagepack_is_refused_with_its_reason(value: bytes, reason: Reason) -> None:
    assert reasons(ObservationDecoder(form=MessagePackFormat()), value) == [reason]


def test_messagepack_timestamps_and_nan_are_taken() -> None:
    at = dt.datetime(2024, 5, 1, 12, tzinfo=dt.UTC)
    value = msgspec.msgpack.encode({"unique_id": "a", "ds": at, "y": float("nan")})
    events, rejections = ObservationDecoder(form=MessagePackFormat()).decode(polled([value]))
    assert rejections == []
    assert events.ds.tolist() == [NOON_MS]
    assert np.isnan(events.y).all()


def descriptor_file(folder: Path) -> Path:
    """Write what `protoc` would for a message with a nested id, a count without presence and a float observation."""
    file = descriptor_pb2.FileDescriptorProto(name="reading.proto", package="plant", syntax="proto3")
    kinds = descriptor_pb2.FieldDescriptorProto
    tags = file.message_type.add(name="Tags")
    tags.field.add(name="host", number=1, type=kinds.TYPE_STRING, label=kinds.LABEL_OPTIONAL)
    reading = file.message_type.add(name="Reading")
    reading.field.add(
        name="tags", number=1, type=kinds.TYPE_MESSAGE, type_name=".plant.Tags", label=kinds.LABEL_OPTIONAL
    )
    reading.field.add(name="at", number=2, type=kinds.TYPE_INT64, label=kinds.LABEL_OPTIONAL)
    reading.field.add(name="value", number=3, type=kinds.TYPE_FLOAT, label=kinds.LABEL_OPTIONAL)
    path = folder / "reading.desc"
    path.write_bytes(descriptor_pb2.FileDescriptorSet(file=[file]).SerializeToString())
    return path


def test_any_protobuf_message_is_read_by_its_descriptors(tmp_path: Path) -> None:
    registry = mock_registry()
    message = message_from_descriptors(descriptor_file(tmp_path), "plant.Reading")
    number = registry.client.register_schema("t-value", Schema("", "PROTOBUF"))
    frame = b"\0" + number.to_bytes(4, "big") + b"\x02\x02"  # the second message of the file
    decoder = ObservationDecoder(
        form=ProtobufFormat(registry, message), fields=Fields("tags.host", "at", "value", ds_unit="us")
    )
    good = message(tags={"host": "web-1"}, at=NOON_MS * 1000, value=0.0)
    bare = message(at=1)
    events, rejections = decoder.decode(polled([frame + good.SerializeToString(), frame + bare.SerializeToString()]))
    assert events.unique_ids == ["web-1"]
    assert events.ds.tolist() == [NOON_MS]
    assert events.y.tolist() == [0.0], "a member without presence that is zero is zero, not missing"
    assert [r.reason for r in rejections] == [Reason.MISSING_FIELD]


@pytest.mark.parametrize(("content", "name"), [(None, "plant.Nothing"), (b"\xff\xff", "plant.Reading"), (b"", "x")])
def test_descriptors_that_cannot_be_used_are_an_error_of_the_settings(
    tmp_path: Path, content: bytes | None, name: str
) -> None:
    path = descriptor_file(tmp_path)
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match="protobuf_descriptors"):
        message_from_descriptors(path, name)


def test_a_mapping_to_absent_members_is_an_error_of_the_settings() -> None:
    form = format_of("protobuf", mock_registry())
    with pytest.raises(SettingsError, match="no member 'value'"):
        ObservationDecoder(form=form, fields=Fields(y="value"))
