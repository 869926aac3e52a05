"""Raw events and the cells that they join, sorted by stream and period: arithmetic for the stage.

Owns: which cells some streams have with the events of a poll, and the newest period at each event.
Does not know: which events join, partitions, when a period closes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rillcast.arrays import IntArray
from rillcast.engine.periods import closing
from rillcast.engine.periods.aggregates import Aggregation, Cells
from rillcast.engine.periods.partials import Partials
from rillcast.events import EventBatch


class Joined(NamedTuple):
    """Raw events that join, in the order of arrival; `rows` are their rows among all events."""

    rows: IntArray
    slots: IntArray
    periods: IntArray


class Found(NamedTuple):
    """Cells of some streams that have events, sorted by stream, then by period.

    Attributes:
        which: `(c,)`, the stream of each.
        periods: `(c,)`, its period.
        first_row: `(c,)`, the row of its first event among those that join now; beyond all rows where none joins.
        cells: The cells.
    """

    which: IntArray
    periods: IntArray
    first_row: IntArray
    cells: Cells


def found_cells(partials: Partials, streams: IntArray, joined: Joined, which: IntArray, events: EventBatch) -> Found:
    """Return the cells of some streams with the events that join them."""
    stored = partials.kept(streams)
    stream = np.concatenate((stored.which, which))
    period = np.concatenate((stored.periods, joined.periods))
    order = np.lexsort((period, stream))
    stream, period = stream[order], period[order]
    is_first = np.ones(order.size, np.bool_)
    is_first[1:] = (stream[1:] != stream[:-1]) | (period[1:] != period[:-1])
    cell = np.empty(order.size, np.int64)
    cell[order] = np.cumsum(is_first) - 1
    number, held = int(np.count_nonzero(is_first)), stored.which.size
    cells = Cells(partials.aggregation, number)
    for name, column in cells.columns.items():
        column[cell[:held]] = partials.cells.columns[name][stored.cells]
    cells.join(cell[held:], events.ds[joined.rows], events.y[joined.rows])
    first_row = np.full(number, len(events), np.int64)
    np.minimum.at(first_row, cell[held:], joined.rows)
    return Found(stream[is_first], period[is_first], first_row, cells)


def close(
    found: Found, cursor: IntArray, last: IntArray, horizon: IntArray, aggregation: Aggregation
) -> closing.Closing:
    """Close the periods before a horizon that are not closed yet; see `closing.close`."""
    if not aggregation.correctable:
        return closing.close(cursor, last, horizon, found.which, found.periods, aggregation.silent_after)
    is_open = np.flatnonzero(found.periods >= cursor[found.which])
    done = closing.close(cursor, last, horizon, found.which[is_open], found.periods[is_open], aggregation.silent_after)
    of_cell = np.append(is_open, -1)  # -1 = no cell stays
    return done._replace(cells=of_cell[done.cells], following=of_cell[done.following])


def some(joined: Joined, which: npt.NDArray[np.bool_]) -> Joined:
    """Return some of the events that join."""
    return Joined(*(column[which] for column in joined))


def no_events() -> EventBatch:
    """Return a batch without events."""
    none = np.empty(0, np.int64)
    return EventBatch(none, none, (), none, np.empty(0, np.float32))


def newest_so_far(which: IntArray, periods: IntArray, cursor: IntArray) -> IntArray:
    """Return the newest period of each event's stream when the event comes, its own included.

    Args:
        which: `(n,)`, the stream of each event, in the order of arrival.
        periods: `(n,)`, its period.
        cursor: `(m,)`, the newest period of each stream before.
    """
    m = cursor.size
    known, rank = np.unique(np.concatenate((cursor, periods)), return_inverse=True)
    stream = np.concatenate((np.arange(m), which))
    key = stream * known.size + rank
    order = np.argsort(stream, kind="stable")
    newest = np.empty_like(key)
    newest[order] = np.maximum.accumulate(key[order])
    so_far: IntArray = known[newest[m:] % known.size]
    return so_far
