"""The interface of an observation format: bytes to the members that the fields need, or the reason for a refusal.

One file a format: `json`, `msgpack`, and through a schema registry `avro`, `protobuf`, `json_schema`.

Owns: the interface, and the reasons for a document of the wrong shape.
Does not know: limits, the meaning of a member.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from rillcast.codecs.observations.rejections import Reason


class Format(Protocol):
    """A format of observations."""

    def decoder(self, shape: type[Any]) -> Callable[[bytes], Any]:
        """Return a function that decodes a value to `shape`.

        The function may raise errors that `refusal` explains, and `RefusedError`, which has its own reason. An error
        that the record did not cause, such as a registry that does not answer, is a `RillcastError`.
        """
        ...

    def refusal(self, value: bytes, error: Exception) -> tuple[Reason, str]:
        """Return the reason why decoding `value` failed with `error`, and details for a person."""
        ...


def reason_of_shape(error: msgspec.ValidationError) -> tuple[Reason, str]:
    """Return the reason in msgspec's error about a well-formed document with wrong members."""
    message = str(error)
    expected = message.split("got")[0]
    if "missing required field" in message:
        return Reason.MISSING_FIELD, message
    if "length >= 1" in message:
        return Reason.BAD_ID, message
    if "datetime" in expected and "Invalid" in message:
        return Reason.DS_OUT_OF_RANGE, message
    if "out of range" in message:
        return Reason.Y_OUT_OF_RANGE, message
    return Reason.WRONG_TYPE, message
