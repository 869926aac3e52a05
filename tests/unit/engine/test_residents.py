from __future__ import annotations

import numpy as np
import pytest

from rillcast.engine.device import Device
from rillcast.engine.pages import Arrivals
from rillcast.engine.residents import Limits, Residents
from rillcast.engine.slots import PAGE_SLOTS, TOO_MANY_AT_ONCE
from rillcast.engine.step_engine import Outcome, StepEngine, StepResult
from rillcast.events import EventBatch
from tests.support.toy import toy_bundle, unroll


def engine(**limits: int) -> StepEngine:
    return StepEngine(toy_bundle(), Device("cpu"), limits=Limits(**limits))


def step(of: StepEngine, ids: list[str], y: list[int], ds: list[int] | None = None, offset: int = 0) -> StepResult:
    times = np.array(ds or [0] * len(ids), np.int64)
    return of.step(EventBatch.of(ids, times, np.array(y, np.float32), first_offset=offset))


def states(result: StepResult) -> list[int]:
    return [int(value) for value in result.forecast[:, 0, 0]]


def test_exported_pages_bring_the_streams_back() -> None:
    ids = [f"s{n}" for n in range(PAGE_SLOTS + 10)]
    one, other = engine(), engine()
    step(one, ids, [n + 1 for n in range(len(ids))])
    pages = one.residents.export(0, 266)
    assert [(page.number, len(page.unique_ids), page.offset) for page in pages] == [(0, 256, 266), (1, 10, 266)]
    other.residents.load(0, pages, 0)
    assert states(step(other, ids, [1] * len(ids), offset=266)) == [unroll([n + 1, 1])[-1] for n in range(len(ids))]


def test_pages_of_fewer_streams_come_back_into_pages_of_as_many_or_more() -> None:
    ids = [f"s{n}" for n in range(20)]
    one = engine(page_slots=8)
    step(one, ids, [n + 1 for n in range(len(ids))])
    pages = one.residents.export(0, 20)
    assert [(page.number, len(page.unique_ids)) for page in pages] == [(0, 8), (1, 8), (2, 4)]
    for page_slots in (8, 16):
        other = engine(page_slots=page_slots)
        other.residents.load(0, pages, 0)
        assert states(step(other, ids, [1] * 20, offset=20)) == [unroll([n + 1, 1])[-1] for n in range(20)]
        again = other.residents.export(0, 40)
        assert [len([i for i in page.unique_ids if i]) for page in again] == [8, 8, 4], "streams keep their places"


def test_only_changed_pages_are_exported() -> None:
    ids = [f"s{n}" for n in range(3 * PAGE_SLOTS)]
    of = engine()
    step(of, ids, [1] * len(ids))
    assert of.residents.changed(0) == [0, 1, 2]
    of.residents.export(0, 768)
    assert of.residents.export(0, 768) == []
    step(of, [ids[300]], [1], offset=768)
    assert [page.number for page in of.residents.export(0, 769)] == [1]


def test_an_event_that_a_page_contains_is_not_applied_again() -> None:
    one, other = engine(), engine()
    step(one, ["a", "a"], [1, 2])
    other.residents.load(0, one.residents.export(0, 2), 0)
    result = step(other, ["a", "a", "b", "a"], [1, 2, 9, 3])
    assert result.outcome.tolist() == [Outcome.ALREADY_APPLIED] * 2 + [Outcome.STEPPED] * 2
    assert result.forecast[2:, 0, 0].tolist() == [9, unroll([1, 2, 3])[-1]]


def test_the_newest_page_of_a_stream_wins_and_its_old_slot_is_zeroed() -> None:
    one, other = engine(), engine()
    step(one, ["a", "b"], [1, 2])
    (old,) = one.residents.export(0, 2)
    from dataclasses import replace

    moved = replace(old, number=1, offset=5, unique_ids=("a", ""), rows={"sum": old.rows["sum"] + 10})
    other.residents.load(0, [moved, old], 0)
    assert other.residents.num_streams == 2
    assert states(step(other, ["a", "b", "c"], [1, 1, 7], offset=5)) == [unroll([11, 1])[-1], unroll([2, 1])[-1], 7]


