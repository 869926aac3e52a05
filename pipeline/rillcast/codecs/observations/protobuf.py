"""Observations in Protocol Buffers, in the Confluent wire format.

The message is `rillcast.v1.Observation` (`docs/schemas/observation.proto`), or another message whose descriptors are
given (`protoc --include_imports --descriptor_set_out`). Its schema must be in the registry, where Confluent's
serialisers put it. A protobuf message contains no names, so the local descriptor reads the bytes. A zero member without
presence counts as zero; an unset member with presence counts as absent. A wrapper (`google.protobuf.DoubleValue`,
`StringValue`, ...) or a `google.protobuf.Value` is what it contains, and a `google.protobuf.Timestamp` is a time.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    json_format,
    message_factory,
    struct_pb2,
    timestamp_pb2,
    wrappers_pb2,
)
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from rillcast.codecs.observations.format import reason_of_shape
from rillcast.codecs.observations.rejections import Reason, RefusedError
from rillcast.codecs.schema_registry import Registry
from rillcast.errors import SettingsError

OBSERVATION: Final = "rillcast.v1.Observation"
_TIMESTAMP: Final = timestamp_pb2.Timestamp.DESCRIPTOR.full_name
_WRAPPERS: Final = frozenset(one.full_name for one in wrappers_pb2.DESCRIPTOR.message_types_by_name.values())
_ANY_VALUE: Final = struct_pb2.Value.DESCRIPTOR.full_name
_Reader = Callable[[Message], dict[str, Any]]


class ProtobufFormat:
    """Implements `rillcast.codecs.observations.format.Format`."""

    def __init__(self, registry: Registry, message: type[Message]) -> None:
        from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer

        self._registry = registry
        self._descriptor: Any = message.DESCRIPTOR  # its class depends on protobuf's implementation
        # Given the registry, it would look up the writer's descriptors for rules, which only Confluent's registry
        # serves in the form that it needs.
        self._deserialize = ProtobufDeserializer(message, {"use.deprecated.format": False})

    def decoder(self, shape: type[Any]) -> Callable[[bytes], Any]:
        """Return confluent-kafka's deserialiser followed by a check of the members.

        `Any` as the shape takes the whole message, with the names of its members and the values of its JSON form.
        """
        require, deserialize = self._registry.require, self._deserialize
        whole = shape is Any
        members = _whole if whole else _reader(self._descriptor, shape)

        def decode(value: bytes) -> Any:
            require(value, "PROTOBUF")
            try:
                message = deserialize(value)
            except Exception as error:  # the frame's varints and protobuf's parser raise unrelated types
                raise RefusedError(Reason.NOT_PROTOBUF, f"{type(error).__name__}: {error}") from error
            return members(message) if whole else msgspec.convert(members(message), shape)

        return decode

    def refusal(self, value: bytes, error: Exception) -> tuple[Reason, str]:  # noqa: ARG002  the error has all facts
        """Return why the value is no observation."""
        if isinstance(error, msgspec.ValidationError):
            return reason_of_shape(error)
        return Reason.WRONG_TYPE, str(error)


def observation_message() -> type[Message]:
    """Return the class of `rillcast.v1.Observation`, as `docs/schemas/observation.proto` defines it."""
    file = descriptor_pb2.FileDescriptorProto(
        name="rillcast/v1/observation.proto",
        package="rillcast.v1",
        syntax="proto3",
        dependency=[timestamp_pb2.DESCRIPTOR.name],
    )
    message = file.message_type.add(name="Observation")
    kinds, optional = descriptor_pb2.FieldDescriptorProto, descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL
    message.field.add(name="unique_id", number=1, type=kinds.TYPE_STRING, label=optional)
    message.field.add(
        name="ds", number=2, type=kinds.TYPE_MESSAGE, label=optional, type_name=f".{_TIMESTAMP}", json_name="ds"
    )
    message.field.add(name="y", number=3, type=kinds.TYPE_DOUBLE, label=optional, proto3_optional=True, oneof_index=0)
    message.oneof_decl.add(name="_y")
    value = file.message_type.add(name="Value")
    value.oneof_decl.add(name="kind")
    value.field.add(name="number", number=1, type=kinds.TYPE_DOUBLE, label=optional, oneof_index=0)
    value.field.add(name="text", number=2, type=kinds.TYPE_STRING, label=optional, oneof_index=0)
    numbers = file.message_type.add(name="Numbers")
    numbers.field.add(name="values", number=1, type=kinds.TYPE_DOUBLE, label=kinds.LABEL_REPEATED)
    for name, number, of, entry in (("x", 4, "Value", "XEntry"), ("future", 5, "Numbers", "FutureEntry")):
        pair = message.nested_type.add(name=entry)
        pair.options.map_entry = True
        pair.field.add(name="key", number=1, type=kinds.TYPE_STRING, label=optional)
        pair.field.add(name="value", number=2, type=kinds.TYPE_MESSAGE, label=optional, type_name=f".rillcast.v1.{of}")
        where = f".{OBSERVATION}.{entry}"
        message.field.add(
            name=name, number=number, type=kinds.TYPE_MESSAGE, label=kinds.LABEL_REPEATED, type_name=where
        )
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    found: type[Message] = message_factory.GetMessageClass(pool.FindMessageTypeByName(OBSERVATION))
    return found


def message_from_descriptors(path: Path, name: str) -> type[Message]:
    """Return the class of message `name` from a file that `protoc --descriptor_set_out` wrote.

    Raises:
        SettingsError: The file cannot be read, is no descriptor set, or has no such message.
    """
    try:
        files = descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes())
        pool = descriptor_pool.DescriptorPool()
        for file in files.file:
            pool.Add(file)
        found: type[Message] = message_factory.GetMessageClass(pool.FindMessageTypeByName(name))
    except OSError as error:
        raise SettingsError(f"input.protobuf_descriptors {path}: {error.strerror or error}") from error
    except Exception as error:  # protobuf raises DecodeError, TypeError or KeyError
        raise SettingsError(
            f"input.protobuf_descriptors {path}: no message {name!r} in it ({error}); write the file with "
            f"`protoc --include_imports --descriptor_set_out`"
        ) from error
    return found


def _whole(message: Message) -> dict[str, Any]:
    members: dict[str, Any] = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return members


def _reader(descriptor: Descriptor, shape: type[msgspec.Struct]) -> _Reader:
    """Return a function that takes the members of `shape` that are set from a message.

    Raises:
        SettingsError: The message has no such member.
    """
    steps: list[tuple[FieldDescriptor, Callable[[Any], Any]]] = []
    for member in msgspec.structs.fields(shape):
        field = descriptor.fields_by_name.get(member.encode_name)
        if field is None:
            raise SettingsError(
                f"message {descriptor.full_name} has no member {member.encode_name!r}, it has "
                f"{sorted(descriptor.fields_by_name)}; set input.fields"
            )
        steps.append((field, _value_of(field, member.type)))

    def read(message: Message) -> dict[str, Any]:
        return {
            field.name: value_of(getattr(message, field.name))
            for field, value_of in steps
            if not field.has_presence or message.HasField(field.name)
        }

    return read


def _value_of(field: FieldDescriptor, wanted: Any) -> Callable[[Any], Any]:
    inner = next((part for part in _alternatives(wanted) if _is_struct(part)), None)
    if inner is not None and field.message_type is not None and field.message_type.GetOptions().map_entry:
        return _from_map
    if inner is not None and field.message_type is not None:
        return _reader(field.message_type, inner)
    kind = None if field.message_type is None else field.message_type.full_name
    if kind == _TIMESTAMP:
        return _moment
    if kind in _WRAPPERS:
        return lambda wrapper: wrapper.value
    if kind == _ANY_VALUE:
        return _of_any_value
    return lambda value: value


def _from_map(found: Any) -> dict[str, Any]:
    """Return the members of a map of `Value`, `Numbers` or plain numbers."""
    return {name: _plain(value) for name, value in found.items()}


def _plain(value: Any) -> Any:
    if not isinstance(value, Message):
        return value
    for field, inner in value.ListFields():
        return list(inner) if field.name == "values" else inner
    return None


def _of_any_value(value: Any) -> Any:
    which = value.WhichOneof("kind")
    return None if which in (None, "null_value") else getattr(value, which)


def _moment(timestamp: Any) -> dt.datetime:
    try:
        moment: dt.datetime = timestamp.ToDatetime(tzinfo=dt.UTC)
    except (ValueError, OverflowError) as error:
        raise RefusedError(Reason.DS_OUT_OF_RANGE, f"ds: {error}") from error
    return moment


def _alternatives(wanted: Any) -> Sequence[Any]:
    return getattr(wanted, "__args__", None) or (wanted,)


def _is_struct(part: Any) -> bool:
    return isinstance(part, type) and issubclass(part, msgspec.Struct)
