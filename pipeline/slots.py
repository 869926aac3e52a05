"""Which row of the state belongs to which stream.

Owns: the directory from (partition, stream id) to slot, and the pages that slots are handed out in. Does not know:
what a row holds, or where. A page is `PAGE_SLOTS` consecutive slots and belongs to one partition, so that a
partition's state can come and go as a unit.

Invariants: page 0 is scratch and is never given to a stream (slot 0 pads batches); two streams never share a slot;
a page that is handed out is reported by `take_new_pages` and must be zeroed before its slots are used, so that
a stream never sees what another one left behind.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from pipeline.arrays import IntArray

PAGE_SLOTS: Final = 256


@dataclass(slots=True)
class _Partition:
    slots: dict[str, int] = field(default_factory=dict)
    pages: list[int] = field(default_factory=list)
    next_slot: int = 0
    last_slot: int = 0  # exclusive; equal to next_slot when the partition needs another page


class SlotTable:
    """The directory. Used from one thread."""

    def __init__(self) -> None:
        self._partitions: dict[int, _Partition] = {}
        self._free_pages: list[int] = []
        self._new_pages: list[int] = []
        self._num_pages = 1

    @property
    def num_slots(self) -> int:
        """Rows that the state must have, the scratch page included."""
        return self._num_pages * PAGE_SLOTS

    @property
    def num_streams(self) -> int:
        """Streams that have a slot."""
        return sum(len(partition.slots) for partition in self._partitions.values())

    def locate(self, partition: int, unique_ids: Sequence[str]) -> IntArray:
        """Return the `(n,)` slots of streams of one partition; a stream seen for the first time gets one."""
        owner = self._partitions.setdefault(partition, _Partition())
        find = owner.slots.get
        found = [find(unique_id, 0) for unique_id in unique_ids]
        if 0 in found:
            for row, slot in enumerate(found):
                if slot == 0:
                    unique_id = unique_ids[row]
                    # The same new stream may stand in the batch more than once.
                    found[row] = find(unique_id, 0) or self._allocate(owner, unique_id)
        return np.array(found, dtype=np.int64)

    def take_new_pages(self) -> list[int]:
        """Return the pages handed out since the last call; their rows must be zeroed before use."""
        pages, self._new_pages = self._new_pages, []
        return pages

    def release(self, partition: int) -> None:
        """Forget a partition's streams; its pages may go to others. A partition without streams is no error."""
        owner = self._partitions.pop(partition, None)
        if owner is not None:
            self._free_pages.extend(owner.pages)

    def partitions(self) -> Iterable[int]:
        """Return the partitions that have streams."""
        return list(self._partitions)

    def streams(self, partition: int) -> dict[str, int]:
        """Return a copy of one partition's directory."""
        owner = self._partitions.get(partition)
        return dict(owner.slots) if owner else {}

    def _allocate(self, owner: _Partition, unique_id: str) -> int:
        if owner.next_slot == owner.last_slot:
            if self._free_pages:
                page = self._free_pages.pop()
            else:
                page = self._num_pages
                self._num_pages += 1
            owner.pages.append(page)
            self._new_pages.append(page)
            owner.next_slot = page * PAGE_SLOTS
            owner.last_slot = owner.next_slot + PAGE_SLOTS
        slot = owner.next_slot
        owner.next_slot += 1
        owner.slots[unique_id] = slot
        return slot