def test_idle_streams_leave_and_a_freed_slot_starts_from_zero() -> None:
    of = engine(idle_ttl_ms=80)
    step(of, ["old", "new"], [5, 6], ds=[0, 60])
    result = step(of, ["new", "third", "old"], [1, 7, 8], ds=[100, 100, 100], offset=2)
    assert result.stats.evicted == 1
    assert states(result) == [unroll([6, 1])[-1], 7, 8], "`old` restarts, and `third` starts from zero in its slot"


@pytest.mark.parametrize("cut", range(1, 12))
def test_eviction_does_not_depend_on_how_events_are_polled(cut: int) -> None:
    ids = ["a", "b", "a", "c", "b", "a", "c", "a", "a", "b", "c", "a"]
    ds = [0, 5, 30, 50, 95, 120, 121, 180, 230, 231, 260, 400]
    y = list(range(1, 13))
    whole = step(engine(idle_ttl_ms=80), ids, y, ds)
    parts = engine(idle_ttl_ms=80)
    first, second = step(parts, ids[:cut], y[:cut], ds[:cut]), step(parts, ids[cut:], y[cut:], ds[cut:], cut)
    assert states(first) + states(second) == states(whole)
    assert first.stats.evicted + second.stats.evicted == whole.stats.evicted > 0


def test_an_evicted_streams_page_is_exported_again() -> None:
    of = engine(idle_ttl_ms=80)
    step(of, ["a"], [5], ds=[0])
    of.residents.export(0, 1)
    step(of, ["b"], [5], ds=[1000], offset=1)
    (page,) = of.residents.export(0, 2)
    assert page.unique_ids == ("b",)


def test_new_streams_beyond_the_limit_are_refused_and_known_ones_advance() -> None:
    of = engine(max_streams_per_partition=2)
    result = step(of, ["a", "b", "c", "a", "c"], [1, 2, 3, 4, 5])
    assert result.outcome.tolist() == [0, 0, Outcome.TOO_MANY_STREAMS, 0, Outcome.TOO_MANY_STREAMS]
    assert result.forecast[3, 0, 0] == unroll([1, 4])[-1]


def test_released_partition_leaves_nothing_behind() -> None:
    of = engine()
    step(of, ["a"], [5])
    of.residents.release(0)
    assert of.residents.num_streams == 0
    assert of.residents.export(0, 1) == []
    assert states(step(of, ["b", "a"], [1, 2], offset=1)) == [1, 2]


def admitted(residents: Residents, unique_ids: str, second: int) -> list[bool]:
    """Return for each id whether its stream is resident after a record of that second."""
    times = np.full(len(unique_ids), second * 1000 + 999)
    return [slot > 0 for slot in residents.admit(np.zeros(len(unique_ids), np.int64), list(unique_ids), times).tolist()]


def test_a_second_admits_new_streams_up_to_the_limit() -> None:
    residents = engine(max_new_streams_per_s=2).residents
    assert admitted(residents, "abca", 1000) == [True, True, False, True], "known streams go on"
    assert admitted(residents, "cab", 1000) == [False, True, True]
    assert admitted(residents, "cde", 1001) == [True, True, False]
    assert admitted(residents, "e", 990) == [False], "clocks differ: it counts in the newest second"
    assert admitted(residents, "e", 1002) == [True]
    assert residents.arrivals(0) == Arrivals(1002, 1)


def test_a_second_far_in_the_future_does_not_stay_for_ever() -> None:
    residents = engine(max_new_streams_per_s=1).residents
    assert admitted(residents, "a", 10**9) == [True]
    assert admitted(residents, "bc", 1000) == [True, False]


def test_an_unknown_timestamp_counts_in_the_second_before() -> None:
    residents = engine(max_new_streams_per_s=1).residents
    assert admitted(residents, "a", 1000) == [True]
    unknown = residents.admit(np.zeros(1, np.int64), ["b"], np.array([-1]))
    assert unknown.tolist() == [TOO_MANY_AT_ONCE]


def test_the_count_of_the_last_second_is_loaded() -> None:
    residents = engine(max_new_streams_per_s=2).residents
    residents.load(0, [], 0, Arrivals(1000, 1))
    assert admitted(residents, "ab", 1000) == [True, False]
