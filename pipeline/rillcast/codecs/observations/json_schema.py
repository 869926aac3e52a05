"""Observations in JSON with a JSON Schema in a registry, in the Confluent wire format.

The payload is read like plain JSON. Whether it also keeps the schema that its writer registered is the writer's
business unless `registry.validate_json` is set: that takes about ten times as long, and the schema may make the
validator fetch others that it refers to.
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
    """See `rillcast.codecs.observations.format.Format`."""

    def __init__(self, registry: Registry, *, validate: bool) -> None:
        from confluent_kafka.schema_registry.json_schema import JSONDeserializer
        from confluent_kafka.serialization import MessageField, SerializationContext

        self._registry = registry
        self._validate: Callable[[bytes], Any] | None = None
        if validate:
            context = SerializationContext("observations", MessageField.VALUE)
            deserialize = JSONDeserializer(
                None,
                schema_registry_client=registry.client,
                conf={"subject.name.strategy": lambda _context, _name: None},
                json_decode=msgspec.json.decode,
            )
            self._validate = lambda value: deserialize(value, context)
        self._json = JsonFormat()

    def decoder(self, shape: type[msgspec.Struct]) -> Callable[[bytes], Any]:
        """Return the frame's check, the schema's if asked for, then msgspec's decoder."""
        require, asking, validate = self._registry.require, self._registry.asking, self._validate
        read = self._json.decoder(shape)

        def decode(value: bytes) -> Any:
            require(value, "JSON")
            if validate is not None:
                try:
                    with asking():
                        validate(value)
                except (RillcastError, RefusedError, msgspec.MsgspecError):
                    raise
                except Exception as error:  # the validator's own, and whatever a broken schema makes of it
                    raise RefusedError(Reason.SCHEMA_VIOLATION, str(error)) from error
            return read(value[_FRAME:])

        return decode

    def refusal(self, value: bytes, error: Exception) -> tuple[Reason, str]:
        """Return why `value` is no observation."""
        return self._json.refusal(value[_FRAME:], error)
