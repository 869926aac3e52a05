"""The stored form of pages and marks: bytes that say what they are, and whether they are whole.

    magic (8 bytes)  version (uint16)  header bytes (uint32)  CRC-32 of all else (uint32)  header  rows

all little-endian; the header is MessagePack, a map with `type` "page" or "mark"; the rows are those of
`pipeline.stores.rows`.

Owns: this format and every reason to refuse bytes that claim to be of it. Does not know: where they are kept.

Invariants: what decodes is what was encoded (a damaged, truncated or extended form is refused, never guessed at); a
form says its model, partition and number, and is refused where others were asked for; what a page holds in free slots
is not stored and comes back as zeros, so that no stream ever meets what another one left. The form of the rows is
the page's own: it may differ from page to page and from the settings.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Final, Literal, TypeVar

import msgspec
import numpy as np

from pipeline.arrays import AnyArray, IntArray
from pipeline.bundle import StateSpec
from pipeline.errors import StateError
from pipeline.slots import PAGE_SLOTS
from pipeline.stores import rows
from pipeline.stores.base import Mark, Page
from pipeline.stores.rows import Compression, RowForm

MAGIC: Final = b"RILLSTAT"
FORMAT_VERSION: Final = 1
_PREFIX: Final = struct.Struct("<8sHI")
_CHECKSUM: Final = struct.Struct("<I")
_BODY_START: Final = _PREFIX.size + _CHECKSUM.size
_DS_TYPE: Final = np.dtype("<i8")
_HEADER_BYTES: Final = 512  # bound of a page header without its ids, times and states
_PER_STATE_BYTES: Final = 256  # bound of one state's entry in it
_PER_STREAM_BYTES: Final = 5 + _DS_TYPE.itemsize  # MessagePack's longest string prefix, and the event time


class StoredState(msgspec.Struct, frozen=True):
    """One kind of state in a page header."""

    name: str
    dtype: str
    row_shape: tuple[int, ...]
    form: RowForm


class PageHeader(msgspec.Struct, frozen=True, tag="page"):
    """What a page says of itself. `last_ds` are the int64 of the occupied slots; `unique_ids` has "" for free ones."""

    model_id: str
    partition: int
    number: int
    offset: int
    unique_ids: tuple[str, ...]
    last_ds: bytes
    states: tuple[StoredState, ...]
    compression: Compression

    @property
    def streams(self) -> int:
        """Occupied slots."""
        return sum(1 for unique_id in self.unique_ids if unique_id)


class MarkHeader(msgspec.Struct, frozen=True, tag="mark"):
    """What a mark says; there is nothing after it."""

    model_id: str
    partition: int
    offset: int
    watermark_ms: int
    pages: int


_Header = TypeVar("_Header", PageHeader, MarkHeader)
_decoder: Final = msgspec.msgpack.Decoder(PageHeader | MarkHeader)


class PageCodec:
    """Encodes and decodes one model's pages and marks."""

    def __init__(
        self,
        model_id: str,
        specs: Sequence[StateSpec],
        form: RowForm = "exact",
        compression: Compression = "zlib",
    ) -> None:
        self.model_id = model_id
        self._specs = tuple(specs)
        self._compression = compression
        self._states = tuple(
            StoredState(spec.name, spec.dtype, spec.row_shape, rows.form_of(spec, form)) for spec in specs
        )

    def encode(self, page: Page) -> bytes | None:
        """Return the stored form of a page; None, a tombstone, for a page without streams."""
        occupied = occupied_slots(page.unique_ids)
        if not len(occupied):
            return None
        assert len(page.unique_ids) <= PAGE_SLOTS, f"page of {len(page.unique_ids)} slots"  # noqa: S101
        pick = slice(None) if len(occupied) == len(page.unique_ids) else occupied
        body = b"".join(
            rows.pack(self._rows_of(page, spec)[pick], spec, state.form)
            for spec, state in zip(self._specs, self._states, strict=True)
        )
        compression: Compression = "none"
        if self._compression == "zlib" and len(smaller := rows.compress(body)) < len(body):
            compression, body = "zlib", smaller
        header = PageHeader(
            model_id=self.model_id,
            partition=page.partition,
            number=page.number,
            offset=page.offset,
            unique_ids=page.unique_ids,
            last_ds=page.last_ds[pick].astype(_DS_TYPE, copy=False).tobytes(),
            states=self._states,
            compression=compression,
        )
        return seal(header, body)

    def decode(self, data: bytes, partition: int, number: int, where: str) -> Page:
        """Return the page that `data` is the stored form of.

        Args:
            data: as `encode` returned it.
            partition: whose page this has to be.
            number: which page this has to be.
            where: names the place, for the error.

        Raises:
            StateError: it is damaged, of an unknown format, or another page than asked for.
        """
        header, body = unseal(data, PageHeader, where)
        self._expect(where, "model", header.model_id, self.model_id)
        self._expect(where, "partition", header.partition, partition)
        self._expect(where, "page number", header.number, number)
        found = [(state.name, state.dtype, state.row_shape) for state in header.states]
        self._expect(where, "states", found, [(spec.name, spec.dtype, spec.row_shape) for spec in self._specs])
        occupied = occupied_slots(header.unique_ids)
        forms = [state.form for state in header.states]
        sizes = [rows.packed_bytes(spec, form, len(occupied)) for spec, form in zip(self._specs, forms, strict=True)]
        if len(header.unique_ids) > PAGE_SLOTS or len(header.last_ds) != len(occupied) * _DS_TYPE.itemsize:
            raise _damaged(where, f"{len(header.unique_ids)} slots with {len(header.last_ds)} bytes of event times")
        packed = memoryview(_unpacked(body, header.compression, sum(sizes), where))
        columns: dict[str, AnyArray] = {}
        for spec, form, size in zip(self._specs, forms, sizes, strict=True):
            values = rows.unpack(packed[:size], spec, form, len(occupied))
            columns[spec.name] = _spread(values, occupied, len(header.unique_ids))
            packed = packed[size:]
        last_ds = np.frombuffer(header.last_ds, _DS_TYPE).astype(np.int64)
        return Page(
            partition=partition,
            number=number,
            offset=header.offset,
            unique_ids=header.unique_ids,
            last_ds=_spread(last_ds, occupied, len(header.unique_ids)),
            rows=columns,
        )

    def encode_mark(self, mark: Mark) -> bytes:
        """Return the stored form of a mark."""
        return seal(MarkHeader(self.model_id, mark.partition, mark.offset, mark.watermark_ms, mark.pages), b"")

    def decode_mark(self, data: bytes, partition: int, where: str) -> Mark:
        """Return the mark that `data` is the stored form of.

        Raises:
            StateError: as for `decode`.
        """
        header, body = unseal(data, MarkHeader, where)
        self._expect(where, "model", header.model_id, self.model_id)
        self._expect(where, "partition", header.partition, partition)
        if body:
            raise _damaged(where, f"{len(body)} bytes after the mark")
        return Mark(partition, header.offset, header.watermark_ms, header.pages)

    def max_page_bytes(self, max_id_bytes: int) -> int:
        """Return a bound of the bytes that any page takes, given the longest stream id in bytes."""
        body = sum(
            rows.packed_bytes(spec, state.form, PAGE_SLOTS)
            for spec, state in zip(self._specs, self._states, strict=True)
        )
        states = len(self._specs) * _PER_STATE_BYTES
        return _BODY_START + _HEADER_BYTES + states + PAGE_SLOTS * (max_id_bytes + _PER_STREAM_BYTES) + body

    def _rows_of(self, page: Page, spec: StateSpec) -> AnyArray:
        values = page.rows[spec.name]
        shape = (len(page.unique_ids), *spec.row_shape)
        assert values.shape == shape, f"state {spec.name}: rows {values.shape}, expected {shape}"  # noqa: S101
        assert values.dtype == spec.numpy_dtype, f"state {spec.name}: {values.dtype}, expected {spec.dtype}"  # noqa: S101
        return values

    def _expect(self, where: str, what: str, found: object, expected: object) -> None:
        if found != expected:
            raise StateError(
                f"{where}: stored state of {what} {found!r}, expected {expected!r}; it belongs elsewhere, so nothing "
                f"was loaded"
            )


