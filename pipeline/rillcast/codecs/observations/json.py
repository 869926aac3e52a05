"""Observations in JSON (RFC 8259), one object per record: the default format, and the fastest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from rillcast.codecs.observations.format import reason_of_shape
from rillcast.codecs.observations.rejections import Reason
from rillcast.reading.files import json_cause


class JsonFormat:
    """Implements `rillcast.codecs.observations.format.Format`."""

    def decoder(self, shape: type[Any]) -> Callable[[bytes], Any]:
        """Return msgspec's bound method: no Python code runs between a record and its members."""
        return msgspec.json.Decoder(shape).decode

    def refusal(self, value: bytes, error: Exception) -> tuple[Reason, str]:
        """Return why the value is no observation."""
        try:
            value.decode("utf-8")
        except UnicodeDecodeError as not_text:
            return Reason.NOT_UTF8, str(not_text)
        if isinstance(error, msgspec.ValidationError):
            return reason_of_shape(error)
        return Reason.NOT_JSON, f"{error}{json_cause(value)}"
