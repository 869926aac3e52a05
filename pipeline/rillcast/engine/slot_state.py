"""The state of every slot: its row on the device, and what the engine remembers of its stream's events.

Owns: the slab, the time of each stream's newest event, the position up to which a restored row is current, and the
pages that changed since their last export.
Does not know: stream ids, partitions, the model.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from rillcast.arrays import IntArray
from rillcast.engine.slab import Slab

NEVER: Final = int(np.iinfo(np.int64).min) // 2
"""A time before all others, in milliseconds or in periods: the newest event of a stream that has had none."""
HOST_BYTES: Final = 16
"""Bytes of host memory for each slot: one entry in each of two int64 arrays."""


class SlotState:
    """Rows and times by slot. Used from one thread."""

    def __init__(self, slab: Slab, page_slots: int) -> None:
        """Take over the rows of a slab.

        Args:
            slab: Rows of state, all zero.
            page_slots: Slots of a page.
        """
        self.slab = slab
        self.changed_pages: set[int] = set()
        # Zeros take no memory until they are written; `open` sets a slot's values when its page is handed out.
        self._newest_ds: IntArray = np.zeros(slab.num_slots, np.int64)
        self._applied_to: IntArray = np.zeros(slab.num_slots, np.int64)
        self._newest_ds[:page_slots] = NEVER
        self._page_slots = page_slots

    @property
    def num_slots(self) -> int:
        """Number of rows; a change means that the state arrays have moved and need another `Slab.bind`."""
        return self.slab.num_slots

    def newest(self, slots: IntArray) -> IntArray:
        """Return the time of each slot's newest event, `NEVER` where there was none."""
        return self._newest_ds[slots]

    def applied(self, slots: IntArray, offsets: IntArray) -> npt.NDArray[np.bool_]:
        """Return for each event whether the restored state of its stream already contains it."""
        return self._applied_to[slots] > offsets

    def note(self, slots: IntArray, ds: IntArray) -> None:
        """Record that the streams in `slots` had events at `ds`, which changes their pages."""
        np.maximum.at(self._newest_ds, slots, ds)
        self.mark_changed(slots)

    def mark_changed(self, slots: IntArray) -> None:
        """Record that rows changed, so that their pages need an export."""
        if slots.size:
            pages = slots // self._page_slots
            first = int(pages.min())
            self.changed_pages.update((np.flatnonzero(np.bincount(pages - first)) + first).tolist())

    def restore(self, slots: IntArray, newest_ds: IntArray, offset: int) -> None:
        """Record what a stored page says of the streams in `slots`.

        Args:
            slots: `(n,)` int64, slots of the restored streams.
            newest_ds: `(n,)` int64, times of their newest events in milliseconds.
            offset: Input position up to which their rows are current.
        """
        self._newest_ds[slots] = newest_ds
        self._applied_to[slots] = offset

    def ensure(self, num_slots: int) -> bool:
        """Make room for at least `num_slots` slots and return whether the arrays grew; contents stay."""
        if not self.slab.ensure(num_slots):
            return False
        more = np.zeros(self.slab.num_slots - self._newest_ds.size, np.int64)
        self._newest_ds = np.concatenate((self._newest_ds, more))
        self._applied_to = np.concatenate((self._applied_to, more))
        return True

    def open(self, slots: IntArray) -> None:
        """Prepare slots whose rows have never been used; the slab made those rows zero."""
        self._newest_ds[slots] = NEVER

    def clear(self, slots: IntArray) -> None:
        """Reset slots to their state before a stream's first event."""
        self.slab.clear(slots)
        self._newest_ds[slots] = NEVER
        self._applied_to[slots] = 0
