"""Writers of observations in each format, the registry ones through confluent-kafka's serialisers.

A writer takes the members of one observation and returns the bytes that a producer would send.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from typing import Any, Final

import msgspec
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from rillcast.codecs.observations.avro import AvroFormat
from rillcast.codecs.observations.format import Format
from rillcast.codecs.observations.json import JsonFormat
from rillcast.codecs.observations.json_schema import JsonSchemaFormat
from rillcast.codecs.observations.msgpack import MessagePackFormat
from rillcast.codecs.observations.protobuf import ProtobufFormat, observation_message
from rillcast.codecs.schema_registry import Registry
from rillcast.settings import RegistrySettings
from tests.support.paths import ROOT

Writer = Callable[[dict[str, Any]], bytes]

SCHEMAS: Final = ROOT / "docs" / "schemas"
FORMATS: Final = ("json", "msgpack", "avro", "protobuf", "json_schema")
_TOPIC_NAMES: Final = {"subject.name.strategy.type": "TOPIC"}


def mock_registry() -> Registry:
    """Return a registry inside this process (confluent-kafka's test double)."""
    return Registry(RegistrySettings(url="mock://registry"))


def format_of(name: str, registry: Registry, *, validate: bool = False) -> Format:
    """Return the format that reads."""
    match name:
        case "json":
            return JsonFormat()
        case "msgpack":
            return MessagePackFormat()
        case "avro":
            return AvroFormat(registry)
        case "protobuf":
            return ProtobufFormat(registry, observation_message())
        case _:
            return JsonSchemaFormat(registry, validate=validate)


def writer_of(name: str, registry: Registry, topic: str = "observations") -> Writer:
    """Return the writer; it takes `ds` in milliseconds."""
    context = SerializationContext(topic, MessageField.VALUE)
    if name == "json":
        return lambda members: json.dumps(members).encode()
    if name == "msgpack":
        return msgspec.msgpack.encode
    if name == "avro":
        schema = (SCHEMAS / "observation.avsc").read_text()
        avro = AvroSerializer(registry.client, schema, conf=_TOPIC_NAMES)
        return lambda members: bytes(avro({"y": None} | members, context))
    if name == "json_schema":
        schema = (SCHEMAS / "observation.schema.json").read_text()
        plain = JSONSerializer(schema, registry.client, conf=_TOPIC_NAMES)
        return lambda members: bytes(plain(members, context))
    kind = observation_message()
    protobuf = ProtobufSerializer(kind, registry.client, _TOPIC_NAMES)

    def write(members: dict[str, Any]) -> bytes:
        message: Any = kind(unique_id=members["unique_id"])
        message.ds.FromDatetime(dt.datetime.fromtimestamp(members["ds"] / 1000, dt.UTC))
        if members.get("y") is not None:
            message.y = members["y"]
        for name, value in members.get("x", {}).items():
            setattr(message.x[name], "text" if isinstance(value, str) else "number", value)
        for name, values in members.get("future", {}).items():
            message.future[name].values.extend(values)
        return bytes(protobuf(message, context))

    return write
