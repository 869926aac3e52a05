"""Observation and forecast records: bytes to columns, columns to bytes.

Owns: the JSON form of both records, the limits that an observation has to keep, and the reason codes of dead
letters. Does not know: where the bytes come from or go to, or what a model does with the columns. One bad
record is rejected with a reason; it never stops the others. `docs/records.md` is the same in prose.
"""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, NamedTuple

import msgspec
import numpy as np
import orjson

from pipeline.arrays import FloatArray, IntArray, StatusArray
from pipeline.bundle import BundleMetadata, Status

MIN_DS: Final = dt.datetime(1900, 1, 1, tzinfo=dt.UTC)
MAX_DS: Final = dt.datetime(2200, 1, 1, tzinfo=dt.UTC)
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MILLISECOND: Final = dt.timedelta(milliseconds=1)
_MIN_DS_MS: Final = (MIN_DS - _EPOCH) // _MILLISECOND
_MAX_DS_MS: Final = (MAX_DS - _EPOCH) // _MILLISECOND
_DETAIL_CHARS: Final = 200


class Reason(enum.StrEnum):
    """Why a record became a dead letter."""

    EMPTY = "empty"
    TOO_LARGE = "too_large"
    NOT_UTF8 = "not_utf8"
    NOT_JSON = "not_json"
    MISSING_FIELD = "missing_field"
    WRONG_TYPE = "wrong_type"
    BAD_ID = "bad_id"
    DS_OUT_OF_RANGE = "ds_out_of_range"
    Y_OUT_OF_RANGE = "y_out_of_range"
    LATE = "late"
    QUARANTINED = "quarantined"
    TOO_MANY_STREAMS = "too_many_streams"


class Rejection(NamedTuple):
    """One record that cannot be used: its row in the poll, why, and the particulars for a person."""

    row: int
    reason: Reason
    detail: str


class Observation(msgspec.Struct, gc=False):
    """One event: `{"unique_id": "web-17/cpu", "ds": "2024-05-01T12:00:00Z", "y": 0.42}`.

    `ds` is RFC 3339 text (UTC when it has no zone) or whole milliseconds since the epoch. `y` may be null or
    absent: a missing observation, which still advances the stream. Further members are ignored.
    """

    unique_id: Annotated[str, msgspec.Meta(min_length=1)]
    ds: int | dt.datetime
    y: float | None = None


@dataclass(frozen=True, slots=True)
class Observations:
    """Decoded events as columns, in the order of the poll.

    Attributes:
        rows: `(n,)` int64, which row of the poll each event came from.
        unique_ids: stream ids.
        ds: `(n,)` int64, milliseconds since the epoch.
        y: `(n,)` float32, NaN = missing.
    """

    rows: IntArray
    unique_ids: list[str]
    ds: IntArray
    y: FloatArray

    def __len__(self) -> int:
        return len(self.unique_ids)


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """What an observation must not exceed."""

    max_record_bytes: int = 1_048_576
    max_id_bytes: int = 512
    max_abs_y: float = 1e15


class ObservationDecoder:
    """JSON bytes to columns.

    A batch in which every record is good costs one list comprehension per column; only a batch with a bad record
    is gone through one by one.
    """

    def __init__(self, limits: DecodeLimits | None = None) -> None:
        self._limits = limits or DecodeLimits()
        self._decode: Callable[[bytes], Observation] = msgspec.json.Decoder(Observation).decode

    def decode(self, values: Sequence[bytes | None]) -> tuple[Observations, list[Rejection]]:
        """Decode a poll's values; every row ends up in exactly one of the two results."""
        try:
            return self._decode_all(values), []
        except (_NeedsCareError, TypeError, msgspec.MsgspecError, ValueError, RecursionError):
            return self._decode_one_by_one(values)

    def _decode_all(self, values: Sequence[bytes | None]) -> Observations:
        limits, decode = self._limits, self._decode
        if any(value is None or len(value) > limits.max_record_bytes for value in values):
            raise _NeedsCareError
        events = [decode(value) for value in values]  # type: ignore[arg-type]  # None was ruled out above
        ids = [event.unique_id for event in events]
        if ids and max(map(len, ids)) * 4 > limits.max_id_bytes:  # UTF-8 takes at most 4 bytes a character
            raise _NeedsCareError
        ds = np.fromiter((_epoch_ms(event.ds) for event in events), dtype=np.int64, count=len(events))
        if ds.size and (ds.min() < _MIN_DS_MS or ds.max() > _MAX_DS_MS):
            raise _NeedsCareError
        y = np.array([event.y for event in events], dtype=np.float64)  # None becomes NaN
        if np.any(np.abs(y) > limits.max_abs_y):
            raise _NeedsCareError
        rows = np.arange(len(events), dtype=np.int64)
        return Observations(rows, ids, ds, y.astype(np.float32))

    def _decode_one_by_one(self, values: Sequence[bytes | None]) -> tuple[Observations, list[Rejection]]:
        rows: list[int] = []
        ids: list[str] = []
        ds: list[int] = []
        y: list[float] = []
        rejections: list[Rejection] = []
        for row, value in enumerate(values):
            outcome = self._decode_one(value)
            if isinstance(outcome, Observation):
                rows.append(row)
                ids.append(outcome.unique_id)
                ds.append(_epoch_ms(outcome.ds))
                y.append(np.nan if outcome.y is None else outcome.y)
            else:
                reason, detail = outcome
                rejections.append(Rejection(row, reason, detail[:_DETAIL_CHARS]))
        columns = np.array(rows, np.int64), ids, np.array(ds, np.int64), np.array(y, np.float64).astype(np.float32)
        return Observations(*columns), rejections

    def _decode_one(self, value: bytes | None) -> Observation | tuple[Reason, str]:
        """Return the observation, or the reason and the particulars of its rejection."""
        limits = self._limits
        if not value:
            return Reason.EMPTY, "the record has no value"
        if len(value) > limits.max_record_bytes:
            return Reason.TOO_LARGE, f"{len(value)} bytes, input.max_record_bytes is {limits.max_record_bytes}"
        try:
            value.decode("utf-8")
            event = self._decode(value)
        except UnicodeDecodeError as error:
            return Reason.NOT_UTF8, str(error)
        except msgspec.ValidationError as error:
            return _reason_of(str(error)), str(error)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            return Reason.NOT_JSON, str(error)
        if (size := len(event.unique_id.encode())) > limits.max_id_bytes:
            return Reason.BAD_ID, f"unique_id has {size} bytes, input.max_id_bytes is {limits.max_id_bytes}"
        if not _MIN_DS_MS <= _epoch_ms(event.ds) <= _MAX_DS_MS:
            return Reason.DS_OUT_OF_RANGE, f"ds {event.ds} is not between {MIN_DS.date()} and {MAX_DS.date()}"
        if event.y is not None and abs(event.y) > limits.max_abs_y:
            return Reason.Y_OUT_OF_RANGE, f"|y| = {abs(event.y):g}, input.max_abs_y is {limits.max_abs_y:g}"
        return event


