"""Reads forecast records of any codec, for consumers in Python.

    from rillcast.codecs.forecasts.reader import decode_forecast
    forecast = decode_forecast(message.value(), message.key())

Owns: the reading side of `json`, `msgpack`, `float32` and `avro`; the first bytes of a record show its codec.
Does not know: Kafka.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import io
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np
import orjson

from rillcast.arrays import FloatArray, IntArray
from rillcast.bundle.frequency import parse
from rillcast.codecs.forecasts.columns import STATUS_NAMES
from rillcast.codecs.forecasts.float32 import HEADER, MAGIC
from rillcast.codecs.forecasts.rows import level_names, quantile_of
from rillcast.errors import DataError

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MILLISECOND: Final = dt.timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True, eq=False)
class Forecast:
    """One forecast, or a row of one (`output.shape = "rows"`), which has one step.

    Attributes:
        unique_id: The stream id.
        ds: Time of the event in milliseconds since the epoch, the origin of the forecast.
        freq: Length of a period.
        model: Name and id of the bundle; a float32 record has only the id.
        status: Result of the event, see `docs/records.md`.
        quantiles: `(Q,)` levels.
        values: `(H, Q)` float32; row `i` is for the period `steps[i]` after that of `ds`.
        anomaly: Anomaly of the observation, 0 to 1; NaN = unknown.
        partition: Partition of the event in the source.
        offset: Offset of the event in the source, or of the event that caused the revision. A repeated record has the
            same partition, offset and ds, by which a reader drops it.
        revision: How often the forecast of this stream and period had been revised before this one.
        steps: The `H` steps of `values`; empty = 1 to H.
    """

    unique_id: str
    ds: int
    freq: str
    model: str
    status: str
    quantiles: tuple[float, ...]
    values: FloatArray
    anomaly: float
    partition: int
    offset: int
    revision: int = 0
    steps: tuple[int, ...] = ()

    @property
    def times(self) -> IntArray:
        """`(H,)` int64, starts of the periods of the rows of `values`, in milliseconds since the epoch."""
        steps = np.array(self.steps or range(1, len(self.values) + 1), np.int64)
        times: IntArray = parse(self.freq).ahead(self.ds, steps)
        return times


def decode_forecast(value: bytes, key: bytes | None = None) -> Forecast:
    """Read one record.

    Args:
        value: Value of the record.
        key: Key of the record; only a float32 record needs it, because the key holds the stream id.

    Raises:
        DataError: The value is no forecast record of a known codec, or a float32 record has no key.
    """
    try:
        if value[:1] == b"{":
            return _from_members(orjson.loads(value))
        if value[:4] == MAGIC:
            return _from_float32(value, key)
        if value[:1] and 0x80 <= value[0] <= 0x8F:  # a small MessagePack map
            return _from_members(msgspec.msgpack.decode(value))
        if value[:1] == b"\0":  # Confluent's frame
            return _from_members(read_avro(value))
    except (KeyError, TypeError, ValueError, IndexError, msgspec.MsgspecError) as error:
        raise DataError(f"cannot read a forecast record of {len(value)} bytes: {error!r}") from error
    raise DataError(
        f"not a forecast record: found {value[:4]!r} at its start, expected JSON, MessagePack, Avro or {MAGIC!r}"
    )


def read_avro(value: bytes) -> dict[str, Any]:
    """Return the members of an Avro record, by the schemas of this release; of a row without its levels.

    A registry's deserialiser uses the writer's schema, and knows the names of a row's levels.

    Raises:
        DataError: The value is no such record, or fastavro is not installed.
    """
    try:
        from fastavro import parse_schema, schemaless_reader
    except ImportError as error:
        raise DataError("reading Avro needs fastavro; install the extra rillcast[registry]") from error
    from rillcast.codecs.forecasts import avro, avro_rows

    record = io.BytesIO(value[avro.FRAME_BYTES :])
    members: Any = None
    with contextlib.suppress(Exception):  # fastavro raises unrelated types, and a row is no whole forecast
        members = schemaless_reader(record, parse_schema(avro.SCHEMA), None)
        if record.tell() < len(record.getvalue()):
            members["steps"] = schemaless_reader(record, avro.STEPS["type"], None)
    if members is None:
        try:
            members = avro_rows.read_start(value)
        except Exception as error:
            raise DataError(f"cannot read an Avro record of {len(value)} bytes: {error!r}") from error
    times = {name: members[name] for name in ("ds", "origin") if name in members}
    found: dict[str, Any] = members | {name: (at - _EPOCH) // _MILLISECOND for name, at in times.items()}
    return found


def _from_members(members: dict[str, Any]) -> Forecast:
    if isinstance(payload := members.get("payload"), dict):  # Kafka Connect's envelope
        members = payload
    if "origin" in members:
        return _from_row(members)
    anomaly, source = members["anomaly"], members["source"]
    quantiles = members["quantiles"]
    values = np.array(list(quantiles.values()), np.float32).T
    return Forecast(
        unique_id=members["unique_id"],
        ds=_milliseconds(members["ds"]),
        freq=members["freq"],
        model=members["model"],
        status=members["status"],
        quantiles=tuple(float(level) for level in quantiles),
        values=values,
        anomaly=float("nan") if anomaly is None else anomaly,
        partition=source["partition"],
        offset=source["offset"],
        revision=members.get("revision", 0),
        steps=tuple(members.get("steps") or range(1, len(values) + 1)),
    )


def _from_row(members: dict[str, Any]) -> Forecast:
    names = level_names(list(members))
    if not names:
        raise DataError(
            "an Avro row names its levels in its schema only; read it with a registry's deserialiser, such as "
            "confluent-kafka's AvroDeserializer"
        )
    anomaly = members["anomaly"]
    return Forecast(
        unique_id=members["unique_id"],
        ds=_milliseconds(members["origin"]),
        freq=members["freq"],
        model=members["model"],
        status=members["status"],
        quantiles=tuple(quantile_of(name) for name in names),
        values=np.array([[members[name] for name in names]], np.float32),
        anomaly=float("nan") if anomaly is None else anomaly,
        partition=members["source_partition"],
        offset=members["source_offset"],
        revision=members["revision"],
        steps=(members["step"],),
    )


def _milliseconds(ds: int | str) -> int:
    if isinstance(ds, str):
        return (dt.datetime.fromisoformat(ds) - _EPOCH) // _MILLISECOND
    return ds


def _from_float32(value: bytes, key: bytes | None) -> Forecast:
    if key is None:
        raise DataError("a float32 forecast record has its stream id in its key; pass the key")
    header = np.frombuffer(value, HEADER, 1)[0]
    horizon, levels = int(header["horizon"]), int(header["levels"])
    quantiles = np.frombuffer(value, "<f4", levels, HEADER.itemsize)
    values_at, levels_end = int(header["values_at"]), HEADER.itemsize + 4 * levels
    values = np.frombuffer(value, "<f4", horizon * levels, values_at)
    revision = np.frombuffer(value, "<u4", 1, levels_end)[0] if values_at >= levels_end + 4 else 0
    steps: Any = np.arange(1, horizon + 1)
    if values_at >= levels_end + 4 + 2 * horizon:
        steps = np.frombuffer(value, "<u2", horizon, levels_end + 4)
    return Forecast(
        unique_id=key.decode(),
        ds=int(header["ds"]),
        freq=header["freq"].decode(),
        model=header["model_id"].decode(),
        status=STATUS_NAMES[header["status"]],
        quantiles=tuple(float(str(level)) for level in quantiles),
        values=values.reshape(horizon, levels),
        anomaly=float(header["anomaly"]),
        partition=int(header["partition"]),
        offset=int(header["offset"]),
        revision=int(revision),
        steps=tuple(steps.tolist()),
    )
