"""Runs of a worker that rolls models out and dies at a numbered step of some commit; a `World` outlives them.

Toys with different multipliers are different models.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from itertools import pairwise

from rillcast.settings import RolloutSettings, StateSettings, WorkerSettings
from rillcast.stores.base import StateStore, Superseded
from rillcast.transports.base import Channel
from tests.support import workers
from tests.support.crashes import Bomb, Delivery, VisibleStore, arm_store, arm_transport
from tests.support.memory import Clock, Crash, Log, MemorySource
from tests.support.rollouts import Source, expect, served_by
from tests.support.stores import MemoryStore, Shelf
from tests.support.toy import toy_bundle

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
    unclaimed: list[tuple[int, dict[int, int]]] = field(default_factory=list)  # see `begin`
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

        No event has forecasts of two models, except where a process died, or lost a partition, before the partition's
        first commit and the next owner was told to serve another model: nothing stored says who served it.
        """
        records = [(key, value) for key, value, _ in self.log.published[Channel.FORECASTS]]
        served: dict[Source, str] = {}
        for (begin, anyones), (end, _) in pairwise([(0, {}), *self.unclaimed, (len(records), {})]):
            served = {(p, n): model_id for (p, n), model_id in served.items() if n < anyones.get(p, n + 1)}
            for source, model_id in served_by(records[begin:end], self.expected).items():
                assert served.setdefault(source, model_id) == model_id, f"{source} was forecast by two models"
        return served

    def begin(self, partitions: Collection[int] | None = None, pending: int = 0) -> None:
        """Note how many forecasts an owner finds, and the committed offsets of the partitions that nobody claimed.

        Args:
            partitions: Those that get another owner; None = all, for another process begins.
            pending: How many forecasts the owner before, which lives on, has yet to make visible.
        """
        nobodys = set(self.log.partitions if partitions is None else partitions) - self.shelf.claims.keys()
        published = len(self.log.published[Channel.FORECASTS]) + pending
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
