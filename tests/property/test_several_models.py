"""The oracle with several models: each model's forecasts are those that it has alone, on its share of the events.

A table takes streams by their last digit. Toys with different multipliers are different models, so an event that
another table's model stepped, or that one stepped twice, changes every forecast after it. Some streams belong to no
table. The first table has an alias that moves, while the other tables stay.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rillcast.codecs.observations.matching import Matching, Rule
from rillcast.engine.periods import Aggregation
from rillcast.engine.residents import Limits
from rillcast.settings import RolloutSettings, StateSettings, WorkerSettings
from rillcast.stores.base import StateStore
from rillcast.transports.base import Channel
from tests.property.test_aggregation import aggregations, lateness, log_of, raw_events
from tests.property.test_aggregation import drawn as raw_drawn
from tests.property.test_oracle import arrivals, cycle, fill, sizes
from tests.support import workers
from tests.support.aggregation import expected, published
from tests.support.crashes import POINTS, Bomb, Delivery, VisibleStore, arm_store, arm_transport
from tests.support.memory import Clock, Crash, Log, MemorySource
from tests.support.rollouts import Expected, Source, changes, expect, served_by
from tests.support.small_pages import small_pages
from tests.support.stores import MemoryStore, Shelf
from tests.support.toy import HOUR_MS, toy_bundle
from tests.support.workers import repeats

MATCHES = {"even": "*/[024]", "odd": "*/[135]"}
UNMATCHED = "678"
MULTIPLIERS = (31, 37, 41)
BUNDLES = {m: toy_bundle(multiplier=m) for m in MULTIPLIERS}
IDS = {m: bundle.metadata.model_id for m, bundle in BUNDLES.items()}


@pytest.fixture(scope="module", autouse=True)
def _pages_of_two() -> Iterator[None]:
    """A partition has several pages, and a snapshot of it takes several commits."""
    with small_pages(2):
        yield


@dataclass
class World:
    """Everything that outlives a process; `multipliers` are the models of the tables, which `live` may replace."""

    log: Log
    delivery: Delivery
    visible: bool = False
    multipliers: dict[str, int] = field(default_factory=lambda: {"even": 31, "odd": 37})
    shelves: dict[str, Shelf] = field(default_factory=dict)
    clock: Clock = field(default_factory=Clock)
    opened: dict[str, list[str]] = field(default_factory=dict)  # models of roll-outs, by table
    aggregations: Mapping[str, Aggregation | None] = field(default_factory=dict)
    limits: Limits | None = None

    def store(self, table: str, model_id: str) -> MemoryStore:
        shelf = self.shelves.setdefault(table, Shelf())
        return VisibleStore(shelf, model_id) if self.visible else MemoryStore(shelf, model_id, polls_per_restore=2)

    def expected(self) -> dict[Source, Expected]:
        events = (
            ((partition, offset), value or b"")
            for partition, records in self.log.partitions.items()
            for offset, (_, value) in enumerate(records)
        )
        return expect(events, {IDS[m]: m for m in MULTIPLIERS})

    def check(self) -> dict[Source, str]:
        """Require that each event of a table has that model's own forecasts, and others none; return the models."""
        expected = self.expected()
        served = served_by(((key, value) for key, value, _ in self.log.published[Channel.FORECASTS]), expected)
        assert set(served) == {at for at, each in expected.items() if each.unique_id[-1] not in UNMATCHED}
        return served


