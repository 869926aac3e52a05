"""Each event is counted once, whatever comes again."""

from __future__ import annotations

import numpy as np

from rillcast.observability.counted import Counted


def new(counted: Counted, *events: tuple[int, int]) -> list[bool]:
    partitions, offsets = (np.array(column, np.int64) for column in zip(*events, strict=True))
    found: list[bool] = counted.new(partitions, offsets).tolist()
    return found


def test_what_comes_again_is_not_new() -> None:
    counted = Counted()
    assert new(counted, (0, 5), (0, 6), (1, 2)) == [True, True, True]
    assert new(counted, (0, 5), (0, 6), (0, 7), (1, 3)) == [False, False, True, True]
    assert new(counted, (1, 2), (0, 8)) == [False, True]


def test_partitions_may_be_mixed_and_offsets_missing() -> None:
    counted = Counted()
    assert new(counted, (0, 1), (1, 1), (0, 4), (1, 2)) == [True] * 4
    assert new(counted, (0, 3), (1, 2), (0, 5), (1, 3)) == [False, False, True, True]


def test_going_far_back_and_no_events_forget_nothing() -> None:
    counted = Counted()
    assert new(counted, (0, 9)) == [True]
    assert new(counted, (0, 1)) == [False]
    assert counted.new(np.empty(0, np.int64), np.empty(0, np.int64)).size == 0
    assert new(counted, (0, 9), (0, 10)) == [False, True]
