"""Frames of stored bytes: on a disk or in a topic they say what they are, and whether they are whole.

    magic (8 bytes)  version (uint16)  header bytes (uint32)  CRC-32 of all else (uint32)  header  body

All numbers are little-endian; the header is a MessagePack map that names its kind as `type`.

Owns: this frame and the reasons to refuse bytes that claim to be one. Does not know: the kinds of header, or the
content of a body.
Invariant: `unseal` returns the arguments of `seal`; a damaged, truncated or extended frame is refused, never guessed.
"""

from __future__ import annotations

import struct
import zlib
from typing import Final, TypeVar

import msgspec

from rillcast.errors import StateError

MAGIC: Final = b"RILLSTAT"
FORMAT_VERSION: Final = 1
_PREFIX: Final = struct.Struct("<8sHI")
_CHECKSUM: Final = struct.Struct("<I")
OVERHEAD_BYTES: Final = _PREFIX.size + _CHECKSUM.size

_Header = TypeVar("_Header", bound=msgspec.Struct)


def seal(header: msgspec.Struct, body: bytes = b"") -> bytes:
    """Return `header` and `body` as one frame with its checksum."""
    encoded = msgspec.msgpack.encode(header)
    prefix = _PREFIX.pack(MAGIC, FORMAT_VERSION, len(encoded))
    checksum = zlib.crc32(body, zlib.crc32(encoded, zlib.crc32(prefix)))
    return b"".join((prefix, _CHECKSUM.pack(checksum), encoded, body))


def unseal(data: bytes, kind: type[_Header], where: str) -> tuple[_Header, memoryview]:
    """Return header and body of a frame of `kind`.

    Args:
        data: The result of `seal`.
        kind: Type of the header that belongs here.
        where: Name of the place, for the error.

    Raises:
        StateError: The frame is damaged, of an unknown format or of another kind.
    """
    if len(data) < OVERHEAD_BYTES:
        raise damaged(where, f"{len(data)} bytes, expected at least {OVERHEAD_BYTES}")
    magic, version, header_bytes = _PREFIX.unpack_from(data)
    if magic != MAGIC:
        raise damaged(where, f"it begins with {magic!r}, expected {MAGIC!r}")
    if version > FORMAT_VERSION:
        raise StateError(
            f"{where}: state format {version}, this version reads up to {FORMAT_VERSION}; a newer Rillcast wrote it: "
            f"run that version, or rebuild the state (`rillcast state rebuild`)"
        )
    view = memoryview(data)
    (expected,) = _CHECKSUM.unpack_from(data, _PREFIX.size)
    found = zlib.crc32(view[OVERHEAD_BYTES:], zlib.crc32(view[: _PREFIX.size]))
    if found != expected:
        raise damaged(where, f"its checksum is {found:08x}, expected {expected:08x} ({len(data)} bytes)")
    rest = view[OVERHEAD_BYTES:]
    if header_bytes > len(rest):
        raise damaged(where, f"a header of {header_bytes} bytes in {len(data)}")
    try:
        return msgspec.msgpack.decode(rest[:header_bytes], type=kind), rest[header_bytes:]
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise damaged(where, f"its header is not that of a {kind.__name__}: {error}") from error


def damaged(where: str, what: str) -> StateError:
    """Return the error for a frame that is not whole."""
    return StateError(
        f"{where}: stored state is damaged: {what}; nothing was loaded: import an intact copy, or rebuild the state "
        f"from the input (`rillcast state rebuild`)"
    )


def foreign(where: str, what: str, found: object, expected: object) -> StateError:
    """Return the error for a whole frame that belongs elsewhere."""
    return StateError(
        f"{where}: stored state of {what} {found!r}, expected {expected!r}; it belongs elsewhere, so nothing was loaded"
    )
