"""Which periods close: pure arithmetic over streams, the periods in which they had events, and horizons.

Owns: the order of a stream's periods, the empty ones among them, and when a stream sleeps.
Does not know: what a period's events are, slots, partitions.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rillcast.arrays import IntArray
from rillcast.engine.slot_state import NEVER


class Closing(NamedTuple):
    """Periods that close; those of a stream in their order.

    Attributes:
        which: `(k,)` int64, the stream of each.
        periods: `(k,)` int64.
        cells: `(k,)` int64, the period's cell; -1 = the stream had no event in it.
        following: `(k,)` int64, the first cell of the stream after the period; -1 = there is none.
        last: `(m,)` int64, by stream the last closed period with events; `NEVER` = there is none.
    """

    which: IntArray
    periods: IntArray
    cells: IntArray
    following: IntArray
    last: IntArray


def close(
    cursor: IntArray, last: IntArray, horizon: IntArray, which: IntArray, periods: IntArray, silent_after: int
) -> Closing:
    """Close all periods before a horizon.

    Args:
        cursor: `(m,)`, the first period of each stream that is not closed.
        last: `(m,)`, the last closed period of each stream that had events; `NEVER` = there is none.
        horizon: `(m,)`, periods of a stream before it close.
        which: `(c,)`, the stream of each cell with events. Cells are sorted by stream, then by period.
        periods: `(c,)`, their periods, none before the cursor.
        silent_after: Most consecutive periods without events that close; the others before the next event are left out.
    """
    m, is_closed = cursor.size, periods < horizon[which]
    closed = np.flatnonzero(is_closed)
    # A node is what empty periods may follow: the stream's past, or a closed cell.
    stream = np.concatenate((np.arange(m), which[closed]))
    period = np.concatenate((last, periods[closed]))
    order = np.lexsort((period, stream))
    stream, period, cell = stream[order], period[order], np.concatenate((np.full(m, -1), closed))[order]
    is_cell = cell >= 0
    begins = np.where(is_cell, period, cursor[stream])
    ends = horizon[stream]
    same = np.flatnonzero(stream[1:] == stream[:-1])
    ends[same] = np.minimum(ends[same], period[same + 1])
    ends = np.where(period == NEVER, begins, np.minimum(ends, period + 1 + silent_after))
    number = np.maximum(ends - begins, is_cell)

    node = np.repeat(np.arange(stream.size), number)
    nth = np.arange(node.size) - np.repeat(np.cumsum(number) - number, number)
    following = _following(stream, cell, which)
    new_last = last.copy()
    np.maximum.at(new_last, which[closed], periods[closed])
    return Closing(
        which=stream[node],
        periods=begins[node] + nth,
        cells=np.where(nth == 0, cell[node], -1),
        following=following[node],
        last=new_last,
    )


def _following(stream: IntArray, cell: IntArray, which: IntArray) -> IntArray:
    """Return the cell that comes after each node in its stream; -1 = there is none."""
    first = np.searchsorted(which, stream)
    following = np.where(cell >= 0, cell + 1, first)
    exists = following < which.size
    exists[exists] = which[following[exists]] == stream[exists]
    return np.where(exists, following, -1)
