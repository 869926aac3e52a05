from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline import batcher


@given(slots=st.lists(st.integers(1, 12), max_size=200), max_rows=st.integers(1, 40))
def test_calls_partition_the_events_and_keep_each_slots_order(slots: list[int], max_rows: int) -> None:
    array = np.array(slots, np.int64)
    calls = list(batcher.calls(array, max_rows))
    assert sorted(np.concatenate([np.empty(0, np.int64), *calls]).tolist()) == list(range(len(slots)))
    last_call: dict[int, int] = {}
    last_event: dict[int, int] = {}
    for number, rows in enumerate(calls):
        assert 1 <= rows.size <= max_rows
        called = array[rows].tolist()
        assert len(set(called)) == len(called), "a slot stands twice in one call"
        for row, slot in zip(rows.tolist(), called, strict=True):
            assert last_call.get(slot, -1) < number
            assert last_event.get(slot, -1) < row
            last_call[slot], last_event[slot] = number, row


@given(slots=st.lists(st.integers(1, 5), max_size=60))
def test_number_of_waves_is_that_of_the_busiest_slot(slots: list[int]) -> None:
    calls = list(batcher.calls(np.array(slots, np.int64), 10**6))
    assert len(calls) == max((slots.count(slot) for slot in slots), default=0)


def test_occurrence_counts_earlier_equals() -> None:
    assert batcher.occurrence(np.array([7, 7, 3, 7])).tolist() == [0, 1, 0, 2]