def run(
    world: World,
    per_poll: Callable[[], int],
    *,
    tables: tuple[str, ...] = ("even", "odd"),
    crash: tuple[str, int] | None = None,
    promote: Mapping[int, int] | None = None,
    moves: Mapping[int, Callable[[MemorySource], None]] | None = None,
    rest: int = 0,
    dead_letters: bool = False,
    shadow: int | None = None,
) -> workers.Harness:
    """Run a worker to the end of the log or to its death; `promote` moves the alias of the table `even`, by poll.

    `shadow` names the shadow of that table.
    """
    point, count = crash or ("none", 0)
    bomb = Bomb(count)

    def open_store(table: str, model_id: str) -> StateStore:
        store = world.store(table, model_id)
        arm_store(store, point, bomb)  # the stores of all tables, for they share a commit
        return store

    def table_of(name: str) -> workers.Table:
        models = workers.MemoryModels(
            {IDS[m]: BUNDLES[m] for m in MULTIPLIERS},
            IDS[world.multipliers[name]],
            store=lambda model_id: open_store(name, model_id),
        )
        world.opened[name] = models.opened
        models.shadow = IDS[shadow] if shadow is not None and name == "even" else None
        bundle, aggregation = BUNDLES[world.multipliers[name]], world.aggregations.get(name)
        return workers.Table(
            bundle,
            lambda _sink: open_store(name, bundle.metadata.model_id),
            models,
            None if aggregation is None else lateness(aggregation),
            aggregation,
        )

    made = {name: table_of(name) for name in tables}
    harness = workers.build(
        world.log,
        tables=made,
        matching=Matching([Rule(MATCHES[name]) for name in tables], unmatched_are_dead=dead_letters),
        per_poll=per_poll,
        settings=WorkerSettings(commit_interval_s=0.5, delivery=world.delivery),
        snapshots=StateSettings(snapshot_interval_s=2, snapshot_max_interval_s=2, pages_per_commit=1),
        rollout=RolloutSettings(warm_up="retained", events_per_iteration=10, retry_s=3),
        clock=world.clock,
        limits=world.limits,
    )
    polls = 0

    def pass_time(source: MemorySource) -> None:
        nonlocal polls, rest
        world.clock.now += 1
        polls += 1
        if promote and polls in promote and (models := made["even"].models) is not None:
            world.multipliers["even"] = promote[polls]
            models.wanted = IDS[promote[polls]]
        if moves and polls in moves:
            moves[polls](source)
        if not source.positions() and polls > max(moves or (0,)):
            source.assign(list(world.log.partitions))  # every partition moved away, and none is to come back
        if source.positions() and all(lag == 0 for lag in source.lag().values()) and (rest := rest - 1) < 0:
            source.before_poll.clear()

    harness.source.before_poll.extend([pass_time] * 10_000)
    if point in ("flush", "offsets", "done") or (point == "page" and not world.visible):
        arm_transport(harness, point, bomb)
    with contextlib.suppress(Crash):
        harness.worker.run()
    return harness


def away_and_back(partition: int) -> Callable[[MemorySource], None]:
    def move(source: MemorySource) -> None:
        if partition in source.positions():
            source.revoke([partition])
        else:
            source.assign([partition])

    return move


