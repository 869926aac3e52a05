"""The oracle through roll-outs: through any promotions and crashes, every forecast is its model's own.

Toys with different multipliers are different models. A forecast names its model; it has to equal that model's unroll of
all observations of the stream, including those before it took over.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator

import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rillcast.errors import ServedByAnotherKindError, TransportError
from rillcast.transports.base import Channel
from tests.property.test_oracle import arrivals, cycle, fill, sizes
from tests.support import workers
from tests.support.crashes import POINTS, Delivery
from tests.support.memory import MemorySink, MemorySource, MemoryTransactionalSink
from tests.support.rollout_runs import BUNDLES, IDS, MULTIPLIERS, World, run
from tests.support.rollouts import changes
from tests.support.small_pages import small_pages
from tests.support.workers import observation, repeats


@pytest.fixture(scope="module", autouse=True)
def _pages_of_two() -> Iterator[None]:
    """A partition has several pages, and a snapshot of it takes several commits."""
    with small_pages(2):
        yield


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


def test_models_that_were_replaced_leave_memory_without_the_garbage_collector() -> None:
    """A service collects seldom, and a model in a cycle would stay until then."""
    sessions: list[int] = []
    for promote in ({}, {20: 37, 60: 31, 100: 37, 140: 31}):
        log, _ = fill([(0, n % 4, n + 1) for n in range(600)])
        world = World(log, "exactly_once", visible=False)
        gc.collect()
        before = _sessions()
        gc.disable()
        try:
            harness = run(world, lambda: 3, promote=promote, rest=20)
            sessions.append(_sessions() - before)
        finally:
            gc.enable()
        assert harness.metric("rillcast_model_swaps_total", outcome="completed") == len(promote)
    assert sessions[0] == sessions[1] > 0


def _sessions() -> int:
    return sum(isinstance(each, ort.InferenceSession) for each in gc.get_objects())


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
@example(events=[(0, 0, 1)], polls=[1], moves=["rest", "revoke", "revoke", "lose"], promote={3: 37})
@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow])
def test_partitions_may_come_and_go_while_a_model_warms_up(
    delivery: Delivery,
    events: list[tuple[int, int, int]],
    polls: list[int],
    moves: list[str],
    promote: dict[int, int],
) -> None:
    """A partition that is lost before its first commit of all is like one whose process died there."""
    log, _ = fill(events)
    world = World(log, delivery, visible=False)
    sinks: list[MemorySink] = []

    def make(nth: int, move: str) -> Callable[[MemorySource], None]:
        def act(source: MemorySource) -> None:
            partition = nth % 3
            owned = partition in source.positions()
            if move == "revoke" and owned:
                source.revoke([partition])
            elif move == "lose" and owned:
                source.lose([partition])
                if delivery == "at_least_once":  # else what was published of it is taken back
                    world.begin([partition], sinks[0].pending(Channel.FORECASTS))
            elif move == "assign" and not owned:
                source.assign([partition])

        return act

    def everything(source: MemorySource) -> None:
        source.assign([p for p in (0, 1, 2) if p not in source.positions()])

    acts = {nth + 1: make(nth, move) for nth, move in enumerate(moves)} | {len(moves) + 1: everything}
    run(
        world,
        cycle(polls).__next__,
        promote=promote,
        moves=acts,
        rest=30,
        prepare=lambda harness: sinks.append(harness.sink),
    )
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
