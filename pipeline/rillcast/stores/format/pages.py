"""The stored form of pages and marks: a framed header that says whose they are, then the rows.

Owns: the headers, the order of the parts, and every reason to refuse a page that is whole but not the requested one.
Does not know: where forms are kept (`rillcast.stores.local`, `rillcast.stores.kafka`), or how rows become bytes
(`rillcast.stores.format.rows`).

Invariants: a form names its model, partition and number, and is refused if others were requested. Free slots of a page
are not stored and come back as zeros, so that no stream ever sees the state of another. The form of the rows may differ
from page to page and from the settings, and so may the columns that a page has in addition to the bundle's states
(`rillcast.engine.late.retained`, `rillcast.engine.periods.partials`): the reader skips columns that it does not need.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import numpy as np

from rillcast.arrays import AnyArray, IntArray
from rillcast.bundle.bundle import StateSpec
from rillcast.engine.late import is_row
from rillcast.engine.pages import Arrivals, Page, Silence, is_additional, page_column
from rillcast.engine.slots import PAGE_SLOTS
from rillcast.errors import StateError
from rillcast.stores.base import Claim, Mark, Superseded
from rillcast.stores.format import rows
from rillcast.stores.format.framing import OVERHEAD_BYTES, damaged, foreign, seal, unseal
from rillcast.stores.format.rows import Compression, RowForm

_DS_TYPE: Final = np.dtype("<i8")
_HEADER_BYTES: Final = 512  # upper bound of a page header without its ids, times and states
_PER_STATE_BYTES: Final = 256  # upper bound of one state's entry in the header
_PER_STREAM_BYTES: Final = 5 + _DS_TYPE.itemsize  # MessagePack's longest string prefix, and the event time


class StoredState(msgspec.Struct, frozen=True):
    """One kind of state in a page header."""

    name: str
    dtype: str
    row_shape: tuple[int, ...]
    form: RowForm


class PageHeader(msgspec.Struct, frozen=True, tag="page"):
    """The header of a page. `last_ds` has the int64 times of the occupied slots; `unique_ids` has "" for free ones."""

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
        """Number of occupied slots."""
        return sum(1 for unique_id in self.unique_ids if unique_id)


class MarkHeader(msgspec.Struct, frozen=True, tag="mark"):
    """The header of a mark, which has no body."""

    model_id: str
    partition: int
    offset: int
    watermark_ms: int
    pages: int
    arrivals: tuple[int, int] = Arrivals()  # this and the next are newer than the other fields, hence the defaults
    silences: tuple[tuple[int, int], ...] = ()


class ClaimHeader(msgspec.Struct, frozen=True, tag="claim"):
    """The header of a claim, which has no body and is stored once for all models."""

    model_id: str
    partition: int
    since_ms: int = 0  # this and the next are newer, hence the defaults
    before: Mapping[str, tuple[int, int]] = {}


class PageCodec:
    """Encodes and decodes one model's pages and marks."""

    def __init__(
        self,
        model_id: str,
        specs: Sequence[StateSpec],
        form: RowForm = "exact",
        compression: Compression = "zlib",
        extra: Sequence[StateSpec] = (),
    ) -> None:
        """Describe the pages.

        Args:
            model_id: Id of the bundle's model.
            specs: The bundle's kinds of state, which every page has.
            form: Form in which float32 rows are stored.
            compression: Compression of the rows.
            extra: Columns that pages have in addition; pages that are read may have others, or none.
        """
        self.model_id = model_id
        self.page_slots = PAGE_SLOTS
        self._specs = tuple(specs)
        self._compression = compression
        self._columns = (*specs, *extra)
        self._states = tuple(
            StoredState(
                spec.name,
                spec.dtype,
                spec.row_shape,
                rows.form_of(spec, form if is_row(spec.name) or not is_additional(spec.name) else "exact"),
            )
            for spec in self._columns
        )

    def keep_within(self, limit_bytes: int, max_id_bytes: int) -> None:
        """Halve the slots of a page until a page of one slot, or any page, takes at most `limit_bytes`.

        The slots of pages that are stored already do not change: where they have more, `decode` refuses them.
        """
        while self.page_slots > 1 and self.max_page_bytes(max_id_bytes) > limit_bytes:
            self.page_slots //= 2

    def encode(self, page: Page) -> bytes | None:
        """Return the stored form of a page; None, a tombstone, for a page without streams."""
        occupied = occupied_slots(page.unique_ids)
        if not len(occupied):
            return None
        assert len(page.unique_ids) <= self.page_slots, f"page of {len(page.unique_ids)} slots"
        pick = slice(None) if len(occupied) == len(page.unique_ids) else occupied
        columns = [  # a page that was written with other settings, and is copied, may lack some
            (spec, state)
            for spec, state in zip(self._columns, self._states, strict=True)
            if spec.name in page.rows or not is_additional(spec.name)
        ]
        body = b"".join(rows.pack(self._rows_of(page, spec)[pick], spec, state.form) for spec, state in columns)
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
            states=tuple(state for _, state in columns),
            compression=compression,
        )
        return seal(header, body)

    def decode(self, data: bytes, partition: int, number: int, where: str) -> Page:
        """Return the page whose stored form is `data`.

        Args:
            data: The result of `encode`.
            partition: Partition that the page has to belong to.
            number: Number that the page has to have.
            where: Name of the place, for the error.

        Raises:
            StateError: The page is damaged, of an unknown format, or not the requested one.
        """
        header, body = unseal(data, PageHeader, where)
        _expect(where, "model", header.model_id, self.model_id)
        _expect(where, "partition", header.partition, partition)
        _expect(where, "page number", header.number, number)
        own = [(s.name, s.dtype, s.row_shape) for s in header.states if not is_additional(s.name)]
        _expect(where, "states", own, [(spec.name, spec.dtype, spec.row_shape) for spec in self._specs])
        try:
            specs = [page_column(s.name, s.dtype, s.row_shape) for s in header.states]
        except ValueError as error:
            raise damaged(where, f"unknown column: {error}") from error
        occupied = occupied_slots(header.unique_ids)
        forms = [state.form for state in header.states]
        sizes = [rows.packed_bytes(spec, form, len(occupied)) for spec, form in zip(specs, forms, strict=True)]
        if len(header.unique_ids) > PAGE_SLOTS or len(header.last_ds) != len(occupied) * _DS_TYPE.itemsize:
            raise damaged(where, f"{len(header.unique_ids)} slots with {len(header.last_ds)} bytes of event times")
        if len(header.unique_ids) > self.page_slots:
            raise StateError(
                f"{where}: a page of {len(header.unique_ids)} streams, but pages have {self.page_slots} by "
                f"kafka.max_message_bytes (and input.max_id_bytes); set it to what it was when the page was written"
            )
        packed = memoryview(_unpacked(body, header.compression, sum(sizes), where))
        columns: dict[str, AnyArray] = {}
        for spec, form, size in zip(specs, forms, sizes, strict=True):
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
        return seal(
            MarkHeader(
                self.model_id, mark.partition, mark.offset, mark.watermark_ms, mark.pages, mark.arrivals, mark.silences
            )
        )

    def decode_mark(self, data: bytes, partition: int, where: str) -> Mark:
        """Return the mark whose stored form is `data`.

        Raises:
            StateError: See `decode`.
        """
        header, body = unseal(data, MarkHeader, where)
        _expect(where, "model", header.model_id, self.model_id)
        _expect(where, "partition", header.partition, partition)
        if body:
            raise damaged(where, f"{len(body)} bytes after the mark")
        silences = tuple(Silence(*each) for each in header.silences)
        return Mark(partition, header.offset, header.watermark_ms, header.pages, Arrivals(*header.arrivals), silences)

    def encode_claim(self, partition: int, claim: Claim) -> bytes:
        """Return the stored form of the model's claim to a partition."""
        assert claim.model_id == self.model_id, f"a claim of {claim.model_id} in the store of {self.model_id}"
        return seal(ClaimHeader(claim.model_id, partition, claim.since_ms, claim.before))

    def max_page_bytes(self, max_id_bytes: int) -> int:
        """Return an upper bound of the bytes of any page, given the longest stream id in bytes."""
        body = sum(
            rows.packed_bytes(spec, state.form, self.page_slots)
            for spec, state in zip(self._columns, self._states, strict=True)
        )
        states = len(self._columns) * _PER_STATE_BYTES
        return OVERHEAD_BYTES + _HEADER_BYTES + states + self.page_slots * (max_id_bytes + _PER_STREAM_BYTES) + body

    def _rows_of(self, page: Page, spec: StateSpec) -> AnyArray:
        values = page.rows[spec.name]
        shape = (len(page.unique_ids), *spec.row_shape)
        assert values.shape == shape, f"state {spec.name}: rows {values.shape}, expected {shape}"
        assert values.dtype == spec.numpy_dtype, f"state {spec.name}: {values.dtype}, expected {spec.dtype}"
        return values


