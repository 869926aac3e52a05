"""Forecasts as flat rows, one record per step, in JSON: what databases and SQL engines read without a transformation.

The members of a row are those of `MEMBERS`, with a member per level (`q10` for 0.1) after `step`. Its key identifies
it: `unique_id`, `origin` and `step`, or `unique_id` and `ds`. With Kafka Connect's envelope both have their schema with
them, and times are Connect's timestamps.

Owns: the names of a row's members, and the text of a row. Does not know: Avro (`avro_rows`), topics.

Source of the envelope: Apache Kafka, `org.apache.kafka.connect.json.JsonConverter` (`schemas.enable=true`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from typing import Any, Final, Literal, TypeAlias, TypeVar

import numpy as np
import orjson

from rillcast.arrays import IntArray
from rillcast.codecs.forecasts.columns import STATUS_NAMES, ForecastColumns, model_name
from rillcast.codecs.forecasts.json import numbers, texts, times
from rillcast.codecs.forecasts.msgpack import MsgpackEncoder
from rillcast.codecs.forecasts.rounding import Decimals, rounded
from rillcast.codecs.forecasts.selection import Selection

T = TypeVar("T")
RowKey: TypeAlias = Literal["origin", "ds"]
KEYS: Final[dict[RowKey, tuple[str, ...]]] = {"origin": ("unique_id", "origin", "step"), "ds": ("unique_id", "ds")}
MEMBERS: Final = {
    "unique_id": "string", "ds": "timestamp", "origin": "timestamp", "step": "int32", "model": "string",
    "freq": "string", "status": "string", "anomaly": "float", "revision": "int32", "source_partition": "int32",
    "source_offset": "int64",
}  # fmt: skip
"""The members of a row but the levels, in their order, with Connect's type of each."""
_OPTIONAL: Final = ("anomaly",)
_TIMESTAMP: Final = {"type": "int64", "name": "org.apache.kafka.connect.data.Timestamp", "version": 1}


def column_name(quantile: float) -> str:
    """Return the name of a level's member: `q10` for 0.1, `q2_5` for 0.025."""
    return f"q{100 * quantile:.10g}".replace(".", "_")


def quantile_of(name: str) -> float:
    """Return the level of a member that `column_name` named.

    Raises:
        ValueError: It is the name of no level.
    """
    return float(f"{float(name[1:].replace('_', '.')) / 100:.10g}")


def level_names(members: Sequence[str]) -> list[str]:
    """Return those of a row's members that are levels."""
    return [name for name in members if name[:1] == "q" and name[1:2].isdigit()]


class RowColumns:
    """What rows of any codec share: the times of the steps, and repetition of a forecast's members for its rows."""

    def __init__(self, selection: Selection) -> None:
        """Remember the steps of a forecast."""
        self._steps = selection.steps
        self._frequency = selection.metadata.frequency
        self.per_forecast = int(selection.steps.size)
        self.steps: list[int] = selection.steps.tolist()

    def times(self, origins: IntArray) -> IntArray:
        """Return `(n, h)`, when the period of each step begins, in milliseconds since the epoch."""
        different, which = np.unique(origins, return_inverse=True)
        found: IntArray = self._frequency.ahead(different[:, None], self._steps)[which]
        return found

    def each(self, members: Sequence[T]) -> list[T]:
        """Return the member of each forecast once for each of its rows."""
        return [member for member in members for _ in range(self.per_forecast)]


