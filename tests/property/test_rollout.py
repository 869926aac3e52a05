"""The oracle through roll-outs: through any promotions and crashes, every forecast is its model's own.

Toys with different multipliers are different models. A forecast names its model; it has to equal that model's unroll of
all observations of the stream, including those before it took over.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rillcast.errors import ServedByAnotherKindError, TransportError
from rillcast.settings import RolloutSettings, StateSettings, WorkerSettings
from rillcast.stores.base import StateStore, Superseded
from rillcast.transports.base import Channel
from tests.property.test_oracle import arrivals, cycle, fill, sizes
from tests.support import workers
from tests.support.crashes import POINTS, Bomb, Delivery, VisibleStore, arm_store, arm_transport
from tests.support.memory import Clock, Crash, Log, MemorySource, MemoryTransactionalSink
from tests.support.rollouts import Source, changes, expect, served_by
from tests.support.small_pages import small_pages
from tests.support.stores import MemoryStore, Shelf
from tests.support.toy import toy_bundle
from tests.support.workers import observation, repeats


@pytest.fixture(scope="module", autouse=True)
def _pages_of_two() -> Iterator[None]:
    """A partition has several pages, and a snapshot of it takes several commits."""
    with small_pages(2):
        yield


MULTIPLIERS = (31, 37, 41)
BUNDLES = {m: toy_bundle(sequence=m == 37, multiplier=m) for m in MULTIPLIERS}
IDS = {m: bundle.metadata.model_id for m, bundle in BUNDLES.items()}


@dataclass
class World:
    """Everything that outlives a process: the log, the stored state, and the models that the aliases name.

    `expected` covers the events that the log has when the world is made.
    """

    log: Log
    delivery: Delivery
    visible: bool
    shelf: Shelf = field(default_factory=Shelf)
    live: int = MULTIPLIERS[0]
    shadow: int | None = None
    clock: Clock = field(default_factory=Clock)
    snapshot_interval_s: float = 2.0
    polls_per_restore: int = 2
    ttl_s: float = 0.0
    ended: dict[tuple[int, str], float] = field(default_factory=dict)  # when another model took over
    unclaimed: list[tuple[int, dict[int, int]]] = field(default_factory=list)  # at a start: see `begin`
    retired: list[tuple[int, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        events = (
            ((partition, offset), value or b"")
            for partition, records in self.log.partitions.items()
            for offset, (_, value) in enumerate(records)
        )
        self.expected = expect(events, {IDS[m]: m for m in MULTIPLIERS})

    def store(self, model_id: str) -> MemoryStore:
        store = (
            VisibleStore(self.shelf, model_id)
            if self.visible
            else MemoryStore(self.shelf, model_id, polls_per_restore=self.polls_per_restore)
        )
        self._watch(store)
        return store

    def _watch(self, store: MemoryStore) -> None:
        """Check that stored state is removed when the documentation says so."""
        commit, claim, retire = store.commit, store.claim, store.retire

        def noted(act: Callable[[], None]) -> None:
            before = self.shelf.serving
            act()
            for partition, model_id in before.items():
                if self.shelf.serving[partition] != model_id:
                    self.ended[partition, model_id] = self.clock.now

        def judged_retire(partition: int, model_id: str, before: Superseded) -> None:
            assert model_id != self.shelf.serving[partition], "it serves"
            assert model_id not in (IDS[self.live], IDS.get(self.shadow or 0)), "it warms up, or is the shadow"
            assert self.clock.now - self.ended[partition, model_id] >= self.ttl_s, "it is too early"
            numbers = self.shelf.pages.get((model_id, partition), {})
            assert all(number < before.pages for number in numbers), "a page would be left"
            self.retired.append((partition, model_id))
            retire(partition, model_id, before)

        # Only this store is watched, not its class.
        store.commit = lambda: noted(commit)  # type: ignore[method-assign]  # as a bomb does
        store.claim = lambda claims: noted(lambda: claim(claims))  # type: ignore[method-assign]
        store.retire = judged_retire  # type: ignore[method-assign]

    def served(self) -> dict[Source, str]:
        """Return which model forecast each event; every forecast has to be that model's own.

        No event has forecasts of two models, except where a process died before the first commit of a partition and
        the next one was told to serve another model: nothing stored says who served the partition.
        """
        records = [(key, value) for key, value, _ in self.log.published[Channel.FORECASTS]]
        served: dict[Source, str] = {}
        for (begin, anyones), (end, _) in pairwise([(0, {}), *self.unclaimed, (len(records), {})]):
            served = {(p, n): model_id for (p, n), model_id in served.items() if n < anyones.get(p, n + 1)}
            for source, model_id in served_by(records[begin:end], self.expected).items():
                assert served.setdefault(source, model_id) == model_id, f"{source} was forecast by two models"
        return served

    def begin(self) -> None:
        """Note how many forecasts a process finds, and the committed offsets of the partitions that nobody claimed."""
        nobodys = self.log.partitions.keys() - self.shelf.claims.keys()
        published = len(self.log.published[Channel.FORECASTS])
        self.unclaimed.append((published, {partition: self.log.committed.get(partition, 0) for partition in nobodys}))


def run(
    world: World,
    per_poll: Callable[[], int],
    *,
    promote: dict[int, int] | None = None,
    crash: tuple[str, int] | None = None,
    rest: int = 0,
    moves: dict[int, Callable[[MemorySource], None]] | None = None,
    events_per_iteration: int = 10,
    models: workers.MemoryModels | None = None,
    prepare: Callable[[workers.Harness], None] = lambda _harness: None,
) -> workers.Harness:
    """Run a worker to the end of the log or to its death.

    Args:
        world: What the worker finds.
        per_poll: Returns the records of the next poll.
        promote: By the number of the poll, the model that the alias names from then on.
        crash: A point of a commit, and at which of its occurrences the worker dies.
        rest: Polls beyond the end of the log.
        moves: By the number of the poll, a change of the source.
        events_per_iteration: of a model that follows.
        models: The registry; by default all toys.
        prepare: Called before the run.
    """
    world.begin()
    models = models or workers.MemoryModels({IDS[m]: BUNDLES[m] for m in MULTIPLIERS})
    point, count = crash or ("none", 0)
    bomb = Bomb(count)

    def open_store(model_id: str) -> StateStore:
        store = world.store(model_id)
        arm_store(store, point, bomb)  # the stores of all models, for they share a commit
        return store

    models.wanted, models.store = IDS[world.live], open_store
    models.shadow = IDS[world.shadow] if world.shadow is not None else None

    harness = workers.build(
        world.log,
        bundle=BUNDLES[world.live],
        per_poll=per_poll,
        settings=WorkerSettings(commit_interval_s=0.5, delivery=world.delivery),
        snapshots=StateSettings(
            snapshot_interval_s=world.snapshot_interval_s,
            snapshot_max_interval_s=world.snapshot_interval_s,
            pages_per_commit=1,
            superseded_ttl_s=world.ttl_s,
        ),
        store=lambda _sink: open_store(IDS[world.live]),
        models=models,
        rollout=RolloutSettings(warm_up="retained", events_per_iteration=events_per_iteration, retry_s=3),
        clock=world.clock,
    )
    polls = 0

    def pass_time(source: MemorySource) -> None:
        nonlocal polls, rest
        harness.clock.now += 1
        polls += 1
        if promote and polls in promote:
            world.live = promote[polls]
            models.wanted = IDS[world.live]
        if moves and polls in moves:
            moves[polls](source)
        if all(lag == 0 for lag in source.lag().values()) and (rest := rest - 1) < 0:
            source.before_poll.clear()

    harness.source.before_poll.extend([pass_time] * 10_000)
    if point in ("flush", "offsets", "done") or (point == "page" and not world.visible):
        arm_transport(harness, point, bomb)
    prepare(harness)
    with contextlib.suppress(Crash):
        harness.worker.run()
    return harness


plans = st.lists(
    st.tuples(
        st.dictionaries(st.integers(1, 25), st.sampled_from(MULTIPLIERS), max_size=4),
        st.tuples(st.sampled_from(POINTS), st.integers(1, 15)),
    ),
    max_size=5,
)


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
@given(
    events=arrivals,
    polls=sizes,
    plan=plans,
    visible=st.booleans(),
    shadow=st.sampled_from([None, *MULTIPLIERS]),
    ttl_s=st.sampled_from([0.0, 1.0, 6.0]),
)
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
def test_every_forecast_is_that_of_the_model_it_names_through_swaps_and_crashes(
    delivery: Delivery,
    events: list[tuple[int, int, int]],
    polls: list[int],
    plan: list[tuple[dict[int, int], tuple[str, int]]],
    visible: bool,
    shadow: int | None,
    ttl_s: float,
) -> None:
    """Also if the state of superseded models ends soon: no roll-back depends on it."""
    log, _ = fill(events)
    world = World(log, delivery, visible and delivery == "at_least_once", shadow=shadow, ttl_s=ttl_s)
    for promote, crash in plan:
        run(world, cycle(polls).__next__, promote=promote, crash=crash)
    run(world, cycle(polls).__next__)
    assert world.served().keys() == world.expected.keys()
    if delivery == "exactly_once":
        assert repeats(world.log) == 0


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_a_crash_in_the_first_commit_of_all_leaves_the_partition_to_whichever_model_is_wanted_then(
    delivery: Delivery, point: str
) -> None:
    log, _ = fill([(0, 0, 1)])
    world = World(log, delivery, visible=delivery == "at_least_once")
    run(world, lambda: 1, promote={2: 37}, crash=(point, 1))
    nobodys = not world.shelf.claims and not log.committed
    run(world, lambda: 1)
    if nobodys:
        published = {json.loads(value)["model"] for _, value, _ in world.log.published[Channel.FORECASTS]}
        assert f"toy@{IDS[world.live]}" in published
    assert world.served().keys() == world.expected.keys()


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_a_promoted_model_takes_over_and_a_roll_back_returns_to_kept_state(delivery: Delivery) -> None:
    log, _ = fill([(0, n % 4, n + 1) for n in range(400)])
    world = World(log, delivery, visible=False)
    harness = run(world, lambda: 3, promote={20: 37, 80: 31}, rest=20)
    assert changes(world.served()) == {0: [IDS[31], IDS[37], IDS[31]]}, "at one offset"
    assert harness.metric("rillcast_model_swaps_total", outcome="completed") == 2
    assert harness.metric("rillcast_model_swaps_total", outcome="failed") == 0
    assert harness.metric("rillcast_model_swap_pending_seconds") == 0
    assert world.shelf.serving == {0: IDS[31], 1: IDS[31], 2: IDS[31]}
    assert repeats(world.log) == 0


def test_a_roll_back_replays_from_where_the_old_model_stopped() -> None:
    log, _ = fill([(0, n % 4, n + 1) for n in range(200)])
    del log.partitions[1], log.partitions[2]
    world = World(log, "exactly_once", visible=False)
    run(world, lambda: 3, promote={20: 37}, rest=50)
    stopped = world.shelf.marks[IDS[31], 0].offset
    assert 0 < stopped < 200
    log.beginning = stopped  # nothing before it is needed
    for n in range(30):
        log.append(0, observation("0/0", n + 1))
    world = World(log, "exactly_once", visible=False, shelf=world.shelf, live=37)
    run(world, lambda: 3, promote={3: 31}, rest=50, events_per_iteration=100)
    assert world.served()[0, 229] == IDS[31]


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_every_crash_point_around_the_end_of_a_models_state(delivery: Delivery, point: str) -> None:
    """It ends once or not yet, and the next process ends the rest."""
    crashed = 0
    for count in range(1, 22):
        log, _ = fill([(n % 2, n % 3, n + 1) for n in range(60)])
        visible = point == "page" and delivery == "at_least_once"
        world = World(log, delivery, visible, ttl_s=8)
        first = run(world, lambda: 2, promote={4: 37}, crash=(point, count), rest=20)
        if not first.source.before_poll:
            break  # it came to the end: this point is not reached more often
        crashed += 1
        run(world, lambda: 3, rest=30)
        assert world.served().keys() == world.expected.keys()
        assert set(world.shelf.serving.values()) == {IDS[world.live]}
        assert {model_id for model_id, _ in world.shelf.marks} == {IDS[world.live]}
        assert not any(world.shelf.pages.get((model_id, partition)) for partition, model_id in world.ended)
        assert not any(claim.before for claim in world.shelf.claims.values())
    assert crashed >= 8, "this point is seldom reached"


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_every_crash_point_around_a_take_over(delivery: Delivery, point: str) -> None:
    """Before it the old model goes on with its state, after it the new one with its own; then all is swapped."""
    crashed = 0
    for count in range(1, 22):
        log, _ = fill([(n % 2, n % 3, n + 1) for n in range(100)])
        world = World(log, delivery, visible=point == "page" and delivery == "at_least_once")
        first = run(world, lambda: 2, promote={8: 37}, crash=(point, count), rest=20)
        if not first.source.before_poll:
            break  # it came to the end: this point is not reached more often
        crashed += 1
        served = dict(world.shelf.serving)
        second = run(world, lambda: 3, rest=30)
        assert world.served().keys() == world.expected.keys()
        assert set(world.shelf.serving.values()) == {IDS[world.live]}
        if world.delivery == "exactly_once":
            assert repeats(world.log) == 0
        if world.live == 37 and IDS[31] in served.values():
            assert second.metric("rillcast_model_swaps_total", outcome="completed") == 1
    assert crashed >= 8, "this point is seldom reached"


@given(events=arrivals, polls=sizes, aborts=st.sets(st.integers(1, 12), max_size=4), ambiguous=st.booleans())
@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow])
def test_a_transaction_that_fails_at_a_take_over_loses_and_doubles_nothing(
    events: list[tuple[int, int, int]], polls: list[int], aborts: set[int], ambiguous: bool
) -> None:
    log, _ = fill(events)
    world = World(log, "exactly_once", visible=False)

    def prepare(harness: workers.Harness) -> None:
        assert isinstance(harness.sink, MemoryTransactionalSink)
        harness.sink.fail_at(aborts, ambiguous=ambiguous)

    run(world, cycle(polls).__next__, promote={2: 37, 9: 41, 12: 31}, rest=5, prepare=prepare)
    run(world, cycle(polls).__next__)
    assert world.served().keys() == world.expected.keys()
    assert repeats(world.log) == 0


@pytest.mark.parametrize("aborted", range(1, 13))
def test_a_model_that_is_ahead_of_the_positions_after_a_reset_begins_again(aborted: int) -> None:
    """Its partitions were reset to the committed positions before its next slice: it has seen later events."""
    log, _ = fill([(0, n % 4, n + 1) for n in range(60)])
    world = World(log, "exactly_once", visible=False, snapshot_interval_s=0.5, polls_per_restore=1)

    def prepare(harness: workers.Harness) -> None:
        assert isinstance(harness.sink, MemoryTransactionalSink)
        harness.sink.fail_at({aborted}, ambiguous=False)

    harness = run(world, lambda: 3, promote={2: 37, 9: 31}, rest=20, prepare=prepare)
    assert harness.metric("rillcast_rewinds_total") == 1
    assert world.served().keys() == world.expected.keys()
    assert set(world.served().values()) == {IDS[31], IDS[37]}
    assert repeats(world.log) == 0


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
@given(
    events=arrivals,
    polls=sizes,
    moves=st.lists(st.sampled_from(["revoke", "lose", "assign", "rest"]), max_size=25),
    promote=st.dictionaries(st.integers(1, 25), st.sampled_from(MULTIPLIERS), max_size=5),
)
@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow])
def test_partitions_may_come_and_go_while_a_model_warms_up(
    delivery: Delivery,
    events: list[tuple[int, int, int]],
    polls: list[int],
    moves: list[str],
    promote: dict[int, int],
) -> None:
    log, _ = fill(events)
    world = World(log, delivery, visible=False)

    def make(nth: int, move: str) -> Callable[[MemorySource], None]:
        def act(source: MemorySource) -> None:
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

    acts = {nth + 1: make(nth, move) for nth, move in enumerate(moves)} | {len(moves) + 1: everything}
    run(world, cycle(polls).__next__, promote=promote, moves=acts, rest=30)
    run(world, lambda: 1000)
    assert world.served().keys() == world.expected.keys()
    if delivery == "exactly_once":
        assert repeats(world.log) == 0


@given(
    events=arrivals,
    polls=sizes,
    broken=st.sets(st.integers(1, 40), max_size=30),
    closed=st.sets(st.integers(1, 4), max_size=3),
)
@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow])
def test_consumers_do_not_see_a_failure_of_a_model_that_does_not_serve(
    events: list[tuple[int, int, int]], polls: list[int], broken: set[int], closed: set[int]
) -> None:
    """Its reader fails, or it cannot be opened: the one that serves goes on, as if nothing had been promoted."""
    log, _ = fill(events)
    world = World(log, "exactly_once", visible=False, shadow=41)
    models = workers.MemoryModels({IDS[m]: BUNDLES[m] for m in MULTIPLIERS})
    asked = opened = 0

    def fail_reader() -> None:
        nonlocal asked
        asked += 1
        if asked in broken:
            raise TransportError("the broker is away")

    def fail_open(model_id: str) -> None:
        nonlocal opened
        opened += 1
        if opened in closed:
            raise ValueError("anything at all")

    models.fail_reader, models.fail_open = fail_reader, fail_open
    run(world, cycle(polls).__next__, promote={2: 37}, rest=20, models=models)
    assert world.served().keys() == world.expected.keys()
    assert repeats(world.log) == 0


def test_a_member_that_is_given_a_partition_of_the_new_model_serves_it_with_that_model() -> None:
    """Another member was quicker: the alias was rolled back meanwhile, but the partition is the new model's."""
    log, _ = fill([(0, n % 4, n + 1) for n in range(60)])
    world = World(log, "exactly_once", visible=False)
    run(world, lambda: 3, promote={5: 37}, rest=20)
    for n in range(30):
        log.append(0, observation("0/0", n + 1))
    world = World(log, "exactly_once", visible=False, shelf=world.shelf, live=31)
    run(world, lambda: 1, rest=30)
    models = [model for _, model in sorted(world.served().items())]
    assert models[60] == IDS[37], "it goes on from its own state"
    assert models[-1] == IDS[31], "until the wanted one is warm"


