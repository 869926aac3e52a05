"""The directory of slots: the row of state of each stream.

A page is some consecutive slots of one partition, at most `PAGE_SLOTS`, so that a partition's state can be loaded and
released as a unit. Within its partition a page has a number, under which it is stored.

Owns: the directory from (partition, stream id) to slot and back, and the pages in which slots are handed out.
Does not know: what a row holds, or where it is.
Invariants: page 0 is scratch and no stream gets a slot in it (slot 0 pads batches). Two streams never share a slot.
`take_new_pages` reports a page that is handed out again; its rows must be zeroed before use. The caller that forgets a
stream zeroes its row. So a stream never sees the state of another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Final

import numpy as np

from rillcast.arrays import IntArray

PAGE_SLOTS: Final = 256
NO_SLOT: Final = 0
TOO_MANY_AT_ONCE: Final = -1


@dataclass(slots=True)
class _Partition:
    slots: dict[str, int] = field(default_factory=dict)
    pages: list[int] = field(default_factory=list)
    free: list[int] = field(default_factory=list)  # used from the end


class SlotTable:
    """The directory of slots. Used from one thread."""

    def __init__(self, page_slots: int = 0) -> None:
        """Begin without streams.

        Args:
            page_slots: Slots of a page, at most `PAGE_SLOTS`; 0 = that many.
        """
        self.page_slots = page_slots or PAGE_SLOTS
        self._partitions: dict[int, _Partition] = {}
        self._free_pages: list[int] = []
        self._fresh_pages: list[int] = []
        self._used_pages: list[int] = []
        self._names: dict[int, list[str]] = {}  # by page, the stream of each slot; "" = free
        self._num_pages = 1
        self._num_streams = 0
        self._split: set[str] = set()
        self._last_split: str | None = None

    @property
    def num_slots(self) -> int:
        """Number of rows that the state needs, including the scratch page."""
        return self._num_pages * self.page_slots

    @property
    def num_streams(self) -> int:
        """Number of streams that have a slot. Any thread may read it."""
        return self._num_streams

    @property
    def num_split(self) -> int:
        """Number of streams that have a slot in more than one partition. Any thread may read it."""
        return len(self._split)

    @property
    def last_split(self) -> str | None:
        """The stream that was found last in more than one partition. Any thread may read it."""
        return self._last_split

    def locate(
        self,
        partition: int,
        unique_ids: Sequence[str],
        max_streams: int = 0,
        takes: Callable[[int], bool] | None = None,
    ) -> IntArray:
        """Return the `(n,)` slots of streams of one partition; a new stream gets a slot, unless it is refused.

        Args:
            partition: Partition of the input.
            unique_ids: Ids of the streams.
            max_streams: Largest number of streams in the partition; 0 = no limit.
            takes: Decides by its row whether a new stream is admitted; None = all are.

        Returns:
            The slots; `NO_SLOT` where `max_streams` refuses a stream, `TOO_MANY_AT_ONCE` where `takes` does.
        """
        owner = self._partitions.setdefault(partition, _Partition())
        find = owner.slots.get
        # `map` straight into the array takes half the time of a list in between.
        found = np.fromiter(map(find, unique_ids, repeat(NO_SLOT)), np.int64, len(unique_ids))
        if not found.all():
            new: list[str] = []
            for row in np.flatnonzero(found == NO_SLOT).tolist():
                unique_id = unique_ids[row]
                # A new stream may appear in the batch more than once.
                if (known := find(unique_id, NO_SLOT)) != NO_SLOT:
                    found[row] = known
                elif max_streams and len(owner.slots) >= max_streams:
                    continue
                elif takes is None or takes(row):
                    found[row] = self._allocate(owner, unique_id)
                    new.append(unique_id)
                else:
                    found[row] = TOO_MANY_AT_ONCE
            self._note_split(owner, new)
        return found

    def restore(self, partition: int, number: int, unique_ids: Sequence[str]) -> tuple[IntArray, IntArray]:
        """Give the streams of a stored page the slots that they had in page `number` of their partition.

        A stream that already has another slot moves; the caller restores newer pages later.

        Args:
            partition: Partition of the input.
            number: Number of the page, from 0; missing pages up to it are added.
            unique_ids: At most `page_slots` stream ids in slot order; "" = free.

        Returns:
            The slots of the streams, and the slots from which streams moved away.
        """
        owner = self._partitions.setdefault(partition, _Partition())
        while len(owner.pages) <= number:
            self._add_page(owner)
        page = owner.pages[number]
        taken, vacated = [], []
        for index, unique_id in enumerate(unique_ids):
            if unique_id:
                if (elsewhere := owner.slots.get(unique_id)) is not None:
                    self.forget(partition, np.array([elsewhere], dtype=np.int64))
                    vacated.append(elsewhere)
                slot = page * self.page_slots + index
                owner.slots[unique_id] = slot
                self._num_streams += 1
                self._names[page][index] = unique_id
                taken.append(slot)
        owner.free = sorted(set(owner.free) - set(taken), reverse=True)
        self._note_split(owner, [unique_id for unique_id in unique_ids if unique_id])
        return np.array(taken, dtype=np.int64), np.array(vacated, dtype=np.int64)

    def forget(self, partition: int, slots: IntArray) -> None:
        """Free slots of a partition; the caller zeroes their rows."""
        owner = self._partitions[partition]
        names: list[str] = []
        for slot in slots.tolist():
            page, index = divmod(slot, self.page_slots)
            names.append(self._names[page][index])
            del owner.slots[names[-1]]
            self._names[page][index] = ""
            owner.free.append(slot)
        self._num_streams -= slots.size
        self._forget_split(names)

    def release(self, partition: int) -> None:
        """Forget a partition's streams and free its pages for others. An unknown partition is ignored."""
        owner = self._partitions.pop(partition, None)
        if owner is not None:
            self._num_streams -= len(owner.slots)
            self._free_pages.extend(owner.pages)
            for page in owner.pages:
                del self._names[page]
            self._forget_split(owner.slots)

    def take_new_pages(self) -> tuple[list[int], list[int]]:
        """Return the pages handed out since the last call: those never used before, and those used before.

        The rows of used pages must be zeroed.
        """
        fresh, self._fresh_pages = self._fresh_pages, []
        used, self._used_pages = self._used_pages, []
        return fresh, used

    def pages(self, partition: int) -> Sequence[int]:
        """Return a partition's pages in the order of their numbers."""
        owner = self._partitions.get(partition)
        return tuple(owner.pages) if owner else ()

    def names(self, page: int) -> tuple[str, ...]:
        """Return the streams of a page in slot order, without free slots at its end; "" = free."""
        names = self._names[page]
        size = self.page_slots
        while size and not names[size - 1]:
            size -= 1
        return tuple(names[:size])

    def ids(self, slots: IntArray) -> list[str]:
        """Return the streams in some slots."""
        names, size = self._names, self.page_slots
        return [names[slot // size][slot % size] for slot in slots.tolist()]

    def find(self, partition: int, unique_ids: Iterable[str]) -> dict[str, int]:
        """Return the slots of those of some streams that have one in a partition."""
        owner = self._partitions.get(partition)
        known = {} if owner is None else owner.slots
        return {unique_id: known[unique_id] for unique_id in unique_ids if unique_id in known}

    def slots(self, partition: int) -> IntArray:
        """Return the slots of all streams of a partition."""
        owner = self._partitions.get(partition)
        return np.array(sorted(owner.slots.values()) if owner else [], dtype=np.int64)

    def _note_split(self, owner: _Partition, new: Sequence[str]) -> None:
        """Note which streams that are new to a partition another partition has; known streams are not looked up."""
        for other in self._partitions.values() if new else ():
            if other is not owner and not other.slots.keys().isdisjoint(new):
                found = [unique_id for unique_id in new if unique_id in other.slots]
                self._split.update(found)
                self._last_split = found[-1]

    def _forget_split(self, left: Iterable[str]) -> None:
        """Note which streams are in one partition again after they left another."""
        for unique_id in self._split.intersection(left) if self._split else ():
            if sum(unique_id in owner.slots for owner in self._partitions.values()) < 2:
                self._split.discard(unique_id)

    def slots_of(self, page: int) -> IntArray:
        """Return the slots of a page."""
        return np.arange(page * self.page_slots, (page + 1) * self.page_slots, dtype=np.int64)

    def _add_page(self, owner: _Partition) -> None:
        if self._free_pages:
            page = self._free_pages.pop()
            self._used_pages.append(page)
        else:
            page = self._num_pages
            self._num_pages += 1
            self._fresh_pages.append(page)
        owner.pages.append(page)
        self._names[page] = [""] * self.page_slots
        owner.free.extend(self.slots_of(page)[::-1].tolist())

    def _allocate(self, owner: _Partition, unique_id: str) -> int:
        if not owner.free:
            self._add_page(owner)
        slot = owner.free.pop()
        owner.slots[unique_id] = slot
        self._num_streams += 1
        page, index = divmod(slot, self.page_slots)
        self._names[page][index] = unique_id
        return slot
