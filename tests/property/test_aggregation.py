"""The oracle of aggregation: what is published is an offline group-by and unroll, exactly.

For every interleaving, batching, crash point and rebalance, the forecasts of a stream are those of polars'
`group_by_dynamic` over its events, unrolled through the toy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rillcast.bundle.frequency import Frequency
from rillcast.engine.late import AllowedLateness
from rillcast.engine.periods import KINDS, Aggregation, Close, Kind
from rillcast.engine.residents import Limits
from rillcast.settings import StateSettings, WorkerSettings
from rillcast.transports.base import Channel
from tests.property.test_oracle import cycle, sizes
from tests.support import aggregation as aggregation_oracle
from tests.support import workers
from tests.support.aggregation import BEGIN_MS, MINUTE_MS, Raw, expected, in_time, offline
from tests.support.crashes import Delivery, crash_points, run_once
from tests.support.memory import Log, MemorySource
from tests.support.small_pages import small_pages
from tests.support.stores import MemoryStore, Shelf
from tests.support.toy import HOUR_MS, unroll
from tests.support.workers import observation, repeats


@pytest.fixture(scope="module", autouse=True)
def _pages_of_two() -> Iterator[None]:
    with small_pages(2):
        yield


# Partition, stream, minutes that pass, minutes that the event is late, value.
drawn = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.integers(0, 3),
        st.sampled_from([0, 1, 7, 20, 45, 200, 1000]),
        st.sampled_from([0, 0, 0, 5, 40, 90, 300]),
        st.one_of(st.integers(1, 1000), st.none()),
    ),
    min_size=1,
    max_size=90,
)
aggregations = st.builds(
    Aggregation,
    st.sampled_from(KINDS),
    st.just(Frequency(HOUR_MS)),
    close=st.sampled_from(["stream", "partition"]),
    grace_ms=st.sampled_from([0, 30 * MINUTE_MS, 150 * MINUTE_MS]),
    empty=st.just(0.0),
    silent_after=st.sampled_from([1, 3, 100]),
    correctable=st.sampled_from([0, 0, 1, 3]),
)


def lateness(aggregation: Aggregation) -> AllowedLateness | None:
    periods = aggregation.correctable
    return AllowedLateness(periods, aggregation.frequency, last_wins=True) if periods else None


def raw_events(drawn: Sequence[tuple[int, int, int, int, int | None]]) -> list[Raw]:
    now, found = {0: BEGIN_MS, 1: BEGIN_MS}, []
    for partition, stream, ahead, delay, y in drawn:
        now[partition] += ahead * MINUTE_MS
        found.append(Raw(partition, f"{partition}/{stream}", now[partition] - delay * MINUTE_MS, y))
    return found


def log_of(events: Sequence[Raw]) -> Log:
    log = Log({0: [], 1: []})
    for event in events:
        log.append(event.partition, observation(event.unique_id, event.y, event.ds))
    return log


def published(log: Log) -> dict[str, list[tuple[int, int]]]:
    return aggregation_oracle.published(value for _, value, _ in log.published[Channel.FORECASTS])


@given(drawn=drawn, polls=sizes, aggregation=aggregations)
@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
def test_published_is_an_offline_group_by_and_unroll(
    drawn: list[tuple[int, int, int, int, int | None]], polls: list[int], aggregation: Aggregation
) -> None:
    events = raw_events(drawn)
    log = log_of(events)
    harness = workers.build(
        log, per_poll=cycle(polls).__next__, aggregation=aggregation, lateness=lateness(aggregation)
    )
    harness.worker.run()
    assert published(log) == expected(events, aggregation)
    assert repeats(log) == 0
    late = len(events) - len(in_time(events, aggregation)[0])
    assert len(log.published[Channel.DEAD_LETTERS]) == late
    assert harness.metric("rillcast_raw_events_total", outcome="late") == late
    taken = [harness.metric("rillcast_raw_events_total", outcome=outcome) for outcome in ("joined", "corrected")]
    assert sum(taken) == len(events) - late


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
@given(drawn=drawn, polls=sizes, crashes=crash_points, visible=st.booleans(), aggregation=aggregations)
@settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow])
def test_open_periods_survive_crashes(
    delivery: Delivery,
    drawn: list[tuple[int, int, int, int, int | None]],
    polls: list[int],
    crashes: list[tuple[str, int]],
    visible: bool,
    aggregation: Aggregation,
) -> None:
    events, shelf = raw_events(drawn), Shelf()
    log, visible = log_of(events), visible and delivery == "at_least_once"
    for crash in [*crashes, None]:
        run_once(
            log,
            shelf,
            delivery,
            visible=visible,
            per_poll=cycle(polls).__next__,
            crash=crash,
            aggregation=aggregation,
            lateness=lateness(aggregation),
        )
    assert published(log) == expected(events, aggregation)
    if delivery == "exactly_once":
        assert repeats(log) == 0


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
@given(
    drawn=drawn,
    polls=sizes,
    moves=st.lists(st.sampled_from(["revoke", "lose", "assign", "rest"]), max_size=25),
    aggregation=aggregations,
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_open_periods_move_with_their_partition(
    delivery: Delivery,
    drawn: list[tuple[int, int, int, int, int | None]],
    polls: list[int],
    moves: list[str],
    aggregation: Aggregation,
) -> None:
    events, shelf = raw_events(drawn), Shelf()
    log = log_of(events)
    harness = workers.build(
        log,
        per_poll=cycle(polls).__next__,
        settings=WorkerSettings(commit_interval_s=0.5, delivery=delivery),
        snapshots=StateSettings(snapshot_interval_s=2, snapshot_max_interval_s=2, pages_per_commit=1),
        store=lambda _sink: MemoryStore(shelf, polls_per_restore=3),
        aggregation=aggregation,
        lateness=lateness(aggregation),
    )

    def act(nth: int, move: str, source: MemorySource) -> None:
        harness.clock.now += 1
        owned = nth % 2 in source.positions()
        if move in ("revoke", "lose") and owned:
            getattr(source, move)([nth % 2])
        elif move == "assign" and not owned:
            source.assign([nth % 2])

    for nth, move in enumerate(moves):
        harness.source.before_poll.append(lambda source, nth=nth, move=move: act(nth, move, source))  # type: ignore[misc]
    harness.source.before_poll.append(lambda source: source.assign([p for p in (0, 1) if p not in source.positions()]))
    harness.worker.run()
    run_once(
        log,
        shelf,
        delivery,
        visible=False,
        per_poll=lambda: 1000,
        aggregation=aggregation,
        lateness=lateness(aggregation),
    )
    assert published(log) == expected(events, aggregation)
    if delivery == "exactly_once":
        assert repeats(log) == 0


@given(drawn=drawn, polls=sizes, crashes=crash_points, aggregation=aggregations)
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_eviction_and_refusal_of_raw_events_are_the_same_through_crashes(
    drawn: list[tuple[int, int, int, int, int | None]],
    polls: list[int],
    crashes: list[tuple[str, int]],
    aggregation: Aggregation,
) -> None:
    limits = Limits(idle_ttl_ms=5 * HOUR_MS, max_streams_per_partition=3)
    whole, crashed, shelf = log_of(raw_events(drawn)), log_of(raw_events(drawn)), Shelf()
    run_once(
        whole,
        Shelf(),
        "exactly_once",
        visible=False,
        per_poll=lambda: 10**6,
        limits=limits,
        aggregation=aggregation,
        lateness=lateness(aggregation),
    )
    for crash in [*crashes, None]:
        run_once(
            crashed,
            shelf,
            "exactly_once",
            visible=False,
            per_poll=cycle(polls).__next__,
            crash=crash,
            limits=limits,
            aggregation=aggregation,
            lateness=lateness(aggregation),
        )
    for channel in Channel:
        assert Counter(v for _, v, _ in crashed.published[channel]) == Counter(
            v for _, v, _ in whole.published[channel]
        )


@pytest.mark.parametrize("close", ["stream", "partition"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_end_of_a_file_closes_its_open_periods(kind: Kind, close: Close) -> None:
    minutes = [(0, 3), (20, 5), (70, 8), (400, 2)]
    events = [Raw(0, "a", BEGIN_MS + at * MINUTE_MS, y) for at, y in minutes]
    log, aggregation = log_of(events), Aggregation(kind, Frequency(HOUR_MS), close, empty=0.0)
    workers.build(log, aggregation=aggregation, ends=True).worker.run()
    sentinel = Raw(0, "a", BEGIN_MS + 10 * HOUR_MS, 1)
    whole = {period: y for period, y in offline([*events, sentinel], aggregation)["a"].items() if period < 400_007}
    assert published(log)["a"] == list(zip(whole, unroll(int(y) for y in whole.values()), strict=True))


@pytest.mark.parametrize("change", ["lost", "doubled"])
@pytest.mark.parametrize("kind", ["sum", "count"])
def test_the_oracle_notices_a_change(kind: Kind, change: str) -> None:
    """The proof that the tests above can fail."""
    events = [Raw(0, "0/a", BEGIN_MS + at * 25 * MINUTE_MS, 7 + at) for at in range(12)]
    aggregation = Aggregation(kind, Frequency(HOUR_MS), empty=0.0)
    changed = [*events[:4], *events[5:]] if change == "lost" else [*events[:4], events[3], *events[4:]]
    log = log_of(changed)
    workers.build(log, aggregation=aggregation).worker.run()
    assert published(log) != expected(events, aggregation)
