"""Aggregates of events that are all known: a table, where nothing is late and every period closes.

It is the same arithmetic as in service: cells compute the aggregates, and `closing` says which periods close.

Owns: the order in which events are taken. Does not know: ids, files, slots.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rillcast.arrays import FloatArray, IntArray
from rillcast.engine.periods import closing
from rillcast.engine.periods.aggregates import Aggregation, Cells
from rillcast.engine.slot_state import NEVER


class Observations(NamedTuple):
    """Closed periods, sorted by stream, then by period.

    Attributes:
        which: `(k,)` int64, the stream of each.
        periods: `(k,)` int64.
        y: `(k,)` float32, the aggregate; the value of an empty period where there were no values.
    """

    which: IntArray
    periods: IntArray
    y: FloatArray


def aggregate(which: IntArray, ds: IntArray, y: FloatArray, aggregation: Aggregation) -> Observations:
    """Return the observations of events that are taken in the order of time, those of one time as given.

    With `close = "partition"` all streams close their periods up to the newest period of all events.

    Args:
        which: `(n,)` int64, the stream of each event, a number from 0 on; every number up to the largest has events.
        ds: `(n,)` int64, times in milliseconds.
        y: `(n,)` float32; NaN = missing.
        aggregation: What is computed.
    """
    order = np.argsort(ds, kind="stable")
    which, ds, y = which[order], ds[order], y[order]
    periods = np.asarray(aggregation.frequency.period_of(ds), np.int64)
    by_cell = np.lexsort((periods, which))
    stream, period = which[by_cell], periods[by_cell]
    begins = np.ones(order.size, np.bool_)
    begins[1:] = (stream[1:] != stream[:-1]) | (period[1:] != period[:-1])
    cell = np.empty(order.size, np.int64)
    cell[by_cell] = np.cumsum(begins) - 1
    stream, period = stream[begins], period[begins]
    cells = Cells(aggregation, stream.size)
    cells.join(cell, ds, y)

    never = np.full(int(stream.max(initial=-1)) + 1, NEVER, np.int64)
    cursor, horizon = np.full_like(never, -NEVER), never.copy()
    np.minimum.at(cursor, stream, period)
    np.maximum.at(horizon, stream, period + 1)
    if aggregation.close == "partition":
        horizon[:] = horizon.max(initial=NEVER)
    done = closing.close(cursor, never, horizon, stream, period, aggregation.silent_after)
    found: FloatArray = np.full(done.cells.size, aggregation.empty, np.float32)
    found[done.cells >= 0] = cells.results()[done.cells[done.cells >= 0]]
    return Observations(done.which, done.periods, found)
