"""What a format of observations is: bytes to the members that the fields ask for, or the reason why not.

One file per format: `observations_json`, `observations_msgpack`, and through a schema registry `observations_avro`,
`observations_protobuf`, `observations_json_schema`. Knows no limits and no meaning of a member.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from rillcast.codecs.observations.rejections import Reason


class Format(Protocol):
    """One way to write an observation."""

    def decoder(self, shape: type[msgspec.Struct]) -> Callable[[bytes], Any]:
        """Return what decodes a value to `shape`.

        It may raise anything that `refusal` can explain, and `RefusedError`, which explains itself. An error that is
        not the record's fault (no answer of the registry) is a `RillcastError`.
        """
        ...

    def refusal(self, value: bytes, error: Exception) -> tuple[Reason, str]:
        """Return the reason why `value` was refused with `error`, and the particulars."""
        ...


def reason_of_shape(error: msgspec.ValidationError) -> tuple[Reason, str]:
    """Sort msgspec's message about a well-formed document that has not the right members."""
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
