"""Forecast records in Avro, in the Confluent wire format, with the members of the JSON form.

The frame is a zero byte and the schema's id, for which the encoder asks the registry with the first record. Floats
always take four bytes, so numpy lays out the quantiles of a whole batch at once, and a row costs one `bytes.join`.

Owns: the schema and the bytes of a record.

Source: Apache Avro 1.12 specification, 'Binary Encoding' (numbers zigzag and in groups of 7 bits; maps and arrays as
counted blocks that end with an empty one).
"""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from rillcast.arrays import AnyArray, IntArray
from rillcast.bundle.bundle import BundleMetadata, Status
from rillcast.codecs.forecasts.columns import STATUS_NAMES, ForecastColumns, OneRecord, level_name, model_name

SCHEMA: Final[dict[str, Any]] = {
    "type": "record",
    "name": "Forecast",
    "namespace": "rillcast.v1",
    "doc": "One forecast for one event; see docs/records.md.",
    "fields": [
        {"name": "unique_id", "type": "string", "doc": "The stream."},
        {
            "name": "ds",
            "type": {"type": "long", "logicalType": "timestamp-millis"},
            "doc": "Time of the event: the origin of the forecast.",
        },
        {"name": "freq", "type": "string", "doc": "Length of a slot."},
        {"name": "model", "type": "string", "doc": "Name and id of the bundle."},
        {
            "name": "status",
            "type": {
                "type": "enum",
                "name": "Status",
                "symbols": [STATUS_NAMES[status] for status in Status if status.advanced],
            },
            "doc": "What became of the event.",
        },
        {
            "name": "quantiles",
            "type": {"type": "map", "values": {"type": "array", "items": "float"}},
            "doc": "By level; the i-th value (from 0) is for the slot i + 1 after that of ds.",
        },
        {"name": "anomaly", "type": ["null", "float"], "default": None, "doc": "0 to 1; null = unknown."},
        {
            "name": "source",
            "type": {
                "type": "record",
                "name": "Source",
                "fields": [{"name": "partition", "type": "int"}, {"name": "offset", "type": "long"}],
            },
            "doc": "Where the event stands.",
        },
        {
            "name": "revision",
            "type": "int",
            "default": 0,
            "doc": "How often the forecast of this stream and slot was revised; the record with the most counts.",
        },
    ],
}
"""The schema in `docs/schemas/forecast.avsc`, which the service registers."""
STEPS: Final[dict[str, Any]] = {
    "name": "steps",
    "type": {"type": "array", "items": "int"},
    "default": [],
    "doc": "The steps of the values, counted from 1; empty = 1, 2, 3, ...",
}
"""The last field of records whose steps are not simply the first ones."""
FRAME_BYTES: Final = 5
_GROUPS: Final = 10  # groups of 7 bits in the longest number
_END: Final = b"\0"  # end of a map or an array
_NULL: Final = b"\0"  # the first branch of a union