class JsonRowEncoder:
    """Encodes columns as rows in JSON."""

    def __init__(
        self,
        selection: Selection,
        *,
        key: RowKey = "origin",
        connect: bool = False,
        decimals: Decimals = "full",
    ) -> None:
        """Prepare the encoder.

        Args:
            selection: The published part of the model.
            key: Members of the key.
            connect: Whether keys and values have Kafka Connect's envelope.
            decimals: Decimal places of each number.
        """
        metadata = selection.metadata
        self._rows = RowColumns(selection)
        self.records_per_forecast = self._rows.per_forecast
        self._whole = MsgpackEncoder(metadata, selection.named_steps)
        self._key, self._connect = key, connect
        self._decimals, self._quantiles = decimals, metadata.quantiles
        names = [column_name(quantile) for quantile in metadata.quantiles]
        self._levels = [b'"%b":' % name.encode() for name in names]
        self._constant = b',"model":%b,"freq":%b,"status":"' % (
            orjson.dumps(model_name(metadata)), orjson.dumps(metadata.freq)
        )  # fmt: skip
        self._status = [name.encode() for name in STATUS_NAMES]
        self._value_end = b"}"
        self._value_start = self._key_start = b'{"unique_id":"'
        if connect:
            order = [name for name in MEMBERS if name in ("unique_id", "ds", "origin", "step")]
            order += [*names, *(name for name in MEMBERS if name not in order)]
            self._value_start = _opening("rillcast.v1.ForecastRow", order) + self._value_start
            self._key_start = _opening("rillcast.v1.ForecastRowKey", KEYS[key]) + self._key_start
            self._value_end = b"}}"

    def encode(self, columns: ForecastColumns) -> tuple[list[bytes], list[bytes]]:
        """Return keys and values; the rows of a forecast follow each other in the order of the steps."""
        n, rows = len(columns), self._rows
        if n == 0:
            return [], []
        ids = rows.each(texts(list(columns.unique_ids)))
        ds, origins = self._times(rows.times(columns.ds).reshape(-1)), rows.each(self._times(columns.ds))
        steps = [str(step).encode() for step in rows.steps] * n
        parts: list[Any] = [repeat(self._value_start), ids, repeat(b'","ds":'), ds, repeat(b',"origin":'), origins]
        parts += [repeat(b',"step":'), steps]
        forecast = rounded(columns.forecast, self._quantiles, self._decimals)
        forecast = forecast.reshape(-1, forecast.shape[2])
        for level, name in enumerate(self._levels):
            parts += [repeat(b"," + name), numbers(np.ascontiguousarray(forecast[:, level]))]
        parts += [self._ends(columns), repeat(self._value_end)]
        values = list(map(b"".join, zip(*parts, strict=False)))  # constants repeat without end
        if self._key == "ds":
            key_parts: list[Any] = [repeat(self._key_start), ids, repeat(b'","ds":'), ds, repeat(self._value_end)]
        else:
            key_parts = [repeat(self._key_start), ids, repeat(b'","origin":'), origins]
            key_parts += [repeat(b',"step":'), steps, repeat(self._value_end)]
        return list(map(b"".join, zip(*key_parts, strict=False))), values

    def whole(self, columns: ForecastColumns, values: list[bytes]) -> list[bytes]:  # noqa: ARG002  rows are no whole
        """See `ForecastEncoder.whole`; the records are MessagePack."""
        return self._whole.encode(columns)[1]

    def _ends(self, columns: ForecastColumns) -> list[bytes]:
        """Return the members after the levels; only the first row of a forecast has the anomaly."""
        n = len(columns)
        anomaly = columns.anomaly if columns.anomaly is not None else np.full(n, np.nan, np.float32)
        revision = columns.revision if columns.revision is not None else np.zeros(n, np.int32)
        found = []
        for status, rated, revised, partition, offset in zip(
            columns.status.tolist(), numbers(anomaly), numbers(revision), numbers(columns.partitions),
            numbers(columns.offsets), strict=True,
        ):  # fmt: skip
            head = self._constant + self._status[status] + b'","anomaly":'
            tail = b',"revision":%b,"source_partition":%b,"source_offset":%b' % (revised, partition, offset)
            found.append(head + rated + tail)
            found += [head + b"null" + tail] * (self._rows.per_forecast - 1)
        return found

    def _times(self, ds: IntArray) -> list[bytes]:
        return numbers(ds) if self._connect else [b'"%bZ"' % text for text in times(ds)]


def _opening(name: str, members: Sequence[str]) -> bytes:
    """Return the beginning of Connect's envelope, up to the payload."""
    fields = []
    for member in members:
        kind = MEMBERS.get(member, "float")
        type_of = _TIMESTAMP if kind == "timestamp" else {"type": kind}
        fields.append(type_of | {"optional": member in _OPTIONAL or member not in MEMBERS, "field": member})
    schema = {"type": "struct", "name": name, "optional": False, "fields": fields}
    return b'{"schema":%b,"payload":' % orjson.dumps(schema)
