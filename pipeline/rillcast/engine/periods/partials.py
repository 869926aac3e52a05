"""The open periods of each slot: partial aggregates, as part of the state of a stream.

A stream has cells in a ring, `Aggregation.cells` of them; the cell of a period is the period's number modulo their
number. All periods before the stream's `cursor` are closed. Only those that may be corrected have a cell.

Owns: the cells and cursors of all slots, and their form in a stored page.
Does not know: when a period closes (`rillcast.engine.periods.closing`), stream ids, the model.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np

from rillcast.arrays import AnyArray, IntArray
from rillcast.bundle.bundle import StateSpec
from rillcast.engine.pages import page_column
from rillcast.engine.periods.aggregates import Aggregation, Cells
from rillcast.engine.slot_state import NEVER

log = logging.getLogger(__name__)

PREFIX: Final = "period."
"""Begins the names of the columns in a stored page; the names are part of the format and never change."""
_CURSOR: Final = PREFIX + "cursor"
_LAST: Final = PREFIX + "last"
_CURSOR_BYTES: Final = 16


class Kept(NamedTuple):
    """Cells that have events.

    Attributes:
        which: `(m,)` int64, indexes the slots that were asked for.
        periods: `(m,)` int64, period of each cell.
        cells: `(m,)` int64, the cell among all cells.
    """

    which: IntArray
    periods: IntArray
    cells: IntArray


class Partials:
    """Used from one thread."""

    def __init__(self, aggregation: Aggregation, num_slots: int) -> None:
        """Begin without streams.

        Args:
            aggregation: How events are aggregated.
            num_slots: Number of slots.
        """
        self.aggregation = aggregation
        self._ring = aggregation.cells
        # Zeros take no memory until they are used; `clear` sets a slot's values when it is handed out.
        self.cells = _zeros(aggregation, num_slots * self._ring)
        self._cursor: IntArray = np.zeros(num_slots, np.int64)
        self._last: IntArray = np.zeros(num_slots, np.int64)
        self._columns = page_columns(aggregation)

    @staticmethod
    def host_bytes(aggregation: Aggregation) -> int:
        """Return the bytes of host memory for each slot."""
        return _CURSOR_BYTES + aggregation.cells * Cells.bytes_per_cell(aggregation)

    def grow(self, num_slots: int) -> None:
        """Make room for more slots."""
        more = num_slots - self._cursor.size
        for name, column in self.cells.columns.items():
            self.cells.columns[name] = np.concatenate((column, np.zeros(more * self._ring, column.dtype)))
        self._cursor = np.concatenate((self._cursor, np.zeros(more, np.int64)))
        self._last = np.concatenate((self._last, np.zeros(more, np.int64)))

    def clear(self, slots: IntArray) -> None:
        """Forget everything in slots that have no stream yet."""
        self._cursor[slots] = self._last[slots] = NEVER
        self.cells.clear(self._all_cells(slots))

    def cursor(self, slots: IntArray) -> IntArray:
        """Return the first period of each stream that is not closed; `NEVER` where none is."""
        return self._cursor[slots]

    def last(self, slots: IntArray) -> IntArray:
        """Return the last closed period of each stream that had events; `NEVER` where there is none."""
        return self._last[slots]

    def cell_of(self, slots: IntArray, periods: IntArray) -> IntArray:
        """Return the cell of a period of each stream, open or kept, among all cells."""
        return slots * self._ring + periods % self._ring

    def kept(self, slots: IntArray) -> Kept:
        """Return the cells of some streams that have events, of open and of closed periods."""
        cells = self._all_cells(slots)
        which, nth = np.nonzero(self.cells.events[cells] > 0)
        first = self._cursor[slots[which]] - self.aggregation.correctable
        return Kept(which, first + (nth - first) % self._ring, cells[which, nth])

    def open(self, slots: IntArray) -> Kept:
        """Return the cells of some streams that have events, of open periods."""
        found = self.kept(slots)
        if not self.aggregation.correctable:
            return found
        is_open = found.periods >= self._cursor[slots[found.which]]
        return Kept(*(column[is_open] for column in found))

    def newest(self, slots: IntArray) -> IntArray:
        """Return when the newest open period with events of each stream began, in milliseconds; `NEVER` = none has."""
        found, newest = self.open(slots), np.full(slots.size, NEVER, np.int64)
        np.maximum.at(newest, found.which, self.aggregation.frequency.start_of(found.periods))
        return newest

    def newest_event(self, slots: IntArray) -> IntArray:
        """Return when the newest period with events of each stream began, open or closed; `NEVER` = none has."""
        last = self._last[slots]
        known = last != NEVER
        closed = np.where(known, self.aggregation.frequency.start_of(np.where(known, last, 0)), NEVER)
        return np.maximum(closed, self.newest(slots))

    def advance(self, slots: IntArray, cursor: IntArray, last: IntArray) -> None:
        """Empty the cells of some streams, and set how far these are closed."""
        self.cells.clear(self._all_cells(slots))
        self._cursor[slots], self._last[slots] = cursor, last

    def note(self, slots: IntArray, periods: IntArray) -> None:
        """Note events in a closed period of each stream."""
        self._last[slots] = np.maximum(self._last[slots], periods)

    def begin(self, slots: IntArray, cursor: IntArray | int) -> None:
        """Set the cursor of streams that have no event yet."""
        self._cursor[slots] = cursor

    def _all_cells(self, slots: IntArray) -> IntArray:
        """Return the cells of slots, `(n, Aggregation.cells)`."""
        return slots[:, None] * self._ring + np.arange(self._ring)

    # Stored pages.

    def export(self, slots: IntArray) -> dict[str, AnyArray]:
        """Return the columns of a stored page."""
        cells = self._all_cells(slots)
        columns: dict[str, AnyArray] = {_CURSOR: self._cursor[slots], _LAST: self._last[slots]}
        for name, column in self.cells.columns.items():
            values = column[cells]
            columns[self._name(name)] = values.view(np.int64) if name == "value" else values
        return columns

    def load(self, slots: IntArray, columns: Mapping[str, AnyArray]) -> None:
        """Take in what `export` returned.

        Streams have no open periods where columns are missing, or were written for another aggregate, grace or
        lateness.
        """
        if not slots.size:
            return
        self.clear(slots)
        if not all(c.name in columns and columns[c.name].shape[1:] == c.row_shape for c in self._columns):
            if any(name.startswith(PREFIX) for name in columns):
                log.warning(
                    "the open periods of %d stored streams were aggregated with other settings (input.aggregate, "
                    ".close, .grace_s, .allowed_lateness_periods); these periods begin again without the events so far",
                    slots.size,
                )
            return
        cells = self._all_cells(slots)
        for name, column in self.cells.columns.items():
            values = columns[self._name(name)]
            column[cells] = np.ascontiguousarray(values).view(np.float64) if name == "value" else values
        self._cursor[slots], self._last[slots] = columns[_CURSOR], columns[_LAST]

    def _name(self, column: str) -> str:
        return f"{PREFIX}{self.aggregation.kind}.{column}"


def page_columns(aggregation: Aggregation | None) -> tuple[StateSpec, ...]:
    """Return what a stored page holds of each stream in addition; `value` has the bits of a float64."""
    if aggregation is None:
        return ()
    shape, begin = (aggregation.cells,), f"{PREFIX}{aggregation.kind}."
    types = {"value": "int64", "values": "int32", "events": "int32"} | ({"at": "int64"} if aggregation.timed else {})
    return (
        page_column(_CURSOR, "int64", ()),
        page_column(_LAST, "int64", ()),
        *(page_column(begin + name, dtype, shape) for name, dtype in types.items()),
    )


def _zeros(aggregation: Aggregation, size: int) -> Cells:
    cells = Cells(aggregation, 0)
    cells.columns = {name: np.zeros(size, column.dtype) for name, column in cells.columns.items()}
    return cells