def decode_claim(data: bytes, partition: int, where: str) -> Claim:
    """Return the claim to `partition` whose stored form is `data`; it may be any model's.

    Raises:
        StateError: It is damaged, or belongs to another partition.
    """
    header, _ = unseal(data, ClaimHeader, where)
    _expect(where, "partition", header.partition, partition)
    before = {model_id: Superseded(*each) for model_id, each in header.before.items()}
    return Claim(header.model_id, header.since_ms, before)


def occupied_slots(unique_ids: Sequence[str]) -> IntArray:
    """Return the slots of a page that hold a stream."""
    return np.flatnonzero(np.fromiter(map(bool, unique_ids), bool, len(unique_ids))).astype(np.int64)


def _unpacked(body: memoryview, compression: Compression, size: int, where: str) -> bytes | memoryview:
    if compression == "zlib":
        try:
            return rows.decompress(body, size)
        except ValueError as error:
            raise damaged(where, str(error)) from error
    if len(body) != size:
        raise damaged(where, f"{len(body)} bytes of rows, expected {size}")
    return body


def _spread(values: AnyArray, occupied: IntArray, slots: int) -> AnyArray:
    """Return an array of `slots` rows with `values` in the occupied ones and zeros elsewhere."""
    if len(occupied) == slots:
        return values
    spread = np.zeros((slots, *values.shape[1:]), values.dtype)
    spread[occupied] = values
    return spread


def _expect(where: str, what: str, found: object, expected: object) -> None:
    if found != expected:
        raise foreign(where, what, found, expected)
