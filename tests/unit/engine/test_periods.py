from __future__ import annotations

import logging
import math

import numpy as np
import pytest

from rillcast.bundle.frequency import Frequency, parse
from rillcast.engine import step_engine
from rillcast.engine.device import Device
from rillcast.engine.periods import Aggregation, Close, Kind, Partials, RawOutcome
from rillcast.engine.residents import Limits
from rillcast.engine.step_engine import Advanced, StepEngine
from rillcast.events import EventBatch
from tests.support.toy import HOUR_MS, toy_bundle

HOURLY = Frequency(HOUR_MS)


def engine(aggregation: Aggregation, limits: Limits | None = None) -> StepEngine:
    return StepEngine(toy_bundle(), Device("cpu"), limits=limits or Limits(), aggregation=aggregation)


def take(engine: StepEngine, *events: tuple[str, float, float], first: int = 0) -> list[Advanced]:
    """Take events of (stream, hours, y)."""
    ids, hours, y = zip(*events, strict=True)
    return list(engine.advance(EventBatch.of(ids, [round(hour * HOUR_MS) for hour in hours], y, first_offset=first)))


def closed(advanced: list[Advanced]) -> list[tuple[str, float, float, int]]:
    """Return stream, hour, value, and the offset of the record that closed it."""
    return [
        (unique_id, ds / HOUR_MS, y, offset)
        for each in advanced
        for unique_id, ds, y, offset in zip(
            each.events.unique_ids,
            each.events.ds.tolist(),
            each.events.y.tolist(),
            each.events.offsets.tolist(),
            strict=True,
        )
    ]


@pytest.mark.parametrize(
    ("kind", "value"),
    [("last", 9.0), ("first", 1.0), ("mean", 4.75), ("sum", 19.0), ("count", 5.0), ("min", 1.0), ("max", 9.0)],
)
def test_an_aggregate_goes_by_event_time_and_leaves_out_what_is_missing(kind: Kind, value: float) -> None:
    # In the order of time: 1 4 (missing) 5 9; of two events at one time the later arrival is the later one.
    events = [("a", 0.5, 5.0), ("a", 0.1, 1.0), ("a", 0.9, 4.0), ("a", 0.3, math.nan), ("a", 0.9, 9.0), ("a", 1.0, 7.0)]
    one_by_one = engine(Aggregation(kind, HOURLY))
    found = [item for at, event in enumerate(events) for item in closed(take(one_by_one, event, first=at))]
    assert found == [("a", 0.0, value, 5)]
    assert closed(take(engine(Aggregation(kind, HOURLY)), *events)) == found


def test_a_sum_does_not_depend_on_how_events_are_polled() -> None:
    rng = np.random.default_rng(3)
    y = (rng.standard_normal(1_000) * 10.0 ** rng.integers(-6, 6, 1_000)).astype(np.float32)
    events = [("a", 0.0, float(value)) for value in y]
    whole, parts = engine(Aggregation("sum", HOURLY)), engine(Aggregation("sum", HOURLY))
    take(whole, *events)
    for first in range(0, 1_000, 7):
        take(parts, *events[first : first + 7], first=first)
    end = ("a", 1.0, 0.0)
    assert closed(take(whole, end, first=1_000)) == closed(take(parts, end, first=1_000))


def test_a_period_of_months_is_a_calendar_month() -> None:
    monthly = engine(Aggregation("count", parse("1mo"), "partition", grace_ms=86_400_000))
    days = [0, 30.9, 31, 58, 58.9, 60.5]  # from 1970-01-01 on
    found = closed(take(monthly, *(("a", day * 24, 1.0) for day in days)))
    assert [(hour / 24, y) for _, hour, y, _ in found] == [(0.0, 2.0), (31.0, 3.0)]


