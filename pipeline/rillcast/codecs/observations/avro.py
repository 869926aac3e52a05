"""Observations in Avro, in the Confluent wire format, read with the schema that the writer registered.

Members are found by name, so a record may have further members and its schema may change. `ds` may be a long or a
timestamp (`timestamp-millis`, `-micros`, local ones as UTC). Avro has a NaN: a `y` that is NaN is missing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from rillcast.codecs.observations.format import reason_of_shape
from rillcast.codecs.observations.rejections import Reason, RefusedError
from rillcast.codecs.schema_registry import Registry
from rillcast.errors import RillcastError


class AvroFormat:
    """Implements `rillcast.codecs.observations.format.Format`."""

    def __init__(self, registry: Registry) -> None:
        from confluent_kafka.schema_registry.avro import AvroDeserializer

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
