"""Forecasts as flat rows (`rillcast.codecs.forecasts.rows`) in Avro, in the Confluent wire format.

The schema depends on the model's levels. They come last and may be null, so that the schemas of models with other
levels are compatible, and so that a reader without the registry can read the members before them.

Owns: the schemas and the bytes of a row.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import numpy as np

from rillcast.bundle.bundle import BundleMetadata, Status
from rillcast.codecs.forecasts import avro
from rillcast.codecs.forecasts.avro import anomalies, number, numbers, text, texts
from rillcast.codecs.forecasts.columns import ForecastColumns, model_name
from rillcast.codecs.forecasts.msgpack import MsgpackEncoder
from rillcast.codecs.forecasts.rows import KEYS, MEMBERS, RowColumns, RowKey, column_name
from rillcast.codecs.forecasts.selection import Selection

_TYPES: Final[dict[str, Any]] = {
    "string": "string",
    "timestamp": {"type": "long", "logicalType": "timestamp-millis"},
    "int32": "int",
    "int64": "long",
    "float": ["null", "float"],
}
_LEVEL: Final = np.dtype([("branch", "u1"), ("value", "<f4")])
_SECOND_BRANCH: Final = 2  # of a union, as Avro writes the index 1
_NULL: Final = b"\0"


def value_schema(metadata: BundleMetadata) -> dict[str, Any]:
    """Return the schema of rows with the levels of a model."""
    levels = [
        {"name": column_name(level), "type": ["null", "float"], "default": None, "doc": f"Quantile {level:g}."}
        for level in metadata.quantiles
    ]
    return _record("ForecastRow", tuple(MEMBERS)) | {"fields": [*_fields(tuple(MEMBERS)), *levels]}


def key_schema(key: RowKey) -> dict[str, Any]:
    """Return the schema of keys."""
    return _record("ForecastRowKey", KEYS[key])


def _record(name: str, members: tuple[str, ...]) -> dict[str, Any]:
    doc = "One step of one forecast; see docs/records.md."
    return {"type": "record", "name": name, "namespace": "rillcast.v1", "doc": doc, "fields": _fields(members)}


def _fields(members: tuple[str, ...]) -> list[dict[str, Any]]:
    nullable = {"default": None}
    status: Any = next(field["type"] for field in avro.SCHEMA["fields"] if field["name"] == "status")
    types = {name: _TYPES[kind] for name, kind in MEMBERS.items()} | {"status": status}
    return [{"name": name, "type": types[name]} | (nullable if name == "anomaly" else {}) for name in members]


def read_start(value: bytes) -> dict[str, Any]:
    """Return the members of a row but its levels, whose names only the registry knows.

    Raises:
        Exception: fastavro's, of unrelated types, where the value is no such row.
    """
    from fastavro import parse_schema, schemaless_reader

    record = io.BytesIO(value[avro.FRAME_BYTES :])
    members: Any = schemaless_reader(record, parse_schema(_record("ForecastRow", tuple(MEMBERS))), None)
    found: dict[str, Any] = members
    return found


class AvroRowEncoder:
    """Encodes columns as rows in Avro."""

    def __init__(
        self,
        selection: Selection,
        schema_ids: Callable[[str, str], tuple[int, int]],
        *,
        key: RowKey = "origin",
    ) -> None:
        """Prepare the encoder without asking the registry.

        Args:
            selection: The published part of the model.
            schema_ids: Asks the registry for the ids of two schemas, of keys and of values; called once, with the first
                records.
            key: Members of the key.
        """
        metadata = selection.metadata
        self._rows = RowColumns(selection)
        self.records_per_forecast = self._rows.per_forecast
        self._whole = MsgpackEncoder(metadata, selection.named_steps)
        self._schema_ids = partial(schema_ids, json.dumps(key_schema(key)), json.dumps(value_schema(metadata)))
        self._frames: tuple[bytes, bytes] | None = None
        self._key = key
        self._model = text(model_name(metadata)) + text(metadata.freq)
        self._status = [number(status) for status in Status]

    def encode(self, columns: ForecastColumns) -> tuple[list[bytes], list[bytes]]:
        """Return keys and values; the rows of a forecast follow each other in the order of the steps.

        Raises:
            TransportError: The registry does not answer.
            SettingsError: The registry does not accept a schema.
        """
        n, rows = len(columns), self._rows
        if n == 0:
            return [], []
        if self._frames is None:
            of_key, of_value = self._schema_ids()
            self._frames = b"\0" + of_key.to_bytes(4, "big"), b"\0" + of_value.to_bytes(4, "big")
        key_frame, value_frame = self._frames
        ids = rows.each(texts([unique_id.encode() for unique_id in columns.unique_ids]))
        ds = numbers(rows.times(columns.ds).reshape(-1))
        origins = rows.each(numbers(columns.ds))
        steps = [number(step) for step in rows.steps] * n
        joined = map(b"".join, zip(ids, ds, origins, steps, self._middles(columns), self._levels(columns), strict=True))
        values = [value_frame + row for row in joined]
        members = (ids, ds) if self._key == "ds" else (ids, origins, steps)
        return [key_frame + b"".join(parts) for parts in zip(*members, strict=True)], values

    def whole(self, columns: ForecastColumns, values: list[bytes]) -> list[bytes]:  # noqa: ARG002  rows are no whole
        """See `ForecastEncoder.whole`; the records are MessagePack."""
        return self._whole.encode(columns)[1]

    def _middles(self, columns: ForecastColumns) -> list[bytes]:
        """Return the members between the step and the levels; only the first row of a forecast has the anomaly."""
        n = len(columns)
        revisions = [number(0)] * n if columns.revision is None else numbers(columns.revision.astype(np.int64))
        found = []
        for status, anomaly, revision, partition, offset in zip(
            columns.status.tolist(), anomalies(columns.anomaly, n), revisions, numbers(columns.partitions),
            numbers(columns.offsets), strict=True,
        ):  # fmt: skip
            head, tail = self._model + self._status[status], revision + partition + offset
            found.append(head + anomaly + tail)
            found += [head + _NULL + tail] * (self._rows.per_forecast - 1)
        return found

    def _levels(self, columns: ForecastColumns) -> list[bytes]:
        forecast = columns.forecast.reshape(-1, columns.forecast.shape[2])
        block = np.zeros(forecast.shape, _LEVEL)
        block["branch"], block["value"] = _SECOND_BRANCH, forecast
        data, size = block.tobytes(), _LEVEL.itemsize * forecast.shape[1]
        return [data[first : first + size] for first in range(0, len(data), size)]
