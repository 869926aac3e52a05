"""Dead letters as JSON Lines: one object with `key`, `value` and `headers`, written and read back byte for byte.

Bytes that are UTF-8 are stored as text. Other bytes are stored as base64, in a member `key_base64`, `value_base64` or,
within `headers`, `<name>_base64`. A header that occurs more than once has a list of its values. What is
null in the record (a tombstone, a missing key, a header without a value) is null here.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import msgspec

from rillcast.transports.base import Headers

_SUFFIX: Final = "_base64"
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class Line(NamedTuple):
    """The parts of a dead letter."""

    key: bytes | None
    value: bytes | None
    headers: Headers


def write(key: bytes | None, value: bytes | None, headers: Headers) -> bytes:
    """Return one line, without a newline."""
    fields: dict[str, Any] = {}
    for name, data in headers:
        ((member, text),) = _as_text(name, data).items()
        if member not in fields:
            fields[member] = text
        elif isinstance(fields[member], list):
            fields[member].append(text)
        else:
            fields[member] = [fields[member], text]
    return _encode({**_as_text("key", key), **_as_text("value", value), "headers": fields})


def read(line: bytes) -> Line:
    """Return the arguments of `write`; headers of different names may be in another order.

    Raises:
        ValueError: The line does not have this form.
    """
    try:
        members = _decode(line)
        headers = members["headers"]
        return Line(_bytes(members, "key"), _bytes(members, "value"), list(_headers(headers)))
    except (msgspec.MsgspecError, KeyError, AttributeError, TypeError, binascii.Error, UnicodeError) as error:
        raise ValueError(f"not a dead letter: {error}") from error


def _headers(members: dict[str, Any]) -> Iterator[tuple[str, bytes | None]]:
    for member, found in members.items():
        for text in found if isinstance(found, list) else [found]:
            if text is None:
                yield member, None
            elif member.endswith(_SUFFIX):
                yield member.removesuffix(_SUFFIX), base64.b64decode(text, validate=True)
            else:
                yield member, text.encode()


def _bytes(members: dict[str, Any], name: str) -> bytes | None:
    if (packed := members.get(name + _SUFFIX)) is not None:
        return base64.b64decode(packed, validate=True)
    text = members[name]
    return None if text is None else bytes(text.encode())


def _as_text(name: str, data: bytes | None) -> dict[str, str | None]:
    if data is None:
        return {name: None}
    try:
        if not name.endswith(_SUFFIX):  # a header whose name ends like ours must not be read as base64
            return {name: data.decode()}
    except UnicodeDecodeError:
        pass
    return {name + _SUFFIX: base64.b64encode(data).decode()}
