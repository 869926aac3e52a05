"""Partitions that fall silent: the clock decides once, and a replay closes the same periods at the same point.

The decisions come from a clock, so no offline group-by knows them. What is checked instead: a period is published with
one value alone, which is the sum of its events that were not refused as late; in the end every period is closed.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rillcast.bundle.frequency import Frequency
from rillcast.engine.periods import Aggregation
from rillcast.publishing.dead_letters import DeadLetter
from rillcast.settings import StateSettings, WorkerSettings
from rillcast.transports.base import Channel, Polled
from tests.property.test_oracle import cycle, sizes
from tests.support import workers
from tests.support.crashes import Delivery, VisibleStore, arm, crash_points
from tests.support.memory import Crash, Log, MemorySource, MemoryTransactionalSink
from tests.support.small_pages import small_pages
from tests.support.stores import MemoryStore, Shelf
from tests.support.toy import MODULUS, MULTIPLIER, toy_bundle
from tests.support.workers import observation

PERIOD_MS = 10_000
BEGIN_MS = 1_700_000_000_000
Action = tuple[int, int, int, int, int] | int


@pytest.fixture(scope="module", autouse=True)
def _pages_of_two() -> Iterator[None]:
    with small_pages(2):
        yield


# A silence of seconds; or partition, stream, seconds that pass, seconds that the event is late, and value.
actions = st.lists(
    st.one_of(
        st.integers(1, 12),
        st.tuples(
            st.integers(0, 1),
            st.integers(0, 2),
            st.integers(0, 12),
            st.sampled_from([0, 0, 4, 20]),
            st.integers(1, 999),
        ),
    ),
    min_size=1,
    max_size=60,
)


class Play:
    """Actions that outlive the worker; time passes in the loop's own steps."""

    def __init__(self, drawn: Sequence[Action]) -> None:
        self.log = Log({0: [], 1: []})
        self._now = {0: BEGIN_MS, 1: BEGIN_MS}
        self.left: deque[Action] = deque()
        for action in [*drawn, 60]:
            self.left.extend([1] * action if isinstance(action, int) else [action])

    def attach(self, harness: workers.Harness) -> None:
        def step(source: MemorySource) -> None:
            if not self.left:
                source.before_poll.clear()
                return
            action = self.left.popleft()
            if isinstance(action, int):
                harness.clock.now += 1
                self._now = {partition: now + 1_000 for partition, now in self._now.items()}
                return
            partition, stream, ahead, late, y = action
            self._now[partition] += ahead * 1_000
            ds = self._now[partition] - late * 1_000
            self.log.append(partition, observation(f"{partition}/{stream}", y, ds))

        harness.source.before_poll.extend([step] * 10_000)


def build(
    play: Play,
    shelf: Shelf,
    delivery: Delivery,
    polls: Iterator[int],
    *,
    visible: bool,
    models: workers.MemoryModels | None = None,
) -> workers.Harness:
    harness = workers.build(
        play.log,
        per_poll=polls.__next__,
        settings=WorkerSettings(commit_interval_s=0.5, delivery=delivery),
        snapshots=StateSettings(snapshot_interval_s=2, snapshot_max_interval_s=2, pages_per_commit=1),
        store=lambda _sink: VisibleStore(shelf) if visible else MemoryStore(shelf, polls_per_restore=2),
        aggregation=Aggregation("sum", Frequency(PERIOD_MS), "partition", grace_ms=3_000, empty=0.0, silent_after=3),
        idle_s=2,
        models=models,
    )
    play.attach(harness)
    return harness


def in_the_transaction(harness: workers.Harness) -> None:
    """Let the store keep what is staged as soon as the transaction has ended, like the store in a topic."""
    sink, store = harness.sink, harness.store
    assert isinstance(sink, MemoryTransactionalSink)
    assert isinstance(store, MemoryStore)
    then, keep = sink.after_end, MemoryStore.commit

    def kept() -> None:
        keep(store)
        then()

    sink.after_end = kept


def implied(log: Log) -> dict[str, dict[int, int]]:
    """Return the value of each published period by stream: the toy's forecast, taken back."""
    seen: dict[tuple[str, int], int] = {}
    for _, value, _ in log.published[Channel.FORECASTS]:
        record = json.loads(value)
        period = round(dt.datetime.fromisoformat(record["ds"]).timestamp() * 1000) // PERIOD_MS
        state = int(record["quantiles"]["0.5"][0])
        assert seen.setdefault((record["unique_id"], period), state) == state, f"{record['unique_id']} {period}: twice"
    values: dict[str, dict[int, int]] = defaultdict(dict)
    before: Counter[str] = Counter()
    for (unique_id, period), state in sorted(seen.items()):
        values[unique_id][period] = (state - MULTIPLIER * before[unique_id]) % MODULUS
        before[unique_id] = state
    return values


