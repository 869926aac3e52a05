"""Stored state as targets: pages, marks, claims and manifests.

Bytes are accepted only where they are those that were written for the partition, the page and the model that were asked
for. Bytes with a valid checksum, which only a program can have made, are refused or read as a whole.
"""

from __future__ import annotations

import struct
import tempfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from rillcast.engine.overdue import page_columns
from rillcast.engine.pages import Arrivals, Silence
from rillcast.errors import StateError
from rillcast.stores.base import Claim, Mark, Superseded
from rillcast.stores.format.framing import FORMAT_VERSION, MAGIC
from rillcast.stores.format.pages import PageCodec, decode_claim
from rillcast.stores.manifest import MANIFEST, Manifest
from tests.fuzz.target import Target
from tests.support.stores import SPECS, make_page

_MODEL: Final = "m1"
_PARTITION: Final = 3
_NUMBER: Final = 2
_PREFIX: Final = struct.Struct("<8sHII")


def targets() -> dict[str, Target]:
    """Return the targets by name."""
    mark = Mark(_PARTITION, 77, 1_000, 5, Arrivals(1, 2), (Silence(70, 900),))
    claim = Claim(_MODEL, 5, {"m0": Superseded(4, 3)})
    manifest = Manifest(4, {0: 1, _NUMBER: 4}, mark)
    codec = PageCodec(_MODEL, SPECS)

    def read_manifest(data: bytes) -> bytes:
        (Path(folder.name) / MANIFEST).write_bytes(data)
        return Manifest.read(Path(folder.name), _MODEL, _PARTITION).encode(_MODEL, _PARTITION)

    folder = tempfile.TemporaryDirectory(prefix="rillcast-fuzz-")  # goes when its process ends
    foreign_mark = codec.encode_mark(mark._replace(partition=4))
    return {
        "page": _pages(),
        "mark": _target(
            [codec.encode_mark(mark)],
            [foreign_mark, PageCodec("m2", SPECS).encode_mark(mark)],
            lambda data: codec.encode_mark(codec.decode_mark(data, _PARTITION, "here")),
        ),
        "claim": _target(
            [codec.encode_claim(_PARTITION, claim)],
            [codec.encode_claim(4, claim), foreign_mark],
            lambda data: repr(decode_claim(data, _PARTITION, "here")).encode(),
        ),
        "manifest": _target(
            [manifest.encode(_MODEL, _PARTITION), Manifest(1, {}, None).encode(_MODEL, _PARTITION)],
            [manifest.encode(_MODEL, 4), manifest.encode("m2", _PARTITION), foreign_mark],
            read_manifest,
        ),
    }


def _pages() -> Target:
    """Return the target of pages, in every form of rows and with further columns."""
    page = make_page(partition=_PARTITION, number=_NUMBER, offset=9, unique_ids=("a", "", "漢" * 9))
    codecs = [PageCodec(_MODEL, SPECS, form, how) for form in ("exact", "float16") for how in ("none", "zlib")]
    own = [codec.encode(page) or b"" for codec in codecs]
    extra = page_columns(watched=True)
    more = make_page(partition=_PARTITION, number=_NUMBER, unique_ids=("a",), specs=(*SPECS, *extra))
    own.append(PageCodec(_MODEL, SPECS, extra=extra).encode(more) or b"")
    foreign = [
        codecs[0].encode(replace(page, partition=4)) or b"",
        codecs[1].encode(replace(page, number=3)) or b"",
        PageCodec("m2", SPECS).encode(page) or b"",
        PageCodec(_MODEL, SPECS[:1]).encode(replace(page, rows={SPECS[0].name: page.rows[SPECS[0].name]})) or b"",
    ]

    def read(data: bytes) -> bytes:
        found = codecs[0].decode(data, _PARTITION, _NUMBER, "here")
        assert (found.partition, found.number) == (_PARTITION, _NUMBER)
        for spec in SPECS:
            rows = found.rows[spec.name]
            assert (rows.dtype, rows.shape) == (spec.numpy_dtype, (len(found.unique_ids), *spec.row_shape))
        assert found.last_ds.shape == (len(found.unique_ids),)
        return repr(found).encode()

    return _target(own, foreign, read)


def _target(own: Sequence[bytes], foreign: Sequence[bytes], read: Callable[[bytes], bytes]) -> Target:
    """Return a target whose `read` returns a form of what it read, or refuses."""
    for data in foreign:
        assert _read(read, data) is None, "state of another partition, page or model was accepted"

    def run(data: bytes) -> None:
        if data not in own:
            assert _read(read, data) is None, "bytes that nobody wrote were accepted"
        if (whole := _with_checksum(data)) is not None:
            _read(read, whole)

    return Target(run, [*own, *foreign], 0.02, short=200)


def _read(read: Callable[[bytes], bytes], data: bytes) -> bytes | None:
    """Return what was read; None = it was refused."""
    try:
        return read(data)
    except StateError:
        return None


def _with_checksum(data: bytes) -> bytes | None:
    """Return bytes under the prefix of a whole frame; None where they are too few."""
    if len(data) < _PREFIX.size:
        return None
    header_bytes = struct.unpack_from("<I", data, 10)[0]
    rest = data[_PREFIX.size :]
    prefix = struct.pack("<8sHI", MAGIC, FORMAT_VERSION, min(header_bytes, len(rest)))
    return prefix + struct.pack("<I", zlib.crc32(rest, zlib.crc32(prefix))) + rest