def occupied_slots(unique_ids: Sequence[str]) -> IntArray:
    """Return the slots of a page that hold a stream."""
    return np.flatnonzero(np.fromiter(map(bool, unique_ids), bool, len(unique_ids))).astype(np.int64)


def seal(header: msgspec.Struct, body: bytes) -> bytes:
    """Return `header` and `body` as one stored form with its checksum."""
    encoded = msgspec.msgpack.encode(header)
    prefix = _PREFIX.pack(MAGIC, FORMAT_VERSION, len(encoded))
    checksum = zlib.crc32(body, zlib.crc32(encoded, zlib.crc32(prefix)))
    return b"".join((prefix, _CHECKSUM.pack(checksum), encoded, body))


def unseal(data: bytes, kind: type[_Header], where: str) -> tuple[_Header, memoryview]:
    """Return header and body of a stored form of `kind`, which is whole.

    Raises:
        StateError: it is damaged, of an unknown format or of another kind.
    """
    header, body = open_form(data, where)
    if not isinstance(header, kind):
        raise _damaged(where, f"a {type(header).__name__} where a {kind.__name__} belongs")
    return header, body


def open_form(data: bytes, where: str) -> tuple[PageHeader | MarkHeader, memoryview]:
    """Return header and body of a stored form of either kind and of any model.

    Raises:
        StateError: it is damaged or of an unknown format.
    """
    body = check(data, where)
    _, _, header_bytes = _PREFIX.unpack_from(data)
    try:
        return _decoder.decode(body[:header_bytes]), body[header_bytes:]
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _damaged(where, f"its header cannot be read: {error}") from error


