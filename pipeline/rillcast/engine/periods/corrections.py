"""Late events of closed periods: the aggregate is corrected, and the periods that it opens up are filled.

A stream keeps the cells of its last closed periods (`Aggregation.correctable`). A late event joins its cell, and the
new aggregate becomes an event of the period, which replaces the one before (`rillcast.engine.late`). Periods behind it
that were never stepped, because the stream slept or had no event yet, are stepped as empty.

Owns: which aggregates change, and where events have to be parted so that corrections come between the closings around
them. Does not know: how a stream goes back.

Invariant: each late event makes one correction, so that revisions do not depend on how events were polled.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rillcast.arrays import FloatArray, IntArray
from rillcast.engine.late import RetainedSteps
from rillcast.engine.periods.partials import Partials
from rillcast.engine.slot_state import NEVER
from rillcast.events import EventBatch


class Corrected(NamedTuple):
    """Observations that late events change or add; `rows` are the rows of these events."""

    rows: IntArray
    slots: IntArray
    periods: IntArray
    y: FloatArray


class Corrections:
    """Used from one thread."""

    def __init__(self, partials: Partials, retained: RetainedSteps) -> None:
        """Put the parts together.

        Args:
            partials: The open periods of the slots, and the closed ones that may be corrected.
            retained: What the model stepped in the same periods, at least.
        """
        self._partials = partials
        self._retained = retained
        self._silent_after = partials.aggregation.silent_after

    def take(
        self, events: EventBatch, rows: IntArray, slots: IntArray, periods: IntArray, first_open: IntArray
    ) -> Iterator[Corrected]:
        """Let late events join; give what changes, which has to be stepped before the next is asked for.

        Args:
            events: All events.
            rows: `(n,)`, rows of the late ones, increasing.
            slots: `(n,)`, their streams, which have closed all periods before.
            periods: `(n,)`, closed periods that are kept.
            first_open: `(n,)`, the first period of the stream that is open; counts where the stream has none yet.
        """
        order = np.argsort(slots, kind="stable")
        begins = np.flatnonzero(np.diff(slots[order], prepend=-1))
        nth = np.empty(rows.size, np.int64)
        nth[order] = np.arange(rows.size) - np.repeat(begins, np.diff(begins, append=rows.size))
        for number in range(int(nth.max(initial=-1)) + 1):
            at = np.flatnonzero(nth == number)
            yield self._one_each(events, rows[at], slots[at], periods[at], first_open[at])

    def _one_each(
        self, events: EventBatch, rows: IntArray, slots: IntArray, periods: IntArray, first_open: IntArray
    ) -> Corrected:
        partials, cells = self._partials, self._partials.cells
        new = partials.cursor(slots) == NEVER
        partials.begin(slots[new], first_open[new])
        at = partials.cell_of(slots, periods)
        cells.join(at, events.ds[rows], events.y[rows])
        partials.note(slots, periods)
        y = cells.results(at)
        changed = ~self._unchanged(slots, periods, y)
        which, empty = self._opened_up(slots, periods)
        rows = np.concatenate((rows[changed], rows[which]))
        found = np.concatenate((periods[changed], empty))
        y = np.concatenate((y[changed], np.full(which.size, partials.aggregation.empty, np.float32)))
        order = np.lexsort((found, rows))
        return Corrected(rows[order], np.concatenate((slots[changed], slots[which]))[order], found[order], y[order])

    def _unchanged(self, slots: IntArray, periods: IntArray, y: FloatArray) -> npt.NDArray[np.bool_]:
        """Return whether each stream has stepped a period with the same value."""
        before = self._retained.get(slots, periods).inputs.y
        same = (before == y) | (np.isnan(before) & np.isnan(y))
        unchanged: npt.NDArray[np.bool_] = same & self._retained.known(slots, periods)
        return unchanged

    def _opened_up(self, slots: IntArray, periods: IntArray) -> tuple[IntArray, IntArray]:
        """Return the empty periods after one of each stream that close with it and were not stepped."""
        last = np.minimum(periods + self._silent_after, self._partials.cursor(slots) - 1)
        kept = self._partials.kept(slots)
        after = kept.periods > periods[kept.which]
        np.minimum.at(last, kept.which[after], kept.periods[after] - 1)
        number = np.maximum(last - periods, 0)
        which = np.repeat(np.arange(slots.size), number)
        nth = np.arange(which.size) - np.repeat(np.cumsum(number) - number, number)
        empty = periods[which] + 1 + nth
        unknown = ~self._retained.known(slots[which], empty)
        return which[unknown], empty[unknown]


def parts(late: npt.NDArray[np.bool_], closes: npt.NDArray[np.bool_], key: IntArray) -> list[slice]:
    """Cut events so that in each part no event closes a period of a key after a late event of the same key.

    Args:
        late: `(n,)`, events that correct a period.
        closes: `(n,)`, events that close one.
        key: `(n,)`, whose periods these are.
    """
    cuts, corrected = [0], set[int]()
    for row in np.flatnonzero(late | closes).tolist():
        if late[row]:
            corrected.add(int(key[row]))
        elif int(key[row]) in corrected:
            cuts.append(row)
            corrected.clear()
    return [slice(first, end) for first, end in zip(cuts, [*cuts[1:], late.size], strict=True)]