class _NeedsCareError(Exception):
    """A record of the batch may have to be rejected; which one is found out one by one."""


def _epoch_ms(ds: int | dt.datetime) -> int:
    if isinstance(ds, int):
        # numpy would refuse a number beyond int64; any such date is out of range all the same.
        return min(max(ds, _MIN_DS_MS - 1), _MAX_DS_MS + 1)
    return ((ds if ds.tzinfo else ds.replace(tzinfo=dt.UTC)) - _EPOCH) // _MILLISECOND


def _reason_of(message: str) -> Reason:
    """Sort msgspec's message about a well-formed JSON document."""
    if "missing required field" in message:
        return Reason.MISSING_FIELD
    if "$.unique_id" in message and "length" in message:
        return Reason.BAD_ID
    if "$.ds" in message and ("datetime" in message.split("got")[0] and "Invalid" in message):
        return Reason.DS_OUT_OF_RANGE
    if "$.y" in message and "out of range" in message:
        return Reason.Y_OUT_OF_RANGE
    return Reason.WRONG_TYPE


@dataclass(frozen=True, slots=True)
class ForecastColumns:
    """Forecasts to be encoded; row `i` of each column belongs to one record.

    Attributes:
        unique_ids: stream ids.
        ds: `(n,)` int64, event time in milliseconds since the epoch: the origin of the forecast.
        status: `(n,)` int8, `Status`.
        forecast: `(n, H, Q)` float32.
        anomaly: `(n,)` float32, NaN = unknown; None where the bundle has no such output.
        partitions: `(n,)` int64, of the event in the source.
        offsets: `(n,)` int64, of the event in the source.
    """

    unique_ids: Sequence[str]
    ds: IntArray
    status: StatusArray
    forecast: FloatArray
    anomaly: FloatArray | None
    partitions: IntArray
    offsets: IntArray


class ForecastEncoder:
    """Columns to JSON forecast records, keyed by stream id.

    The whole batch's numbers are printed by one call on the float32 array (the shortest digits that read back to
    the same float32) and the text is then cut into rows, which is several times faster than encoding lists.
    """

    def __init__(self, metadata: BundleMetadata) -> None:
        levels = b",".join(b'"%g":[%%b]' % q for q in metadata.quantiles)
        constant = b'"freq":%b,"model":%b' % (
            orjson.dumps(metadata.freq),
            orjson.dumps(f"{metadata.name}@{metadata.model_id}"),
        )
        self._template = (
            b'{"unique_id":%b,"ds":"%bZ",' + constant.replace(b"%", b"%%") + b',"status":"%b","quantiles":{'
            + levels + b'},"anomaly":%b,"source":{"partition":%d,"offset":%d}}'
        )  # fmt: skip
        self._status = [status.name.lower().encode() for status in Status]

    def encode(self, columns: ForecastColumns) -> tuple[list[bytes], list[bytes]]:
        """Return keys and values, one of each per row."""
        n = len(columns.unique_ids)
        if n == 0:
            return [], []
        by_level = np.ascontiguousarray(columns.forecast.transpose(0, 2, 1))
        text = orjson.dumps(by_level, option=orjson.OPT_SERIALIZE_NUMPY)
        rows = text[3:-3].split(b"]],[[")
        anomaly = columns.anomaly if columns.anomaly is not None else np.full(n, np.nan, np.float32)
        anomalies = orjson.dumps(anomaly, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",")
        times = np.datetime_as_string(columns.ds.astype("datetime64[ms]")).astype("S").tolist()
        names = self._status
        values = [
            self._template % (orjson.dumps(unique_id), ds, names[status], *row.split(b"],["), odd, partition, offset)
            for unique_id, ds, status, row, odd, partition, offset in zip(
                columns.unique_ids,
                times,
                columns.status.tolist(),
                rows,
                anomalies,
                columns.partitions.tolist(),
                columns.offsets.tolist(),
                strict=True,
            )
        ]
        return [unique_id.encode() for unique_id in columns.unique_ids], values
