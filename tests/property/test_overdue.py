"""The oracle of silences: for every batching, crash point and rebalance, each is told where it is decided, and once."""

from __future__ import annotations

import datetime as dt
import json
from collections import Counter
from collections.abc import Iterator
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rillcast.bundle.frequency import Frequency
from rillcast.engine.late import AllowedLateness
from rillcast.engine.overdue import watch
from rillcast.engine.periods import Aggregation
from rillcast.engine.residents import Limits
from rillcast.transports.base import Channel
from tests.property.test_oracle import cycle, sizes
from tests.support import workers
from tests.support.crashes import Delivery, crash_points, run_once
from tests.support.memory import Log, MemorySource
from tests.support.overdue_oracle import Rule, Told
from tests.support.small_pages import small_pages
from tests.support.stores import Shelf
from tests.support.toy import HOUR_MS, toy_bundle
from tests.support.workers import observation

WARM = 3
BEGIN = 470_000  # hours
HOURS = Frequency(HOUR_MS)
RULE = Rule(2, 50, WARM, HOURS)

# Partition, stream, hours that pass, hours that the event is late.
events = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.integers(0, 3),
        st.sampled_from([0, 0, 0, 1, 1, 2, 5, 20]),
        st.sampled_from([0, 0, 0, 0, 1, 3, 9]),
    ),
    min_size=1,
    max_size=120,
)


@pytest.fixture(scope="module", autouse=True)
def _small() -> Iterator[None]:
    with small_pages(2), pytest.MonkeyPatch.context() as patch:
        patch.setattr(watch, "_WARM", WARM)
        yield


def fill(drawn: list[tuple[int, int, int, int]]) -> Log:
    log, now = Log({0: [], 1: []}), {0: BEGIN, 1: BEGIN}
    for number, (partition, stream, ahead, late) in enumerate(drawn):
        now[partition] += ahead
        log.append(
            partition, observation(f"{partition}/{stream}", number + 1, (now[partition] - late) * HOUR_MS + number)
        )
    return log


def hour(text: str) -> int:
    return round(dt.datetime.fromisoformat(text).timestamp()) // 3600


def told(log: Log) -> list[Told]:
    found = []
    for key, value, _ in log.published[Channel.ALARMS]:
        record = json.loads(value)
        assert (record["kind"], key) == ("silence", record["unique_id"].encode())
        source, spans = record["source"], (hour(record["first"]), hour(record["last"]))
        found.append((source["partition"], source["offset"], record["unique_id"], record["change"], *spans))
    return found


def check(log: Log, rule: Rule, *, once: bool) -> None:
    expected = [each for p, records in log.partitions.items() for each in rule.expected(p, [v for _, v in records])]
    found = told(log)
    assert set(found) == set(expected)
    failed = {(*each[:3], each[4]) for each in expected if each[3] == "opened"}
    periods = [
        (record["source"]["partition"], record["source"]["offset"], record["unique_id"], hour(record["ds"]))
        for record in (json.loads(value) for _, value, _ in log.published[Channel.ANOMALIES])
    ]
    assert set(periods) == failed
    if once:
        assert max([*Counter(found).values(), *Counter(periods).values()], default=1) == 1


@given(drawn=events, polls=sizes, ttl=st.sampled_from([0, 16]))
@settings(max_examples=20)
def test_silences_equal_those_of_the_plain_form(
    drawn: list[tuple[int, int, int, int]], polls: list[int], ttl: int
) -> None:
    log, ttl_ms = fill(drawn), ttl * HOUR_MS
    workers.build(log, per_poll=cycle(polls).__next__, told_overdue=2, limits=Limits(idle_ttl_ms=ttl_ms)).worker.run()
    check(log, Rule(2, 50, WARM, HOURS, ttl_ms), once=True)


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
@given(drawn=events, polls=sizes, crashes=crash_points, visible=st.booleans(), late=st.booleans())
@settings(max_examples=8, suppress_health_check=[HealthCheck.too_slow])
def test_crashes_lose_no_silence_and_tell_none_twice(
    delivery: Delivery,
    drawn: list[tuple[int, int, int, int]],
    polls: list[int],
    crashes: list[tuple[str, int]],
    visible: bool,
    late: bool,
) -> None:
    log, shelf = fill(drawn), Shelf()
    visible = visible and delivery == "at_least_once"
    lateness = AllowedLateness(4, HOURS) if late else None
    for crash in [*crashes, None]:
        per_poll = cycle(polls).__next__
        run_once(
            log, shelf, delivery, visible=visible, per_poll=per_poll, crash=crash, told_overdue=2, lateness=lateness
        )
    check(log, RULE, once=delivery == "exactly_once")


@pytest.mark.parametrize("close", ["stream", "partition"])
@given(drawn=events, polls=sizes, crashes=crash_points)
@settings(max_examples=6, suppress_health_check=[HealthCheck.too_slow])
def test_streams_of_raw_events_are_silent_whether_their_empty_periods_are_stepped_or_not(
    close: str, drawn: list[tuple[int, int, int, int]], polls: list[int], crashes: list[tuple[str, int]]
) -> None:
    log, shelf = fill(drawn), Shelf()
    aggregation = Aggregation("sum", HOURS, "stream" if close == "stream" else "partition", empty=0.0, silent_after=4)
    for crash in [*crashes, None]:
        per_poll = cycle(polls).__next__
        run_once(
            log, shelf, "exactly_once", visible=False, per_poll=per_poll, crash=crash, told_overdue=2,
            aggregation=aggregation,
        )  # fmt: skip
    check(log, Rule(2, 50, WARM, HOURS, in_time=close == "partition"), once=True)


@given(drawn=events, polls=sizes, moves=st.lists(st.integers(0, 1), max_size=6))
@settings(max_examples=8)
def test_partitions_that_leave_and_come_back_take_their_silences_with_them(
    drawn: list[tuple[int, int, int, int]], polls: list[int], moves: list[int]
) -> None:
    log = fill(drawn)
    harness = workers.build(log, per_poll=cycle(polls).__next__, told_overdue=2)

    def move(source: MemorySource, partition: int) -> None:
        if partition in source.positions():
            source.revoke([partition])
        else:
            source.assign([partition])

    for partition in moves:
        harness.source.before_poll.append(partial(move, partition=partition))
    harness.source.before_poll.append(lambda source: source.assign([p for p in (0, 1) if p not in source.positions()]))
    harness.worker.run()
    check(log, RULE, once=True)


OTHER = toy_bundle(multiplier=37)


@given(drawn=events, polls=sizes, at=st.integers(0, 40))
@settings(max_examples=8)
def test_a_model_that_takes_over_tells_the_silences_that_come_and_no_other(
    drawn: list[tuple[int, int, int, int]], polls: list[int], at: int
) -> None:
    """It has read the same events before, so that it knows which streams are silent, and their usual gaps."""
    log, other, polled = fill(drawn), OTHER.metadata.model_id, 0
    models = workers.MemoryModels({other: OTHER})
    harness = workers.build(log, per_poll=cycle(polls).__next__, told_overdue=2, models=models)

    def promote(_source: MemorySource) -> None:
        nonlocal polled
        polled += 1
        harness.clock.now += 1
        models.wanted = other if polled > at else None

    harness.source.before_poll.extend([promote] * 60)
    harness.worker.run()
    check(log, RULE, once=True)