def check(play: Play) -> None:
    log = play.log
    letters = [DeadLetter.read(*letter) for letter in log.published[Channel.DEAD_LETTERS]]
    late = {(letter.partition, letter.offset) for letter in letters}
    sums: dict[str, Counter[int]] = defaultdict(Counter)
    for partition, records in log.partitions.items():
        for offset, (_, value) in enumerate(records):
            if (partition, offset) not in late:
                event = json.loads(value or b"")
                sums[event["unique_id"]][event["ds"] // PERIOD_MS] += event["y"]
    found = implied(log)
    assert {unique_id: {p: y for p, y in values.items() if y} for unique_id, values in found.items()} == sums
    assert all(sum(1 for _ in values) <= len(sums[unique_id]) * 4 for unique_id, values in found.items()), (
        "at most three empty periods follow one with events"
    )


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
@given(drawn=actions, polls=sizes, crashes=crash_points, visible=st.booleans())
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
def test_a_silent_partition_closes_its_periods_at_one_point(
    delivery: Delivery, drawn: list[Action], polls: list[int], crashes: list[tuple[str, int]], visible: bool
) -> None:
    play, shelf, visible = Play(drawn), Shelf(), visible and delivery == "at_least_once"
    for point, count in crashes:
        harness = build(play, shelf, delivery, cycle(polls), visible=visible)
        store = harness.store
        assert isinstance(store, MemoryStore)
        arm(harness, store, point, count)
        if delivery == "exactly_once":
            in_the_transaction(harness)
        with contextlib.suppress(Crash):
            harness.worker.run()
    play.left.extend([1] * 60)
    build(play, shelf, delivery, cycle(polls), visible=visible).worker.run()
    check(play)
    if delivery == "exactly_once":
        values = Counter(value for _, value, _ in play.log.published[Channel.FORECASTS])
        assert not values or max(values.values()) == 1


@given(drawn=actions, aborts=st.sets(st.integers(1, 12), max_size=4), ambiguous=st.booleans())
@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
def test_a_decision_and_its_forecasts_are_in_one_transaction(
    drawn: list[Action], aborts: set[int], ambiguous: bool
) -> None:
    play = Play(drawn)
    harness = build(play, Shelf(), "exactly_once", cycle([5]), visible=False)

    assert isinstance(harness.sink, MemoryTransactionalSink)
    harness.sink.fail_at(aborts, ambiguous=ambiguous)
    in_the_transaction(harness)
    play.left.extend([1] * 60)
    harness.worker.run()
    check(play)
    values = Counter(value for _, value, _ in play.log.published[Channel.FORECASTS])
    assert not values or max(values.values()) == 1


OTHER = toy_bundle(multiplier=37)


@given(drawn=actions, polls=sizes, at=st.integers(0, 60))
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
def test_a_model_that_takes_over_closes_what_silence_has_not_closed(
    drawn: list[Action], polls: list[int], at: int
) -> None:
    play, shelf, polled = Play(drawn), Shelf(), 0
    other = OTHER.metadata.model_id
    models = workers.MemoryModels({other: OTHER}, store=lambda model_id: MemoryStore(shelf, model_id))
    harness = build(play, shelf, "exactly_once", cycle(polls), visible=False, models=models)
    poll = harness.source.poll

    def promoting(max_records: int, timeout_s: float) -> Polled:
        nonlocal polled
        polled += 1
        models.wanted = other if polled > at else None
        return poll(max_records, timeout_s)

    harness.source.poll = promoting  # type: ignore[method-assign]
    play.left.extend([1] * 60)
    harness.worker.run()
    records = [json.loads(value) for _, value, _ in play.log.published[Channel.FORECASTS]]
    periods = Counter((record["unique_id"], record["ds"]) for record in records)
    assert max(periods.values(), default=1) == 1, "one model closes a period, and no other closes it again"
    late = {
        (letter.partition, letter.offset)
        for letter in (DeadLetter.read(*each) for each in play.log.published[Channel.DEAD_LETTERS])
    }
    for partition, events in play.log.partitions.items():
        for offset, (_, value) in enumerate(events):
            event = json.loads(value or b"")
            start = dt.datetime.fromtimestamp(event["ds"] // PERIOD_MS * PERIOD_MS / 1000, dt.UTC)
            where = event["unique_id"], f"{start:%Y-%m-%dT%H:%M:%S}.000Z"
            assert (partition, offset) in late or where in periods
