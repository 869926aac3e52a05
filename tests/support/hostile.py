"""Records that no service may accept, each with the reason of its refusal."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from rillcast.codecs.observations.rejections import Reason
from rillcast.transports.base import Headers, Polled

NOON_MS = 1_714_564_800_000  # 2024-05-01T12:00:00Z


def record(**members: object) -> bytes:
    return json.dumps({"unique_id": "a", "ds": NOON_MS, "y": 1.5} | members).encode()


def polled(
    values: Sequence[bytes | None],
    *,
    keys: Sequence[bytes | None] | None = None,
    timestamp_ms: int = -1,
    headers: Sequence[Headers] | None = None,
) -> Polled:
    """Return a poll of one partition that brought `values`."""
    n = len(values)
    given = headers if headers is not None else [()] * n
    return Polled(
        partitions=np.zeros(n, np.int64),
        offsets=np.arange(n),
        timestamps_ms=np.full(n, timestamp_ms, np.int64),
        keys=keys if keys is not None else [None] * n,
        values=values,
        headers=lambda row: given[row],
    )


HOSTILE: list[tuple[bytes | None, Reason]] = [
    (None, Reason.EMPTY),
    (b"", Reason.EMPTY),
    (b"hello", Reason.NOT_JSON),
    (b'{"unique_id": "a", "ds": 0, "y": 1', Reason.NOT_JSON),
    (b'{"unique_id": "a", "ds": 0, "y": NaN}', Reason.NOT_JSON),
    (b'{"unique_id": "a", "ds": 0, "y": Infinity}', Reason.NOT_JSON),
    (b'{"unique_id": "a", "ds": 0, "y": 1}{}', Reason.NOT_JSON),
    (b'{"unique_id": "\\ud800", "ds": 0, "y": 1}', Reason.NOT_JSON),
    (b'{"a":' * 100_000, Reason.NOT_JSON),
    (b'{"unique_id": "\xff\xfe", "ds": 0, "y": 1}', Reason.NOT_UTF8),
    (b"\xff", Reason.NOT_UTF8),
    (b'{"ds": 0, "y": 1}', Reason.MISSING_FIELD),
    (b'{"unique_id": "a", "y": 1}', Reason.MISSING_FIELD),
    (b"{}", Reason.MISSING_FIELD),
    (b"[]", Reason.WRONG_TYPE),
    (b"null", Reason.WRONG_TYPE),
    (b'"text"', Reason.WRONG_TYPE),
    (record(unique_id=True), Reason.WRONG_TYPE),
    (record(unique_id=7.5), Reason.WRONG_TYPE),
    (record(unique_id=None), Reason.WRONG_TYPE),
    (record(ds=True), Reason.WRONG_TYPE),
    (record(ds=[NOON_MS]), Reason.WRONG_TYPE),
    (record(ds=None), Reason.WRONG_TYPE),
    (record(y="1,5"), Reason.WRONG_TYPE),
    (record(y=True), Reason.WRONG_TYPE),
    (record(y=[1]), Reason.WRONG_TYPE),
    (record(unique_id=""), Reason.BAD_ID),
    (record(unique_id="x" * 513), Reason.BAD_ID),
    (record(unique_id="\u20ac" * 171), Reason.BAD_ID),
    (record(ds="2024-13-01T00:00:00Z"), Reason.DS_OUT_OF_RANGE),
    (record(ds="2024-02-30T00:00:00Z"), Reason.DS_OUT_OF_RANGE),
    (record(ds="yesterday"), Reason.DS_OUT_OF_RANGE),
    (record(ds="05/01/2024"), Reason.DS_OUT_OF_RANGE),
    (record(ds=str(20_240_501)), Reason.DS_OUT_OF_RANGE),
    (record(ds="9999-12-31T23:59:59Z"), Reason.DS_OUT_OF_RANGE),
    (record(ds="0001-01-01T00:00:00+14:00"), Reason.DS_OUT_OF_RANGE),
    (record(ds=10**15), Reason.DS_OUT_OF_RANGE),
    (record(ds=-(10**15)), Reason.DS_OUT_OF_RANGE),
    (record(ds=10**30), Reason.DS_OUT_OF_RANGE),
    (record(y=1e16), Reason.Y_OUT_OF_RANGE),
    (record(y=-1e300), Reason.Y_OUT_OF_RANGE),
    (b'{"unique_id": "a", "ds": 0, "y": 1e400}', Reason.Y_OUT_OF_RANGE),
    (b'{"unique_id": "a", "ds": 0, "y": ' + b"9" * 5000 + b"}", Reason.Y_OUT_OF_RANGE),
    (record(note="x" * 1_048_577), Reason.TOO_LARGE),
]
