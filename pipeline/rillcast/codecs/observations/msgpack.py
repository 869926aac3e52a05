"""Observations in MessagePack: one map per record, with the members of the JSON form.

`ds` may also be MessagePack's timestamp (extension -1). MessagePack has a NaN: a `y` that is NaN is missing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from rillcast.codecs.observations.format import reason_of_shape
from rillcast.codecs.observations.rejections import Reason


class MessagePackFormat:
    """Implements `rillcast.codecs.observations.format.Format`."""

    def decoder(self, shape: type[Any]) -> Callable[[bytes], Any]:
        """Return msgspec's bound method."""
        return msgspec.msgpack.Decoder(shape).decode

    def refusal(self, value: bytes, error: Exception) -> tuple[Reason, str]:  # noqa: ARG002  the error has all facts
        """Return why the value is no observation."""
        if isinstance(error, msgspec.ValidationError):
            return reason_of_shape(error)
        if isinstance(error, UnicodeDecodeError):
            return Reason.NOT_UTF8, str(error)
        return Reason.NOT_MSGPACK, str(error)
