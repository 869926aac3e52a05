"""Observations in JSON with a JSON Schema in a registry, in the Confluent wire format.

The payload is read like plain JSON. With `registry.validate_json` it is also validated against the schema that its
writer registered. Validation takes about ten times as long, and may fetch other schemas to which the schema refers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from rillcast.codecs.observations.json import JsonFormat
from rillcast.codecs.observations.rejections import Reason, RefusedError
from rillcast.codecs.schema_registry import Registry
from rillcast.errors import RillcastError

_FRAME: Final = 5


class JsonSchemaFormat:
    """Implements `rillcast.codecs.observations.format.Format`."""

    def __init__(self, registry: Registry, *, validate: bool) -> None:
        from confluent_kafka.schema_registry.json_schema import JSONDeserializer
        from confluent_kafka.serialization import MessageField, SerializationContext

        self._registry = registry
        self._validate: Callable[[bytes], Any] | None = None
        if validate:
            context = SerializationContext("observations", MessageField.VALUE)
            deserialize = JSONDeserializer(
                None,
                schema_registry_client=registry.asked,
                conf={"subject.name.strategy": lambda _context, _name: None},
                json_decode=msgspec.json.decode,
            )
            self._validate = lambda value: deserialize(value, context)
        self._json = JsonFormat()

    def decoder(self, shape: type[Any]) -> Callable[[bytes], Any]:
        """Return a check of the frame, the validation if it is on, then msgspec's decoder."""
        require, validate = self._registry.require, self._validate
        read = self._json.decoder(shape)

        def decode(value: bytes) -> Any:
            require(value, "JSON")
            if validate is not None:
                try:
                    validate(value)
                except (RillcastError, RefusedError, msgspec.MsgspecError):
                    raise
                except Exception as error:  # the validator raises unrelated types
                    raise RefusedError(Reason.SCHEMA_VIOLATION, str(error)) from error
            return read(value[_FRAME:])

        return decode

    def refusal(self, value: bytes, error: Exception) -> tuple[Reason, str]:
        """Return why the value is no observation."""
        return self._json.refusal(value[_FRAME:], error)
