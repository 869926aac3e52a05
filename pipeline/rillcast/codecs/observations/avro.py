"""Observations in Avro, in the Confluent wire format, read with the schema that the writer registered.

Members are found by name, so a record may have further members and its schema may change. A logical type has the one
meaning that it says: a `ds` may be a timestamp (`timestamp-millis`, `-micros`, `-nanos`, local ones as UTC) or `date`,
a `y` a `decimal`, an id a `uuid`, which stays the text that it is. A time of day is no `ds`. Avro has a NaN: a `y` that
is NaN is missing.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable
from typing import Any, Final

import msgspec

from rillcast.codecs.observations.format import reason_of_shape
from rillcast.codecs.observations.rejections import Reason, RefusedError
from rillcast.codecs.schema_registry import Registry
from rillcast.errors import RillcastError

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class AvroFormat:
    """Implements `rillcast.codecs.observations.format.Format`."""

    def __init__(self, registry: Registry) -> None:
        from confluent_kafka.schema_registry.avro import AvroDeserializer

        _read_logical_types()
        self._registry = registry
        self._deserialize = AvroDeserializer(registry.asked)

    def decoder(self, shape: type[Any]) -> Callable[[bytes], Any]:
        """Return confluent-kafka's deserialiser followed by a check of the members."""
        require, deserialize = self._registry.require, self._deserialize

        def decode(value: bytes) -> Any:
            require(value, "AVRO")
            try:
                document = deserialize(value)
            except (RillcastError, RefusedError):
                raise
            except Exception as error:  # fastavro raises unrelated types
                raise RefusedError(Reason.NOT_AVRO, f"{type(error).__name__}: {error}") from error
            return msgspec.convert(document, shape)

        return decode

    def refusal(self, value: bytes, error: Exception) -> tuple[Reason, str]:  # noqa: ARG002  the error has all facts
        """Return why the value is no observation."""
        if isinstance(error, msgspec.ValidationError):
            return reason_of_shape(error)
        return Reason.WRONG_TYPE, str(error)


def _read_logical_types() -> None:
    """Teach fastavro logical types that it does not have, and the text of a `uuid`, which it would rewrite.

    `LOGICAL_READERS` is fastavro's own place for this (its documentation: "Using Custom Logical Types").
    """
    from fastavro.read import LOGICAL_READERS

    LOGICAL_READERS["string-uuid"] = lambda text, *_schemas: text
    LOGICAL_READERS["fixed-uuid"] = lambda data, *_schemas: str(uuid.UUID(bytes=data))
    for name in ("long-timestamp-nanos", "long-local-timestamp-nanos"):
        LOGICAL_READERS[name] = lambda nanos, *_schemas: _EPOCH + dt.timedelta(microseconds=nanos // 1_000)
