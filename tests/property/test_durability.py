"""The oracle through crashes, with stored state: forecasts equal one offline unroll, from any crash point.

A run is killed at a numbered step of some commit and started again on the log and the state that outlived it (`Log`,
`Shelf`), several times; the last run goes to the end. Under `exactly_once` every event is published once; under
`at_least_once` repeats are identical and carry the same `source`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rillcast.bundle.frequency import Frequency
from rillcast.engine.late import AllowedLateness
from rillcast.engine.pages import Page
from rillcast.engine.residents import Limits
from rillcast.settings import StateSettings, WorkerSettings
from rillcast.stores.base import Mark
from rillcast.transports.base import Channel
from tests.property.test_oracle import arrivals, cycle, fill, sizes
from tests.support import workers
from tests.support.crashes import (
    POINTS,
    Delivery,
    crash_points,
    run_once,
    tick,
)
from tests.support.memory import Log, MemorySource, MemoryTransactionalSink
from tests.support.small_pages import small_pages
from tests.support.stores import MemoryStore, Shelf
from tests.support.toy import HOUR_MS, unroll
from tests.support.workers import forecasts_by_stream, observation, repeats


@pytest.fixture(scope="module", autouse=True)
def _pages_of_two() -> Iterator[None]:
    """A partition has several pages, and a snapshot of it takes several commits."""
    with small_pages(2):
        yield


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
@given(events=arrivals, polls=sizes, crashes=crash_points, visible=st.booleans())
@settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow])
def test_forecasts_equal_offline_unroll_through_crashes(
    delivery: Delivery,
    events: list[tuple[int, int, int]],
    polls: list[int],
    crashes: list[tuple[str, int]],
    visible: bool,
) -> None:
    log, expected = fill(events)
    shelf = Shelf()
    # exactly_once has no store that is written outside the transaction: it would break the promise.
    visible = visible and delivery == "at_least_once"
    for crash in crashes:
        run_once(log, shelf, delivery, visible=visible, per_poll=cycle(polls).__next__, crash=crash)
    run_once(log, shelf, delivery, visible=visible, per_poll=cycle(polls).__next__)
    assert forecasts_by_stream(log) == expected
    if delivery == "exactly_once":
        assert repeats(log) == 0


@given(events=arrivals, polls=sizes)
@settings(max_examples=30)
def test_a_restart_after_a_clean_stop_replays_nothing(events: list[tuple[int, int, int]], polls: list[int]) -> None:
    log, expected = fill(events)
    shelf = Shelf()
    run_once(log, shelf, "exactly_once", visible=False, per_poll=cycle(polls).__next__)
    for partition in log.partitions:
        log.append(partition, observation(f"{partition}/0", 5))
    log.beginning = 0
    harness = run_once(log, shelf, "exactly_once", visible=False, per_poll=cycle(polls).__next__)
    assert harness.metric("rillcast_replayed_events_total") == 0
    assert repeats(log) == 0
    seen = forecasts_by_stream(log)
    assert {unique_id: states[: len(expected.get(unique_id, []))] for unique_id, states in seen.items()} == {
        unique_id: expected.get(unique_id, []) for unique_id in seen
    }


@given(events=arrivals, polls=sizes)
@settings(max_examples=20)
def test_after_an_erasure_the_retained_events_are_replayed_and_nothing_is_published_again(
    events: list[tuple[int, int, int]], polls: list[int]
) -> None:
    log, expected = fill(events)
    shelf = Shelf()
    run_once(log, shelf, "exactly_once", visible=False, per_poll=cycle(polls).__next__)
    store = MemoryStore(shelf)
    for partition in log.partitions:
        store.erase(partition)
    store.commit()
    for partition in log.partitions:
        log.append(partition, observation(f"{partition}/0", 5))
    harness = run_once(log, shelf, "exactly_once", visible=False, per_poll=cycle(polls).__next__)
    assert harness.metric("rillcast_replayed_events_total") == len(events)
    assert repeats(log) == 0
    seen = forecasts_by_stream(log)
    assert {unique_id: seen[unique_id][: len(states)] for unique_id, states in expected.items()} == expected


def test_a_partition_is_stored_when_replaying_its_events_would_cost_more_than_writing_its_streams() -> None:
    """Ten streams with one event each a second: at 12 events per stream, every twelfth snapshot writes them."""
    log = Log({0: []})
    for at in range(600):
        log.append(0, observation(f"0/{at % 10}", at + 1))
    store = MemoryStore(Shelf())
    harness = workers.build(
        log,
        per_poll=lambda: 10,
        settings=WorkerSettings(commit_interval_s=0.5),
        snapshots=StateSettings(snapshot_interval_s=1, snapshot_events_per_stream=12, snapshot_max_interval_s=100),
        store=lambda _sink: store,
    )
    offsets: list[int] = []
    stage = store.stage

    def note(pages: Sequence[Page], marks: Sequence[Mark]) -> None:
        offsets.extend(mark.offset for mark in marks)
        stage(pages, marks)

    store.stage = note  # type: ignore[method-assign]
    harness.source.before_poll.extend([tick(harness)] * 10_000)
    harness.worker.run()
    assert offsets == [0, 120, 240, 360, 480, 600], "a partition without streams costs nothing to write"


def test_a_partition_with_few_events_is_stored_at_the_longest_interval() -> None:
    log = Log({0: []})
    for at in range(60):
        log.append(0, observation(f"0/{at % 10}", at + 1))
    store = MemoryStore(Shelf())
    harness = workers.build(
        log,
        per_poll=lambda: 1,
        settings=WorkerSettings(commit_interval_s=0.5),
        snapshots=StateSettings(
            snapshot_interval_s=1, snapshot_events_per_stream=12, snapshot_max_interval_s=20, pages_per_commit=5
        ),
        store=lambda _sink: store,
    )
    times: list[float] = []
    stage = store.stage

    def note(pages: Sequence[Page], marks: Sequence[Mark]) -> None:
        times.append(harness.clock.now)
        stage(pages, marks)

    store.stage = note  # type: ignore[method-assign]
    harness.source.before_poll.extend([tick(harness)] * 10_000)
    harness.worker.run()
    assert times == [1, 21, 41, 61], "while there are no streams, and then as seldom as allowed"


class OvertakenStore(MemoryStore):
    """A successor goes on between the look-up of the committed positions and the load of the state."""

    successor: Callable[[], object] = staticmethod(lambda: None)

    def begin_restore(self, partition: int) -> None:
        self.successor()
        super().begin_restore(partition)


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_a_member_that_was_fenced_does_not_take_its_successors_state_for_a_reset(
    delivery: Delivery,
) -> None:
    """Exit code 6 would ask for operator action; its next commit is refused anyway."""
    events = [(0, at % 3, at + 1) for at in range(30)]
    log, expected = fill(events[:10])
    shelf = Shelf()
    run_once(log, shelf, delivery, visible=False, per_poll=lambda: 3)
    store = OvertakenStore(shelf)
    harness = workers.build(log, settings=WorkerSettings(delivery=delivery), store=lambda _sink: store)

    def succeed() -> None:
        more, _ = fill(events)
        log.partitions = more.partitions
        run_once(log, shelf, delivery, visible=False, per_poll=lambda: 3)
        store.successor = lambda: None

    store.successor = succeed
    harness.worker.run()
    _, expected = fill(events)
    assert forecasts_by_stream(log) == expected
    assert repeats(log) == 0


@given(
    events=arrivals,
    polls=sizes,
    aborts=st.sets(st.integers(1, 12), max_size=4),
    ambiguous=st.booleans(),
)
@settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow])
def test_after_a_failed_transaction_the_worker_resets_and_nothing_is_lost_or_doubled(
    events: list[tuple[int, int, int]], polls: list[int], aborts: set[int], ambiguous: bool
) -> None:
    """The worker goes on. An ambiguous end looks like a failure although the transaction succeeded."""

    log, expected = fill(events)
    shelf = Shelf()
    harness = workers.build(
        log,
        per_poll=cycle(polls).__next__,
        settings=WorkerSettings(commit_interval_s=0.5, delivery="exactly_once"),
        snapshots=StateSettings(snapshot_interval_s=3, snapshot_max_interval_s=3),
        store=lambda _sink: MemoryStore(shelf, polls_per_restore=2),
    )
    assert isinstance(harness.sink, MemoryTransactionalSink)
    harness.sink.fail_at(aborts, ambiguous=ambiguous)
    harness.source.before_poll.extend([tick(harness)] * 10_000)
    harness.worker.run()
    assert harness.metric("rillcast_events_total", status="ok") == len(events), "each is counted once"
    # If the last transaction failed, a successor redoes it.
    run = workers.build(log, settings=WorkerSettings(delivery="exactly_once"))
    run.worker.run()
    assert forecasts_by_stream(log) == expected
    assert repeats(log) == 0


@given(events=arrivals, polls=sizes, crashes=crash_points, at_once=st.sampled_from([0, 3]))
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_eviction_and_refusal_are_the_same_through_crashes(
    events: list[tuple[int, int, int]], polls: list[int], crashes: list[tuple[str, int]], at_once: int
) -> None:
    """Eviction and refusal depend on the events alone: a crashed run publishes the records of one run."""
    limits = Limits(idle_ttl_ms=40, max_streams_per_partition=5, max_new_streams_per_s=at_once)

    def timed() -> Log:
        log, _ = fill([])
        log.timestamp_ms = 1_700_000_000_000
        for at, (partition, stream, y) in enumerate(events):
            log.append(partition, observation(f"{partition}/{stream}", y, ds=at * 7 % 300 + at))
        return log

    whole, crashed, shelf = timed(), timed(), Shelf()
    run_once(whole, Shelf(), "exactly_once", visible=False, per_poll=lambda: 10**6, limits=limits)
    for crash in crashes:
        run_once(
            crashed, shelf, "exactly_once", visible=False, per_poll=cycle(polls).__next__, crash=crash, limits=limits
        )
    run_once(crashed, shelf, "exactly_once", visible=False, per_poll=cycle(polls).__next__, limits=limits)
    for channel in Channel:
        assert Counter(v for _, v, _ in crashed.published[channel]) == Counter(
            v for _, v, _ in whole.published[channel]
        )


# Partition, stream, periods that pass, periods that the event is late, value.
late_arrivals = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 3), st.integers(0, 3), st.integers(0, 3), st.integers(1, 10**6)),
    min_size=1,
    max_size=100,
)


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
@given(drawn=late_arrivals, polls=sizes, crashes=crash_points, last_wins=st.booleans(), visible=st.booleans())
@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
def test_late_events_are_put_into_place_and_revised_the_same_through_crashes(
    delivery: Delivery,
    drawn: list[tuple[int, int, int, int, int]],
    polls: list[int],
    crashes: list[tuple[str, int]],
    last_wins: bool,
    visible: bool,
) -> None:
    """Anchors and inputs are part of the state: a crashed run publishes the records of one run, revisions included."""
    lateness = AllowedLateness(3, Frequency(HOUR_MS), last_wins)
    whole, crashed, shelf = Log({0: [], 1: []}), Log({0: [], 1: []}), Shelf()
    visible = visible and delivery == "at_least_once"
    held: dict[str, dict[int, int]] = {}
    now: Counter[str] = Counter()
    for partition, stream, ahead, delay, y in drawn:
        unique_id = f"{partition}/{stream}"
        now[unique_id] += ahead
        slot = now[unique_id] - delay
        slots = held.setdefault(unique_id, {})
        slots[slot] = y if last_wins else slots.get(slot, y)
        for log in (whole, crashed):
            log.append(partition, observation(unique_id, y, ds=(400_000 + slot) * HOUR_MS))

    run_once(whole, Shelf(), "exactly_once", visible=False, per_poll=lambda: 10**6, lateness=lateness)
    for crash in crashes:
        run_once(
            crashed, shelf, delivery, visible=visible, per_poll=cycle(polls).__next__, crash=crash, lateness=lateness
        )
    run_once(crashed, shelf, delivery, visible=visible, per_poll=cycle(polls).__next__, lateness=lateness)
    assert set(published(crashed)) == set(published(whole))
    if delivery == "exactly_once":
        assert published(crashed) == published(whole), "each revision once"

    last: dict[tuple[str, str], tuple[int, int]] = {}
    for _, value, _ in crashed.published[Channel.FORECASTS]:
        record = json.loads(value)
        key = record["unique_id"], record["ds"]
        last[key] = max(last.get(key, (-1, 0)), (record["revision"], int(record["quantiles"]["0.5"][0])))
    seen: dict[str, list[int]] = {}
    for (unique_id, _), (_, state) in sorted(last.items()):
        seen.setdefault(unique_id, []).append(state)
    expected = {unique_id: unroll(y for _, y in sorted(slots.items())) for unique_id, slots in held.items()}
    assert seen == expected, "the last revisions are the forecasts of the streams in order"


def published(log: Log) -> Counter[bytes]:
    return Counter(value for _, value, _ in log.published[Channel.FORECASTS])


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
@given(events=arrivals, polls=sizes, moves=st.lists(st.sampled_from(["revoke", "lose", "assign", "rest"]), max_size=25))
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_partitions_may_come_and_go_in_any_state(
    delivery: Delivery, events: list[tuple[int, int, int]], polls: list[int], moves: list[str]
) -> None:
    """Revoked or lost while loading, replaying or live, and assigned again before the last restore was done."""
    log, expected = fill(events)
    shelf = Shelf()
    harness = workers.build(
        log,
        per_poll=cycle(polls).__next__,
        settings=WorkerSettings(commit_interval_s=0.5, delivery=delivery),
        snapshots=StateSettings(snapshot_interval_s=2, snapshot_max_interval_s=2, pages_per_commit=1),
        store=lambda _sink: MemoryStore(shelf, polls_per_restore=3),
    )

    def make(nth: int, move: str) -> Callable[[MemorySource], None]:
        def act(source: MemorySource) -> None:
            harness.clock.now += 1
            partition = nth % 3
            owned = partition in source.positions()
            if move == "revoke" and owned:
                source.revoke([partition])
            elif move == "lose" and owned:
                source.lose([partition])
            elif move == "assign" and not owned:
                source.assign([partition])

        return act

    def everything(source: MemorySource) -> None:
        source.assign([p for p in (0, 1, 2) if p not in source.positions()])

    harness.source.before_poll.extend([make(nth, move) for nth, move in enumerate(moves)])
    harness.source.before_poll.append(everything)
    harness.worker.run()
    run_once(log, shelf, delivery, visible=False, per_poll=lambda: 1000)
    assert forecasts_by_stream(log) == expected
    if delivery == "exactly_once":
        assert repeats(log) == 0


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize(
    ("delivery", "visible"), [("at_least_once", True), ("at_least_once", False), ("exactly_once", False)]
)
def test_every_crash_point_of_a_long_run_in_turn(point: str, delivery: Delivery, visible: bool) -> None:
    """Random examples seldom crash late enough for a page that is newer than its mark; this tries every point.

    The cases with and without a transaction or a visible store begin at other numbers, so that each is tried by one.
    """
    rng = np.random.default_rng(7)
    events = [(int(p), int(s), int(y)) for p, s, y in zip(*rng.integers(0, [[2], [6], [1000]], (3, 90)), strict=True)]
    limits = Limits(idle_ttl_ms=30)

    def timed() -> Log:
        log, _ = fill([])
        for at, (partition, stream, y) in enumerate(events):
            log.append(partition, observation(f"{partition}/{stream}", y, ds=at * 3))
        return log

    whole = timed()
    run_once(whole, Shelf(), delivery, visible=False, per_poll=lambda: 10**6, limits=limits)
    expected = forecasts_by_stream(whole)
    crashed = 0
    for count in range(1 + visible + 2 * (delivery == "exactly_once"), 40, 3):
        log, shelf = timed(), Shelf()
        first = run_once(log, shelf, delivery, visible=visible, per_poll=lambda: 2, crash=(point, count), limits=limits)
        crashed += first.health.started and bool(first.source.before_poll)
        run_once(log, shelf, delivery, visible=visible, per_poll=lambda: 3, limits=limits)
        assert forecasts_by_stream(log) == expected, f"after a crash at {point} number {count}"
        if delivery == "exactly_once":
            assert repeats(log) == 0
    assert crashed >= 4, "this point is seldom reached"