crash_points = st.lists(st.tuples(st.sampled_from(POINTS), st.integers(1, 15)), max_size=4)
promotions = st.dictionaries(st.integers(1, 25), st.sampled_from(MULTIPLIERS), max_size=3)


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
@given(
    events=arrivals,
    polls=sizes,
    crashes=crash_points,
    moved=st.dictionaries(st.integers(1, 12), st.integers(0, 2), max_size=4),
    visible=st.booleans(),
    same=st.booleans(),
)
@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_each_model_forecasts_its_share_as_it_would_alone(
    delivery: Delivery,
    events: list[tuple[int, int, int]],
    polls: list[int],
    crashes: list[tuple[str, int]],
    moved: dict[int, int],
    visible: bool,
    same: bool,
) -> None:
    log, _ = fill(events)
    # Two tables may have the same bundle, and still have states of their own.
    world = World(log, delivery, visible and delivery == "at_least_once", {"even": 31, "odd": 31 if same else 37})
    per_poll = cycle(polls).__next__
    for crash in crashes:
        run(world, per_poll, crash=crash)
    run(world, per_poll, moves={poll: away_and_back(partition) for poll, partition in moved.items()})
    run(world, per_poll)
    served = world.check()
    expected = world.expected()
    for at, model_id in served.items():
        assert model_id == IDS[world.multipliers["even" if int(expected[at].unique_id[-1]) % 2 == 0 else "odd"]]
    if delivery == "exactly_once":
        assert repeats(world.log) == 0
    assert {p: at for p, at in log.committed.items() if at} == {p: len(r) for p, r in log.partitions.items() if r}


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
@given(
    events=arrivals,
    polls=sizes,
    plan=st.lists(st.tuples(promotions, st.sampled_from(POINTS), st.integers(1, 15)), max_size=3),
)
@settings(max_examples=10, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_one_table_changes_its_model_and_the_others_stay(
    delivery: Delivery,
    events: list[tuple[int, int, int]],
    polls: list[int],
    plan: list[tuple[dict[int, int], str, int]],
) -> None:
    log, _ = fill(events)
    world = World(log, delivery)
    per_poll = cycle(polls).__next__
    for promote, point, count in plan:
        run(world, per_poll, promote=promote, crash=(point, count))
    run(world, per_poll, rest=40)
    served, expected = world.check(), world.expected()
    odd = {at: model for at, model in served.items() if expected[at].unique_id[-1] in "135"}
    assert set(odd.values()) <= {IDS[37]}
    if delivery == "exactly_once":
        assert repeats(world.log) == 0
    even = world.shelves["even"].serving
    assert set(even.values()) <= {IDS[world.multipliers["even"]]}, "every claim is the wanted model's"


@given(events=arrivals, polls=sizes)
@settings(max_examples=4, deadline=None)
def test_a_shadow_of_one_table_publishes_nothing_and_is_no_other_tables(
    events: list[tuple[int, int, int]], polls: list[int]
) -> None:
    log, _ = fill(events)
    world = World(log, "exactly_once")
    shadow = next(m for m in MULTIPLIERS if m not in world.multipliers.values())
    harness = run(world, cycle(polls).__next__, rest=40, shadow=shadow)
    assert IDS[shadow] not in world.check().values()
    assert repeats(world.log) == 0
    assert {name: IDS[shadow] in opened for name, opened in world.opened.items()} == {"even": True, "odd": False}
    assert [harness.metric("rillcast_shadow_drops_total", model=name) for name in ("even", "odd")] == [0, 0]
    assert {model for shelf in world.shelves.values() for model in shelf.serving.values()} == {IDS[31], IDS[37]}


@given(events=arrivals, polls=sizes)
@settings(max_examples=10, deadline=None)
def test_a_table_that_is_added_later_steps_what_is_retained_and_leaves_the_others_alone(
    events: list[tuple[int, int, int]], polls: list[int]
) -> None:
    log, _ = fill(events)
    half = {partition: records[: len(records) // 2] for partition, records in log.partitions.items()}
    committed = {partition: len(records) for partition, records in half.items()}
    world = World(Log(half), "exactly_once")
    run(world, cycle(polls).__next__, tables=("even",))
    for partition, records in log.partitions.items():
        world.log.partitions[partition] = list(records)
    run(world, cycle(polls).__next__, tables=("even", "odd"))
    expected = world.expected()
    served = served_by(((key, value) for key, value, _ in world.log.published[Channel.FORECASTS]), expected)
    assert repeats(world.log) == 0
    for at, each in expected.items():
        new = at[1] >= committed[at[0]]
        assert (at in served) == (each.unique_id[-1] in "024" or (each.unique_id[-1] in "135" and new)), at


@pytest.mark.parametrize("limited", [False, True])
@given(
    drawn=raw_drawn,
    polls=sizes,
    crashes=crash_points,
    moved=st.dictionaries(st.integers(1, 12), st.integers(0, 1), max_size=3),
    even=aggregations,
    odd=st.one_of(st.none(), aggregations),
)
@settings(max_examples=5, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_tables_aggregate_and_evict_as_each_model_would_alone(
    limited: bool,
    drawn: list[tuple[int, int, int, int, int | None]],
    polls: list[int],
    crashes: list[tuple[str, int]],
    moved: dict[int, int],
    even: Aggregation,
    odd: Aggregation | None,
) -> None:
    events = raw_events(drawn)
    own = {"even": even, "odd": odd}
    limits = Limits(idle_ttl_ms=5 * HOUR_MS, max_streams_per_partition=1) if limited else None
    together = World(log_of(events), "exactly_once", aggregations=own, limits=limits)
    per_poll = cycle(polls).__next__
    for crash in crashes:
        run(together, per_poll, crash=crash)
    run(together, per_poll, moves={poll: away_and_back(partition) for poll, partition in moved.items()})
    run(together, per_poll)
    records = {each: Counter[bytes | None]() for each in (Channel.FORECASTS, Channel.DEAD_LETTERS)}
    for name in own:
        alone = World(log_of(events), "exactly_once", aggregations=own, limits=limits)
        run(alone, lambda: 10**6, tables=(name,))
        for channel in records:
            records[channel] = records[channel] + Counter(value for _, value, _ in alone.log.published[channel])
    for channel, expected_records in records.items():
        assert Counter(value for _, value, _ in together.log.published[channel]) == expected_records
    if limited:
        return
    found = published(value for _, value, _ in together.log.published[Channel.FORECASTS])
    for name, aggregation in own.items():
        if aggregation is not None:
            mine = [event for event in events if fnmatch(event.unique_id, MATCHES[name])]
            of_table = {stream: steps for stream, steps in found.items() if fnmatch(stream, MATCHES[name])}
            assert of_table == expected(mine, aggregation, together.multipliers[name])


def test_what_no_table_takes_is_counted_or_becomes_a_dead_letter() -> None:
    streams = [(0, stream, 1) for stream in range(9)]
    harness = run(World(fill(streams)[0], "at_least_once"), lambda: 5)
    assert harness.metric("rillcast_unmatched_events_total") == len(UNMATCHED)
    assert harness.metric("rillcast_forecasts_total", model="even") == 3
    assert harness.metric("rillcast_streams", model="odd") == 3
    letters, _ = fill(streams)
    run(World(letters, "at_least_once"), lambda: 5, dead_letters=True)
    found = [json.loads(value) for _, value, _ in letters.published[Channel.DEAD_LETTERS]]
    assert len(found) == len(UNMATCHED)


def test_the_oracle_notices_an_event_that_another_model_stepped() -> None:
    """The proof that the tests above can fail."""
    log, _ = fill([(0, 0, 3), (0, 1, 5), (0, 0, 4)])
    world = World(log, "at_least_once", multipliers={"even": 31, "odd": 37})
    run(world, lambda: 10)
    served = world.check()
    assert changes(served) == {0: [IDS[31], IDS[37], IDS[31]]}
