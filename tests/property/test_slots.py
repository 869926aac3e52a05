from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from rillcast.engine.slots import PAGE_SLOTS, SlotTable


class SlotTableMachine(RuleBasedStateMachine):
    """Any sequence of look-ups and releases keeps the directory's promises."""

    def __init__(self) -> None:
        super().__init__()
        self.table = SlotTable()
        self.model: dict[tuple[int, str], int] = {}
        self.zeroed: set[int] = set()
        self.held: set[int] = set()

    @rule(partition=st.integers(0, 3), ids=st.lists(st.integers(0, 700).map(str), max_size=400))
    def locate(self, partition: int, ids: list[str]) -> None:
        slots = self.table.locate(partition, ids).tolist()
        fresh, used = self.table.take_new_pages()
        assert not self.held & set(fresh), "a page that somebody had passes for one that nobody had"
        self.held |= {*fresh, *used}
        self.zeroed |= {*fresh, *used}
        for unique_id, slot in zip(ids, slots, strict=True):
            assert self.model.setdefault((partition, unique_id), slot) == slot, "a stream moved"
            assert slot // PAGE_SLOTS in self.zeroed, "a slot of a page that nobody zeroed"

    @rule(partition=st.integers(0, 3))
    def release(self, partition: int) -> None:
        before = {slot // PAGE_SLOTS for (owner, _), slot in self.model.items() if owner == partition}
        self.table.release(partition)
        self.zeroed -= before
        self.model = {key: slot for key, slot in self.model.items() if key[0] != partition}

    @rule(partition=st.integers(0, 3), share=st.integers(1, 3))
    def forget(self, partition: int, share: int) -> None:
        leaving = [key for key in self.model if key[0] == partition][::share]
        if leaving:
            self.table.forget(partition, np.array([self.model.pop(key) for key in leaving], np.int64))

    @rule(partition=st.integers(0, 3), number=st.integers(0, 2), ids=st.sets(st.integers(0, 700).map(str), max_size=9))
    def restore(self, partition: int, number: int, ids: set[str]) -> None:
        page = self.table.pages(partition)[number : number + 1]
        taken = {slot for slot in self.model.values() if slot // PAGE_SLOTS in page}
        names = iter(ids)
        row = [next(names, "") if page and page[0] * PAGE_SLOTS + at not in taken else "" for at in range(PAGE_SLOTS)]
        if page:
            self.table.restore(partition, number, row)
            for at, unique_id in enumerate(row):
                if unique_id:
                    self.model[partition, unique_id] = page[0] * PAGE_SLOTS + at

    @invariant()
    def streams_in_two_partitions_are_known(self) -> None:
        counts = Counter(unique_id for _, unique_id in self.model)
        assert self.table.num_split == sum(count > 1 for count in counts.values())
        if self.table.num_split:
            assert self.table.last_split is not None

    @invariant()
    def no_slot_has_two_tenants(self) -> None:
        assert len(set(self.model.values())) == len(self.model)
        assert self.table.num_streams == len(self.model)
        assert all(PAGE_SLOTS <= slot < self.table.num_slots for slot in self.model.values())

    @invariant()
    def no_page_has_two_partitions(self) -> None:
        owners: dict[int, int] = {}
        for (partition, _), slot in self.model.items():
            assert owners.setdefault(slot // PAGE_SLOTS, partition) == partition


TestSlotTable = SlotTableMachine.TestCase


@given(ids=st.lists(st.text(min_size=1, max_size=4), min_size=1, max_size=50))
def test_equal_ids_in_two_partitions_are_two_streams(ids: list[str]) -> None:
    table = SlotTable()
    assert not set(table.locate(0, ids).tolist()) & set(table.locate(1, ids).tolist())