def test_a_model_that_served_and_is_unavailable_is_replaced_from_the_retained_events() -> None:
    log, _ = fill([(0, n % 4, n + 1) for n in range(40)])
    world = World(log, "exactly_once", visible=False)
    run(world, lambda: 3)
    for n in range(10):
        log.append(0, observation("0/1", n + 1))
    world = World(log, "exactly_once", visible=False, shelf=world.shelf, live=37)
    run(world, lambda: 3, models=workers.MemoryModels({IDS[37]: BUNDLES[37]}))
    assert [world.served()[0, n] for n in (39, 40, 49)] == [IDS[31], IDS[37], IDS[37]]
    assert set(world.shelf.serving.values()) == {IDS[37]}


def refuse_as_another_kind(model_id: str) -> None:
    raise ServedByAnotherKindError(model_id, f"model {model_id} is of another kind")


def test_a_member_that_starts_does_not_take_over_from_a_model_of_another_kind() -> None:
    """An alias that came to name the wrong model must not cost the streams their state at the next restart."""
    log, _ = fill([(0, n % 4, n + 1) for n in range(40)])
    world = World(log, "exactly_once", visible=False)
    run(world, lambda: 3)
    log.append(0, observation("0/1", 41))
    world = World(log, "exactly_once", visible=False, shelf=world.shelf, live=37)
    with pytest.raises(ServedByAnotherKindError) as caught:
        run(world, lambda: 3, models=workers.MemoryModels({}, fail_open=refuse_as_another_kind))
    assert caught.value.model_id == IDS[31]
    assert set(world.shelf.serving.values()) == {IDS[31]}
    assert (0, 40) not in world.served()


def test_a_member_that_serves_already_takes_over_from_a_model_of_another_kind() -> None:
    """Its kind of records is fixed by now, and the partition has to be served."""
    log, _ = fill([(n % 3, n % 4, n + 1) for n in range(60)])
    world = World(log, "exactly_once", visible=False)
    run(world, lambda: 3)
    assert world.shelf.serving.keys() == {0, 1, 2}
    world = World(log, "exactly_once", visible=False, shelf=world.shelf, live=37)
    for begun_first in (0, 1):
        del world.shelf.claims[begun_first]
    run(world, lambda: 3, models=workers.MemoryModels({}, fail_open=refuse_as_another_kind))
    assert set(world.shelf.serving.values()) == {IDS[37]}
