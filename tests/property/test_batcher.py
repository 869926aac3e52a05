from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rillcast.arrays import IntArray
from rillcast.engine import batcher
from rillcast.engine.batcher import Runs

NONE = Runs()


def split(slots: list[int], max_rows: int, runs: Runs = NONE, follows: list[bool] | None = None) -> list[IntArray]:
    guess = np.array(follows if follows is not None else [True] * len(slots), bool)
    return list(batcher.calls(np.array(slots, np.int64), max_rows, runs, lambda: guess))


@st.composite
def events(draw: st.DrawFn) -> tuple[list[int], list[bool]]:
    """Return slots, some of them busy, and which events follow the one before."""
    slots = draw(st.lists(st.integers(1, draw(st.sampled_from([2, 12]))), max_size=200))
    likely = draw(st.sampled_from([[True], [True, True, True, False], [True, False]]))
    return slots, draw(st.lists(st.sampled_from(likely), min_size=len(slots), max_size=len(slots)))


@given(
    given=events(), max_rows=st.integers(1, 40), lengths=st.sampled_from([(), (2,), (8, 3), (64, 16, 4)]),
    run_rows=st.integers(1, 100),
)  # fmt: skip
def test_calls_partition_the_events_and_keep_each_slots_order(
    given: tuple[list[int], list[bool]], max_rows: int, lengths: tuple[int, ...], run_rows: int
) -> None:
    slots, follows = given
    array = np.array(slots, np.int64)
    calls = split(slots, max_rows, Runs(lengths, run_rows), follows)
    assert sorted(np.concatenate([np.empty(0, np.int64), *(call.ravel() for call in calls)])) == list(range(len(slots)))
    last_call: dict[int, int] = {}
    last_event: dict[int, int] = {}
    for number, rows in enumerate(calls):
        streams, length = rows.shape
        assert streams >= 1
        assert streams <= max_rows if length == 1 else streams == 1 or streams * length <= run_rows
        assert length == 1 or length in lengths
        called = array[rows]
        assert (called == called[:, :1]).all(), "the events of a run are of one slot"
        assert len(set(called[:, 0].tolist())) == streams, "a slot stands twice in one call"
        for row, slot in zip(rows.tolist(), called[:, 0].tolist(), strict=True):
            assert last_call.get(slot, -1) < number
            for event in row:
                assert last_event.get(slot, -1) < event
                last_event[slot] = event
            last_call[slot] = number


@given(given=events())
def test_a_run_holds_only_events_that_follow_each_other(given: tuple[list[int], list[bool]]) -> None:
    slots, follows = given
    for rows in split(slots, 8, Runs((16, 4, 2), 1000), follows):
        if rows.shape[1] > 1:
            assert np.array(follows)[rows].all()


@given(slots=st.lists(st.integers(1, 5), max_size=60))
def test_number_of_waves_is_that_of_the_busiest_slot(slots: list[int]) -> None:
    assert len(split(slots, 10**6)) == max((slots.count(slot) for slot in slots), default=0)


def test_a_wave_keeps_the_order_of_the_events() -> None:
    assert [call.ravel().tolist() for call in split([7, 7, 3, 7], 10)] == [[0, 2], [1], [3]]


def test_busy_slots_are_cut_to_the_longest_runs_that_fit() -> None:
    shapes = [call.shape for call in split([5] * 87 + [6] * 70, 256, Runs((64, 16, 4), 1024))]
    assert shapes == [(2, 64), (1, 16), (2, 4), (2, 1), (2, 1), (1, 1)]


def test_many_slots_with_a_few_events_each_go_in_waves() -> None:
    slots = list(range(1, 301)) * 5
    assert [call.shape for call in split(slots, 400, Runs((4, 2), 512))] == [(300, 1)] * 5


def test_one_busy_slot_among_many_is_still_cut_to_runs() -> None:
    slots = [*range(2, 302), *[1] * 64]
    assert sorted(call.shape for call in split(slots, 400, Runs((64,), 512))) == [(1, 64), (300, 1)]
