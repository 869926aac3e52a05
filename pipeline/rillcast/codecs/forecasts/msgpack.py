"""Forecast records as MessagePack: the members of the JSON form, with numbers in float32.

Any MessagePack library reads them. A float32 always takes five bytes, so all members after the two of varying length
have a fixed size. Numpy lays them out for a whole batch at once, and a row costs one `bytes.join`.

Owns: the bytes of a record.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from rillcast.bundle.bundle import BundleMetadata
from rillcast.codecs.forecasts.columns import STATUS_NAMES, ForecastColumns, OneRecord, level_name, model_name

_pack = msgspec.msgpack.Encoder().encode
_FLOAT32: Final = 0xCA
_INT64: Final = 0xD3
_NULL: Final = b"\xc0"
_NUMBER: Final = np.dtype([("type", "u1"), ("value", ">f4")])
_WHOLE: Final = np.dtype([("type", "u1"), ("value", ">i8")])
_MEMBERS: Final = 8  # members of a record without steps and revision
_REVISION: Final = np.dtype([("type", "u1"), ("value", ">i4")])
_INT32: Final = 0xD2


class MsgpackEncoder(OneRecord):
    """Encodes columns as MessagePack records, keyed by stream id."""

    def __init__(self, metadata: BundleMetadata, steps: Sequence[int] | None = None) -> None:
        """Prepare the encoder; `steps` are named in records where they are not simply the first ones."""
        horizon = metadata.horizon
        members: list[tuple[str, Any]] = []
        constants: dict[str, bytes] = {}

        def constant(name: str, packed: bytes) -> None:
            members.append((name, f"V{len(packed)}"))
            constants[name] = packed

        constant("ds_name", _pack("ds"))
        members.append(("ds", _WHOLE))
        constant("model", b"".join(map(_pack, ("freq", metadata.freq, "model", model_name(metadata)))))
        if steps is not None:
            constant("steps", _pack("steps") + _pack(list(steps)))
        constant("quantiles", _pack("quantiles") + _map_of(len(metadata.quantiles)))
        for number, quantile in enumerate(metadata.quantiles):
            constant(f"level{number}", _pack(level_name(quantile)) + _array_of(horizon))
            members.append((f"values{number}", (_NUMBER, (horizon,))))
        constant("source", _pack("source") + _map_of(2) + _pack("partition"))
        members.append(("partition", _WHOLE))
        constant("offset_name", _pack("offset"))
        members.append(("offset", _WHOLE))
        constant("anomaly_name", _pack("anomaly"))
        members.append(("anomaly", _NUMBER))
        self._row = np.dtype(members)
        self._constants = np.zeros((), self._row)
        for name, packed in constants.items():
            self._constants[name] = np.void(packed)
        count = _MEMBERS + (steps is not None)
        self._head = _map_of(count) + _pack("unique_id")
        self._head_revised = _map_of(count + 1) + _pack("unique_id")
        self._status = [_pack("status") + _pack(name) for name in STATUS_NAMES]
        self._levels = len(metadata.quantiles)

    def encode(self, columns: ForecastColumns) -> tuple[list[bytes], list[bytes]]:
        """Return keys and values, one of each per row."""
        n, size = len(columns), self._row.itemsize
        block = np.full(n, self._constants)
        for name, column in (("ds", columns.ds), ("partition", columns.partitions), ("offset", columns.offsets)):
            block[name]["type"] = _INT64
            block[name]["value"] = column
        for number in range(self._levels):
            block[f"values{number}"]["type"] = _FLOAT32
            block[f"values{number}"]["value"] = columns.forecast[:, :, number]
        anomaly = columns.anomaly if columns.anomaly is not None else np.full(n, np.nan, np.float32)
        block["anomaly"]["type"] = _FLOAT32
        block["anomaly"]["value"] = anomaly
        data, head, status_of = block.tobytes(), self._head, self._status
        unknown = np.isnan(anomaly).tolist()
        tails = [b""] * n
        if columns.revision is not None:
            head, tails = self._head_revised, _revisions(columns.revision)
        keys, values = [], []
        for row, (unique_id, status) in enumerate(zip(columns.unique_ids, columns.status.tolist(), strict=True)):
            fixed = data[row * size : (row + 1) * size]
            if unknown[row]:
                fixed = fixed[: -_NUMBER.itemsize] + _NULL
            values.append(b"".join((head, _pack(unique_id), status_of[status], fixed, tails[row])))
            keys.append(unique_id.encode())
        return keys, values


def _revisions(revision: npt.NDArray[np.int32]) -> list[bytes]:
    """Return the last member of each record."""
    block = np.zeros(revision.size, _REVISION)
    block["type"], block["value"] = _INT32, revision
    name, data, size = _pack("revision"), block.tobytes(), _REVISION.itemsize
    return [name + data[first : first + size] for first in range(0, len(data), size)]


def _map_of(members: int) -> bytes:
    """Return the head of a map: 1 byte up to 15 members, else 3 bytes."""
    return bytes([0x80 | members]) if members < 16 else b"\xde" + members.to_bytes(2, "big")


def _array_of(elements: int) -> bytes:
    """Return the head of an array of fewer than 65,536 elements."""
    return bytes([0x90 | elements]) if elements < 16 else b"\xdc" + elements.to_bytes(2, "big")
