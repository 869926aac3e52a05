"""Observation records: bytes to columns.

Owns: the JSON form of an observation and the limits that it has to keep. Does not know: where the bytes come from, or
what a model does with the columns. One bad record is rejected with a reason; it never stops the others.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec
import numpy as np

from pipeline.arrays import FloatArray, IntArray
from pipeline.codecs.rejections import Reason, Rejection

MIN_DS: Final = dt.datetime(1900, 1, 1, tzinfo=dt.UTC)
MAX_DS: Final = dt.datetime(2200, 1, 1, tzinfo=dt.UTC)
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MILLISECOND: Final = dt.timedelta(milliseconds=1)
_MIN_DS_MS: Final = (MIN_DS - _EPOCH) // _MILLISECOND
_MAX_DS_MS: Final = (MAX_DS - _EPOCH) // _MILLISECOND
_DETAIL_CHARS: Final = 200


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