class AvroEncoder(OneRecord):
    """Encodes columns as Avro records, keyed by stream id."""

    def __init__(
        self, metadata: BundleMetadata, schema_id: Callable[[], int], steps: Sequence[int] | None = None
    ) -> None:
        """Prepare the encoder without asking the registry.

        Args:
            metadata: Metadata of the model.
            schema_id: Asks the registry for the id of `schema(steps)`; called once, with the first records.
            steps: The steps, where they are not simply the first ones; records then name them.
        """
        self._schema_id = schema_id
        self._frame: bytes | None = None
        members: list[tuple[str, Any]] = []
        constants: dict[str, bytes] = {}
        opening = number(len(metadata.quantiles))
        for level, quantile in enumerate(metadata.quantiles):
            constants[f"level{level}"] = opening + text(level_name(quantile)) + number(metadata.horizon)
            members.append((f"level{level}", f"V{len(constants[f'level{level}'])}"))
            members.append((f"values{level}", ("<f4", (metadata.horizon,))))
            opening = _END  # ends the array before
        constants["end"] = _END * 2
        members.append(("end", "V2"))
        self._row = np.dtype(members)
        self._constants = np.zeros((), self._row)
        for name, packed in constants.items():
            self._constants[name] = np.void(packed)
        self._levels = len(metadata.quantiles)
        self._steps = b"" if steps is None else number(len(steps)) + b"".join(map(number, steps)) + _END
        self._model = text(metadata.freq) + text(model_name(metadata))
        self._status = [number(status) for status in Status]

    def encode(self, columns: ForecastColumns) -> tuple[list[bytes], list[bytes]]:
        """Return keys and values, one of each per row.

        Raises:
            TransportError: The registry does not answer.
            SettingsError: The registry does not accept the schema.
        """
        n, size, model, status = len(columns), self._row.itemsize, self._model, self._status
        if n == 0:
            return [], []
        if self._frame is None:
            self._frame = b"\0" + self._schema_id().to_bytes(4, "big")
        block = np.full(n, self._constants)
        for level in range(self._levels):
            block[f"values{level}"] = columns.forecast[:, :, level]
        data, frame, steps = block.tobytes(), self._frame, self._steps
        revisions = [number(0)] * n if columns.revision is None else numbers(columns.revision.astype(np.int64))
        keys = [unique_id.encode() for unique_id in columns.unique_ids]
        lengths = numbers(np.array([len(key) for key in keys], np.int64))
        rows = zip(
            lengths,
            keys,
            numbers(columns.ds),
            columns.status.tolist(),
            range(0, n * size, size),
            anomalies(columns.anomaly, n),
            numbers(columns.partitions),
            numbers(columns.offsets),
            revisions,
            strict=True,
        )
        values = [
            b"".join(
                (
                    frame,
                    length,
                    key,
                    ds,
                    model,
                    status[of],
                    data[at : at + size],
                    anomaly,
                    partition,
                    offset,
                    revision,
                    steps,
                )
            )
            for length, key, ds, of, at, anomaly, partition, offset, revision in rows
        ]
        return keys, values


def schema(steps: Sequence[int] | None = None) -> str:
    """Return the text of the schema that records with these steps are written by."""
    return json.dumps(SCHEMA if steps is None else SCHEMA | {"fields": [*SCHEMA["fields"], STEPS]})


def number(value: int) -> bytes:
    """Return an Avro int or long."""
    return numbers(np.array([value], np.int64))[0]


def numbers(values: IntArray) -> list[bytes]:
    """Return Avro ints or longs: zigzag, then groups of 7 bits, lowest first; all but the last have the top bit set."""
    zigzag = ((values << 1) ^ (values >> 63)).astype(np.uint64)
    groups = (zigzag[:, None] >> np.arange(0, 7 * _GROUPS, 7, dtype=np.uint64)) & np.uint64(0x7F)
    lengths = np.maximum(1, _GROUPS - np.argmax(groups[:, ::-1] != 0, axis=1))
    lengths[~groups.any(axis=1)] = 1
    groups[np.arange(_GROUPS) < (lengths - 1)[:, None]] |= np.uint64(0x80)
    data = groups.astype(np.uint8).tobytes()
    return [data[_GROUPS * row : _GROUPS * row + length] for row, length in enumerate(lengths.tolist())]


def text(given: str) -> bytes:
    """Return an Avro string."""
    data = given.encode()
    return number(len(data)) + data


def texts(given: Sequence[bytes]) -> list[bytes]:
    """Return Avro strings of UTF-8."""
    return list(map(operator.add, numbers(np.array([len(data) for data in given], np.int64)), given))


def anomalies(anomaly: AnyArray | None, n: int) -> list[bytes]:
    """Return Avro unions of null and float; an unknown one is null."""
    if anomaly is None:
        return [_NULL] * n
    data = anomaly.astype("<f4").tobytes()
    known = np.isfinite(anomaly).tolist()
    return [b"\x02" + data[4 * row : 4 * row + 4] if known[row] else _NULL for row in range(n)]
