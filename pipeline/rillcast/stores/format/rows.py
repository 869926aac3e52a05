"""State rows as bytes: exact or in float16, byte planes, compression.

Owns: the translation of the rows of one state into bytes and back. Does not know: pages, stores, the meaning of a row.

`float16` stores a float32 row as `center + 2**exponent * half`, with center and exponent of its own:

    |error| <= 2**-11 * |value - center| + 2**-24 * |value|       (half-precision, then float32, rounding)

for every value above `2**-29` of its row's largest, and at most `2**-39` of the largest below that. The exponent makes
the row's largest value fit, so nothing overflows in any unit. The center is the middle of a row whose values are within
a factor of two of each other (a series whose level dwarfs its changes, in a lag buffer). Subtracting it is exact then
(Sterbenz' lemma). For other rows the center is 0. So the relative error is never above `2**-11`, zeros, infinities and
NaN are unchanged, and a row of zeros comes back as zeros. Other types, and rows that would not shrink, stay exact.

Byte planes (first all lowest bytes, then all second lowest, ...) put the similar sign and exponent bytes next to each
other. Run lengths and Huffman codes then save nearly as much as a search for matches, in less time.
"""

from __future__ import annotations

import zlib
from typing import Final, Literal, TypeAlias

import numpy as np

from rillcast.arrays import AnyArray, FloatArray
from rillcast.bundle.bundle import StateSpec

RowForm: TypeAlias = Literal["exact", "float16"]
Compression: TypeAlias = Literal["none", "zlib"]

ZLIB_LEVEL: Final = 1
_HALF_EXPONENT: Final = 15  # values are scaled below 2**15, half of the largest that float16 holds
_LARGEST: Final = np.finfo(np.float32).max
_CENTER_TYPE: Final = np.dtype("<f4")
_EXPONENT_TYPE: Final = np.dtype("<i2")
_HALF_TYPE: Final = np.dtype("<f2")
_ROW_HEADER_BYTES: Final = _CENTER_TYPE.itemsize + _EXPONENT_TYPE.itemsize


def form_of(spec: StateSpec, wanted: RowForm) -> RowForm:
    """Return the form in which rows of `spec` are stored: float16 only if the type allows it and it saves bytes."""
    halved = spec.row_bytes // 2 + _ROW_HEADER_BYTES
    return "float16" if wanted == "float16" and spec.dtype == "float32" and halved < spec.row_bytes else "exact"


def packed_bytes(spec: StateSpec, form: RowForm, count: int) -> int:
    """Return the number of bytes that `pack` makes of `count` rows."""
    per_row = spec.row_bytes if form == "exact" else spec.row_bytes // 2 + _ROW_HEADER_BYTES
    return count * per_row


def pack(rows: AnyArray, spec: StateSpec, form: RowForm) -> bytes:
    """Return the bytes of `rows`, `(n, *row_shape)` of the spec's type, in byte planes."""
    if form == "exact":
        return _planes(rows.reshape(-1).astype(_stored_type(spec), copy=False))
    flat = np.ascontiguousarray(rows, dtype=np.float32).reshape(len(rows), -1)
    center, exponent = _centers_and_exponents(flat)
    half = np.ldexp(flat - center[:, None], -exponent[:, None].astype(np.int32)).astype(_HALF_TYPE)
    parts = center.astype(_CENTER_TYPE), exponent.astype(_EXPONENT_TYPE), half.reshape(-1)
    return b"".join(_planes(part) for part in parts)


def unpack(data: memoryview, spec: StateSpec, form: RowForm, count: int) -> AnyArray:
    """Return the `(count, *row_shape)` rows that `pack` turned into `data`; `data` has `packed_bytes` bytes."""
    if form == "exact":
        size = count * spec.row_bytes // spec.numpy_dtype.itemsize
        rows = _unplanes(data, _stored_type(spec), size).astype(spec.numpy_dtype, copy=False)
        return rows.reshape(count, *spec.row_shape)
    first = count * _CENTER_TYPE.itemsize
    second = first + count * _EXPONENT_TYPE.itemsize
    center = _unplanes(data[:first], _CENTER_TYPE, count).astype(np.float32, copy=False)
    exponent = _unplanes(data[first:second], _EXPONENT_TYPE, count).astype(np.int32)
    half = _unplanes(data[second:], _HALF_TYPE, count * spec.row_bytes // 4).reshape(count, -1)
    with np.errstate(over="ignore"):
        flat = np.ldexp(half.astype(np.float32), exponent[:, None]) + center[:, None]
    # Values next to the largest float32 were rounded up to infinity; the largest float32 is nearer.
    np.copyto(flat, np.copysign(_LARGEST, flat), where=np.isinf(flat) & np.isfinite(half))
    return flat.reshape(count, *spec.row_shape)


def compress(data: bytes) -> bytes:
    """Return `data` as a zlib stream; run lengths and Huffman codes only, see the module's docstring."""
    deflate = zlib.compressobj(ZLIB_LEVEL, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_RLE)
    return deflate.compress(data) + deflate.flush()


def decompress(data: memoryview, size: int) -> bytes:
    """Return the `size` bytes that `data` holds.

    Raises:
        ValueError: It is no complete zlib stream of exactly `size` bytes. At most one byte more is ever unpacked.
    """
    inflate = zlib.decompressobj()
    try:
        found = inflate.decompress(data, size + 1)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if len(found) != size or not inflate.eof or inflate.unused_data:
        raise ValueError(f"the zlib stream does not hold exactly {size} bytes")
    return found


def _centers_and_exponents(rows: FloatArray) -> tuple[FloatArray, AnyArray]:
    """Return center and exponent of each row of `(n, k)`; values that are not finite do not count."""
    finite = np.isfinite(rows)
    lowest = np.where(finite, rows, np.float32(np.inf)).min(axis=1)
    highest = np.where(finite, rows, np.float32(-np.inf)).max(axis=1)
    some = lowest <= highest
    lowest, highest = np.where(some, lowest, 0), np.where(some, highest, 0)
    near, far = np.minimum(abs(lowest), abs(highest)), np.maximum(abs(lowest), abs(highest))
    centered = (np.sign(lowest) == np.sign(highest)) & (far / 2 <= near)
    center = np.where(centered, lowest / 2 + highest / 2, np.float32(0)).astype(np.float32)
    _, exponent = np.frexp(np.maximum(abs(lowest - center), abs(highest - center)))
    return center, exponent - _HALF_EXPONENT


def _stored_type(spec: StateSpec) -> np.dtype[np.generic]:
    return spec.numpy_dtype.newbyteorder("<")


def _planes(values: AnyArray) -> bytes:
    """Return the bytes of a flat array, plane by plane."""
    width = values.dtype.itemsize
    return values.tobytes() if width == 1 else np.frombuffer(values.tobytes(), np.uint8).reshape(-1, width).T.tobytes()


def _unplanes(data: memoryview | bytes, dtype: np.dtype[np.generic], size: int) -> AnyArray:
    """Return the flat, writable array of `size` values that `_planes` took apart."""
    planes = np.frombuffer(data, np.uint8).reshape(dtype.itemsize, size)
    return np.ascontiguousarray(planes.T).reshape(-1).view(dtype)