def check(data: bytes, where: str) -> memoryview:
    """Return header and body of a stored form together, once magic, version, length and checksum are right.

    Raises:
        StateError: they are not; the error says which.
    """
    if len(data) < _BODY_START:
        raise _damaged(where, f"{len(data)} bytes, fewer than the {_BODY_START} of the shortest")
    magic, version, header_bytes = _PREFIX.unpack_from(data)
    if magic != MAGIC:
        raise _damaged(where, f"it begins with {magic!r}, expected {MAGIC!r}")
    if version > FORMAT_VERSION:
        raise StateError(
            f"{where}: state format {version}, this version reads up to {FORMAT_VERSION}; a newer Rillcast wrote it, "
            f"so run that one, or rebuild the state (worker.recovery=rebuild)"
        )
    view = memoryview(data)
    (expected,) = _CHECKSUM.unpack_from(data, _PREFIX.size)
    found = zlib.crc32(view[_BODY_START:], zlib.crc32(view[: _PREFIX.size]))
    if found != expected:
        raise _damaged(where, f"its checksum is {found:08x}, stored was {expected:08x} ({len(data)} bytes)")
    if header_bytes > len(data) - _BODY_START:
        raise _damaged(where, f"a header of {header_bytes} bytes in {len(data)}")
    return view[_BODY_START:]


def _unpacked(body: memoryview, compression: Literal["none", "zlib"], size: int, where: str) -> bytes | memoryview:
    if compression == "zlib":
        try:
            return rows.decompress(body, size)
        except ValueError as error:
            raise _damaged(where, str(error)) from error
    if len(body) != size:
        raise _damaged(where, f"{len(body)} bytes of rows, expected {size}")
    return body


def _spread(values: AnyArray, occupied: IntArray, slots: int) -> AnyArray:
    """Return an array of `slots` rows with `values` at the occupied ones and zeros elsewhere."""
    if len(occupied) == slots:
        return values
    spread = np.zeros((slots, *values.shape[1:]), values.dtype)
    spread[occupied] = values
    return spread


def _damaged(where: str, what: str) -> StateError:
    return StateError(
        f"{where}: stored state is damaged: {what}; nothing was loaded: restore it from a copy, or rebuild the state "
        f"from the input (worker.recovery=rebuild)"
    )