def test_a_period_closes_for_all_streams_of_the_partition_and_for_no_other() -> None:
    aggregation = Aggregation("sum", HOURLY, "partition", grace_ms=HOUR_MS // 2)
    events = EventBatch(
        np.array([0, 1, 0, 0, 0], np.int64),
        np.array([0, 0, 1, 2, 3], np.int64),
        ["a", "a", "b", "b", "b"],
        np.array([0.0, 0.0, 0.2, 1.4, 1.5]) * HOUR_MS // 1,
        np.array([1, 2, 3, 4, 5], np.float32),
    )
    events = EventBatch(events.partitions, events.offsets, events.unique_ids, events.ds.astype(np.int64), events.y)
    found = list(engine(aggregation).advance(events))
    assert closed(found) == [("a", 0.0, 1.0, 3), ("b", 0.0, 3.0, 3)], "in partition 0, when 1.5 h less 0.5 h is reached"
    assert found[0].events.partitions.tolist() == [0, 0]


def test_a_silent_stream_sleeps_and_wakes() -> None:
    sleeper = engine(Aggregation("count", HOURLY, "partition", empty=0.0, silent_after=2))
    found = closed(take(sleeper, ("a", 0.5, 1.0), *(("b", hour, 1.0) for hour in (1, 2, 3, 4, 5, 6)), ("a", 6.5, 1.0)))
    assert [(hour, y) for unique_id, hour, y, _ in found if unique_id == "a"] == [(0, 1), (1, 0), (2, 0)]
    found = closed(take(sleeper, ("b", 9, 1.0), first=8))
    assert [(hour, y) for unique_id, hour, y, _ in found if unique_id == "a"] == [(6, 1), (7, 0), (8, 0)]


def test_a_jump_in_time_steps_a_bounded_number_of_empty_periods() -> None:
    jump = engine(Aggregation("count", HOURLY, empty=0.0, silent_after=100))
    assert len(closed(take(jump, ("a", 0, 1.0), ("a", 10**7, 1.0)))) == 101


def test_late_and_refused_events_are_named() -> None:
    small = engine(Aggregation("sum", HOURLY), Limits(max_streams_per_partition=1))
    (found,) = take(small, ("a", 5, 1.0), ("b", 5, 1.0), ("a", 4.9, 1.0), ("a", 5.5, 2.0), ("a", 6, 1.0))
    assert found.taken is not None
    assert found.taken.outcome.tolist() == [
        RawOutcome.JOINED,
        RawOutcome.TOO_MANY_STREAMS,
        RawOutcome.LATE,
        RawOutcome.JOINED,
        RawOutcome.JOINED,
    ]
    assert closed([found]) == [("a", 5.0, 3.0, 4)]


@pytest.mark.parametrize("kind", ["mean", "last"])
def test_open_periods_come_back_from_pages(kind: Kind) -> None:
    aggregation = Aggregation(kind, HOURLY, "partition", grace_ms=HOUR_MS, empty=0.0)
    before, after = engine(aggregation), engine(aggregation)
    take(before, ("a", 0.5, 1.0), ("b", 1.2, 5.0), ("a", 1.3, 3.0))
    pages = before.residents.export(0, 3)
    after.residents.load(0, pages, before.residents.watermark(0))
    end = ("b", 4, 2.0)
    assert closed(take(after, end, first=3)) == closed(take(before, end, first=3)) != []


def test_open_periods_of_another_aggregate_begin_again_and_are_named(caplog: pytest.LogCaptureFixture) -> None:
    before, after = engine(Aggregation("sum", HOURLY)), engine(Aggregation("mean", HOURLY))
    take(before, ("a", 0, 1.0), ("a", 1, 2.0))
    with caplog.at_level(logging.WARNING):
        after.residents.load(0, before.residents.export(0, 2), before.residents.watermark(0))
    assert "input.aggregate" in caplog.text
    assert closed(take(after, ("a", 1.5, 8.0), ("a", 2, 1.0), first=2)) == [("a", 1.0, 8.0, 3)]


def test_pages_without_open_periods_are_taken_as_they_are(caplog: pytest.LogCaptureFixture) -> None:
    plain = StepEngine(toy_bundle(), Device("cpu"))
    plain.step(EventBatch.of(["a"], [0], [3.0]))
    after = engine(Aggregation("sum", HOURLY))
    after.residents.load(0, plain.residents.export(0, 1), plain.residents.watermark(0))
    assert not caplog.text
    assert closed(take(after, ("a", 1, 8.0), ("a", 2, 1.0), first=1)) == [("a", 1.0, 8.0, 2)]


@pytest.mark.parametrize("kind", ["sum", "last"])
def test_a_stream_costs_at_most_64_bytes(kind: Kind) -> None:
    assert Partials.host_bytes(Aggregation(kind, HOURLY)) <= 64
    assert Partials.host_bytes(Aggregation(kind, HOURLY, "partition", grace_ms=HOUR_MS - 1)) <= 64


def test_an_open_period_counts_for_eviction() -> None:
    evicting = engine(Aggregation("sum", HOURLY), Limits(idle_ttl_ms=8 * HOUR_MS))
    take(evicting, ("a", 0, 1.0), ("b", 0, 1.0), ("a", 6, 1.0), ("b", 10, 1.0))
    assert evicting.residents.num_streams == 2, "a's open period began 4 hours before the watermark"
    take(evicting, ("b", 16, 1.0), first=4)
    assert evicting.residents.num_streams == 1


def test_empty_periods_close_where_nothing_joins() -> None:
    waiting = engine(Aggregation("count", HOURLY, "partition", empty=0.0), Limits(max_streams_per_partition=1))
    take(waiting, ("a", 0.5, 1.0), ("a", 1.5, 1.0), ("b", 2.5, 1.0))
    assert closed(take(waiting, ("b", 4, 1.0), first=3)) == [("a", 2.0, 0.0, 3), ("a", 3.0, 0.0, 3)]


@pytest.mark.parametrize("close", ["stream", "partition"])
def test_streams_without_events_are_overdue_and_then_asleep(close: Close) -> None:
    quiet = engine(Aggregation("count", HOURLY, close, empty=0.0, silent_after=5))
    take(quiet, ("a", 0, 1.0), ("b", 0, 1.0), ("b", 3, 1.0))
    assert quiet.silent_streams([0], 3) == (0, 0, [])
    take(quiet, ("b", 4, 1.0), first=3)
    assert quiet.silent_streams([0], 3) == (1, 0, [("a", 0, False)]), "empty periods that were stepped are no events"
    take(quiet, ("b", 6, 1.0), first=4)
    assert quiet.silent_streams([0], 3) == (1, 1, [("a", 0, True)])
    take(quiet, ("a", 6, 1.0), first=5)
    assert quiet.silent_streams([0], 3) == (0, 0, [])


def test_streams_are_overdue_without_aggregation_too() -> None:
    plain = StepEngine(toy_bundle(), Device("cpu"))
    plain.step(EventBatch.of(["a", "b", "b"], [0, 0, 4 * HOUR_MS], [1.0, 1.0, 1.0]))
    assert plain.silent_streams([0, 7], 3) == (1, 0, [("a", 0, False)])
    assert plain.silent_streams([0], 4) == (0, 0, [])


def test_of_many_silent_streams_those_are_named_that_had_an_event_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_engine, "MOST_NAMED", 3)
    plain = StepEngine(toy_bundle(), Device("cpu"))
    ids = [f"s{number}" for number in range(8)]
    plain.step(EventBatch.of([*ids, "now"], [HOUR_MS * number for number in (*range(8), 99)], [1.0] * 9))
    overdue, _, named = plain.silent_streams([0], 3)
    assert (overdue, [one.unique_id for one in named]) == (8, ["s7", "s6", "s5"])
