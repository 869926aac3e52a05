"""The reason codes of dead letters, which `docs/records.md` lists."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

_DETAIL_CHARS: Final = 300


class Reason(enum.StrEnum):
    """The reason for which a record became a dead letter."""

    EMPTY = "empty"
    TOO_LARGE = "too_large"
    NOT_UTF8 = "not_utf8"
    NOT_JSON = "not_json"
    NOT_MSGPACK = "not_msgpack"
    NOT_AVRO = "not_avro"
    NOT_PROTOBUF = "not_protobuf"
    NOT_FRAMED = "not_framed"
    UNKNOWN_SCHEMA = "unknown_schema"
    SCHEMA_VIOLATION = "schema_violation"
    NOT_INFLUX = "not_influx"
    NOT_CLOUDEVENT = "not_cloudevent"
    MISSING_FIELD = "missing_field"
    WRONG_TYPE = "wrong_type"
    BAD_ID = "bad_id"
    DS_OUT_OF_RANGE = "ds_out_of_range"
    FROM_THE_FUTURE = "from_the_future"
    Y_OUT_OF_RANGE = "y_out_of_range"
    COVARIATE_MISSING = "covariate_missing"
    COVARIATE_OUT_OF_RANGE = "covariate_out_of_range"
    UNMATCHED = "unmatched"
    LATE = "late"
    QUARANTINED = "quarantined"
    TOO_MANY_STREAMS = "too_many_streams"
    TOO_MANY_NEW_STREAMS = "too_many_new_streams"
    FORECAST_TOO_LARGE = "forecast_too_large"
    ANOMALY_TOO_LARGE = "anomaly_too_large"
    ALARM_TOO_LARGE = "alarm_too_large"


class Rejection(NamedTuple):
    """One record that cannot be used: its row in the poll, the reason, and details for a person."""

    row: int
    reason: Reason
    detail: str


def one_a_record(rejections: Sequence[Rejection]) -> list[Rejection]:
    """Return the first rejection of each record, which may have had several observations."""
    first: dict[int, Rejection] = {}
    for rejection in rejections:
        first.setdefault(rejection.row, rejection)
    return list(first.values())


class Placed(Protocol):
    """Records of which each may have a place in a file."""

    @property
    def place(self) -> Callable[[int], str]:
        """Where a row stands in a file, or an empty text."""
        ...


def rejection_of(records: Placed, row: int, reason: Reason, detail: str) -> Rejection:
    """Return the rejection of a record, with its place in front of the details."""
    place = records.place(row)
    return Rejection(row, reason, (f"{place}: {detail}" if place else detail)[:_DETAIL_CHARS])


class RefusedError(Exception):
    """A record cannot be used; it becomes a dead letter, and its stream continues from the previous state."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail
