"""Outlying dates: a placeholder such as 1970-01-01 or 2099-12-31, or a lone event long after all others.

Owns: the rule for outlying dates. Does not know: frequencies, or whether a caller drops or reports the events.

Training, validation and back-tests go by the first and the last event of a series. One wrong date would move these by
decades and leave nothing between them.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from rillcast.arrays import IntArray

_LEAST_EVENTS: Final = 20  # of fewer events none is known to be outlying
_EVENTS_PER_OUTLIER: Final = 100  # at each end of a stream; at least one event may be outlying


def outlying_rows(frame: pl.DataFrame) -> pl.Series:
    """Return which events of a table have an outlying date.

    An event is outlying if it is among the first or the last hundredth of its stream (at least one event), and a gap
    parts it from the rest that is as long as the rest. The same goes for the events of all streams together.

    Args:
        frame: A table with `unique_id` and `ds`, sorted by them.
    """
    lengths, times = frame["unique_id"].rle().struct.field("len").to_numpy(), frame["ds"].to_numpy()
    outlying = np.zeros(len(frame), np.bool_)
    for start, length in zip((np.cumsum(lengths) - lengths).tolist(), lengths.tolist(), strict=True):
        own = times[start : start + length]
        outlying[start : start + length] = _outside(own, _bounds(own))
    if len(lengths) > 1:
        outlying |= _outside(times, _bounds(np.sort(times[~outlying])))
    return pl.Series("outlying", outlying)


def iso(milliseconds: int) -> str:
    """Return a time as ISO 8601 in UTC, to the second; of any year."""
    return f"{np.datetime_as_string(np.datetime64(int(milliseconds), 'ms'), unit='s')}Z"


def _bounds(times: IntArray) -> tuple[int, int]:
    """Return the first and the last time that are not outlying."""
    few = max(1, len(times) // _EVENTS_PER_OUTLIER)
    first, last = 0, len(times) - 1
    rest = times[few : len(times) - few]
    if len(times) >= _LEAST_EVENTS and (span := rest[-1] - rest[0]) > 0:
        far = np.flatnonzero(np.diff(times[: few + 1]) >= span)
        first = int(far[-1]) + 1 if far.size else first
        far = np.flatnonzero(np.diff(times[-few - 1 :]) >= span)
        last = len(times) - few - 1 + int(far[0]) if far.size else last
    return int(times[first]), int(times[last])


def _outside(times: IntArray, bounds: tuple[int, int]) -> npt.NDArray[np.bool_]:
    return (times < bounds[0]) | (times > bounds[1])
