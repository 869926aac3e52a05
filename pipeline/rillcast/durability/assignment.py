"""The partitions that this member owns, and what brings each of them to life (`rillcast.durability.partition`).

A partition begins with the default model of each route. If the store says that another model serves it (a roll-out was
interrupted, or another member is further with it), that model goes on with its own state, and the roll-out starts
again. If that model is unavailable, the default model takes over and steps the retained events.

The partition is read from the first event that the state of any route lacks. Routes whose state has it pass it over.

Owns: which partitions there are, and what causes their transitions. Does not know: commits, polls, where results go.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rillcast.arrays import rows_of_each
from rillcast.durability.checkpoint import Checkpoint
from rillcast.durability.partition import Partition, PartitionState
from rillcast.durability.recovery import Start, StartRules, decide, is_ahead
from rillcast.durability.restorer import Purpose, Restorer, put_in_place
from rillcast.errors import ServedByAnotherKindError
from rillcast.observability.health import Health
from rillcast.observability.metrics import Metrics
from rillcast.serving.router import Router
from rillcast.serving.routes import Routes
from rillcast.serving.served_model import ServedModel
from rillcast.stores.base import Restored
from rillcast.transports.base import Assignment, Polled, Source

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Reporting:
    """Where the state of the partitions is reported.

    Attributes:
        metrics: Counts and gauges.
        health: Liveness and readiness.
        clock: Monotonic seconds, for durations.
    """

    metrics: Metrics
    health: Health
    clock: Callable[[], float]


class Partitions:
    """Used from one thread."""

    def __init__(
        self,
        source: Source,
        routes: Routes,
        checkpoint: Checkpoint,
        restorer: Restorer,
        rules: StartRules,
        reporting: Reporting,
    ) -> None:
        """Own nothing yet.

        Args:
            source: Where events come from.
            routes: Which models serve which partition.
            checkpoint: Notes where a partition's state stands.
            restorer: Loads stored state.
            rules: Where a partition starts.
            reporting: Where states and durations are reported.
        """
        self._source = source
        self._routes = routes
        self._checkpoint = checkpoint
        self._restorer = restorer
        self._rules = rules
        self._reporting = reporting
        self._partitions: dict[int, Partition] = {}
        self._recovered: set[int] = set()

    @property
    def owned(self) -> list[int]:
        """Every partition that this member has."""
        return list(self._partitions)

    @property
    def live(self) -> set[int]:
        """Partitions whose results are published."""
        return set(self._in(PartitionState.LIVE))

    @property
    def loading(self) -> bool:
        """Whether any partition's stored state is being read."""
        return bool(self._in(PartitionState.LOADING))

    @property
    def loading_numbers(self) -> list[int]:
        """The partitions whose stored state is being read."""
        return self._in(PartitionState.LOADING)

    @property
    def idle(self) -> bool:
        """Whether every partition is loading, so that there is nothing else to do."""
        return len(self._in(PartitionState.LOADING)) == len(self._partitions)

    def assign(self, assignments: Iterable[Assignment]) -> Mapping[int, int | None]:
        """Return the position to read each partition from; None = its stored state has to be loaded first.

        Raises:
            RecoveryError: The committed offset lies outside what the source retains.
        """
        starts = dict[int, int | None]()
        for assignment in assignments:
            number = assignment.partition
            self._partitions[number] = Partition(assignment, self._reporting.clock())
            if assignment.added:
                log.warning(
                    "%s: the topic has grown. Streams whose records go to this partition now begin here without state",
                    self._name_of(number),
                )
            restores = self._routes.stores_state and self._rules_of(number).policy == "restore"
            for router in self._routes:
                router.assign(number, router.default)
                if restores:
                    self._restorer.begin(router.default, number, Purpose.SERVE)
            starts[number] = None if restores else self._begin(assignment, {})
        self._reporting.health.assigned = True
        self.report()
        return starts

    def load(self, timeout_s: float) -> None:
        """Go on loading stored state, and start the partitions whose state is complete.

        Raises:
            StateError: Stored state is damaged.
            RecoveryError: It cannot be brought to the committed offset.
            ServedByAnotherKindError: At the start: another kind of model serves a partition, and such claims decide.
            TransportError: A store cannot be reached.
        """
        for router in self._routes:
            for model in list(router.all):
                for restored in self._restorer.poll(model, Purpose.SERVE, timeout_s / len(self._routes)):
                    if not self._belongs_to_another(router, model, restored):
                        self._found(router, restored)
        self.report()

    def note_live(self) -> None:
        """Notice partitions whose replay has reached the committed offset.

        The position decides, not the last record: right before the committed offset there may be a compacted record or
        a transaction marker, and then no record with the offset before it arrives.
        """
        if replaying := self._in(PartitionState.REPLAYING):
            positions = self._source.positions()
            for number in replaying:
                if positions.get(number, -1) >= self._partitions[number].live_from:
                    self._go_live(number)
            self.report()

    def drop(self, numbers: Iterable[int]) -> None:
        """Forget partitions and their states."""
        for number in numbers:
            if (partition := self._partitions.get(number)) is not None:
                partition.leave()
                for router in self._routes:
                    self._restorer.cancel(router.model_of(number), number)
                self._routes.drop(number)
                del self._partitions[number]
        self.report()

    def are_live(self, polled: Polled) -> npt.NDArray[np.bool_]:
        """Return for each record whether its results are published."""
        live = np.ones(len(polled), dtype=bool)
        for number, partition in self._partitions.items():
            if partition.state is not PartitionState.LIVE:
                live[(polled.partitions == number) & (polled.offsets < partition.live_from)] = False
        return live

    def publishes_at(self, number: int, position: int) -> bool:
        """Return whether what happens at a position, behind the events below it, may not have been published yet."""
        return position >= self._partitions[number].live_from

    def reached(self, polled: Polled) -> set[int]:
        """Return the partitions of which something in the poll was published, so that it has to be committed."""
        reached = set()
        for number, rows in rows_of_each(polled.partitions):
            last = int(polled.offsets[rows][-1])
            if last >= self._partitions[number].live_from:
                reached.add(number)
        return reached

    def report(self) -> None:
        """Report how many partitions are owned, and how many are live."""
        restoring = len(self._partitions) - len(self._in(PartitionState.LIVE))
        self._reporting.health.restored = restoring == 0
        self._reporting.metrics.assignment(len(self._partitions), restoring)

    def _in(self, state: PartitionState) -> list[int]:
        return [number for number, partition in self._partitions.items() if partition.state is state]

    def _belongs_to_another(self, router: Router, model: ServedModel, restored: Restored) -> bool:
        """Hand a partition that another model serves to that model, and return whether that was so."""
        number, claim = restored.partition, restored.claim
        if claim is None or claim.model_id == model.model_id:
            return False
        other = self._open_claimed(router, claim.model_id)
        if other is None:
            log.warning(
                "%s: model %s, which served it, is unavailable; %s takes over and steps the retained events",
                self._name_of(number),
                claim.model_id,
                model.model_id,
            )
            return False
        if other.store is None:
            return False
        log.info(
            "%s: model %s serves it and goes on until %s has caught up",
            self._name_of(number),
            claim.model_id,
            model.model_id,
        )
        router.assign(number, other)
        self._restorer.begin(other, number, Purpose.SERVE)
        return True

    def _open_claimed(self, router: Router, model_id: str) -> ServedModel | None:
        """Return the model that a stored state names; None if it is unavailable.

        A member that serves already cannot change its kind of records, so it takes over.
        """
        try:
            return router.open(model_id)
        except ServedByAnotherKindError as error:
            if not self._recovered:
                error.route = router.name
                raise
            log.warning("%s", error)
            return None

    def _found(self, router: Router, restored: Restored) -> None:
        """Keep what a route's store had of a partition, and start the partition if that was the last."""
        number = restored.partition
        partition = self._partitions[number]
        partition.found[router.name] = restored
        if len(partition.found) == len(self._routes):
            position = self._begin(partition.assignment, partition.found)
            self._reporting.metrics.loaded(self._reporting.clock() - partition.since)
            self._source.resume_from(number, position)

    def _begin(self, assignment: Assignment, found: Mapping[str, Restored]) -> int:
        """Put stored state in place, if there is any, by route, and return the position to read from."""
        number = assignment.partition
        marks = {route: restored.mark for route, restored in found.items()}
        if any(mark is not None and is_ahead(mark, assignment) for mark in marks.values()):
            assignment = self._ask_again(assignment)
        starts = {
            router.name: decide(self._name_of(number), assignment, marks.get(router.name), self._rules_of(number))
            for router in self._routes
        }
        self._recovered.add(number)
        position = min(start.position for start in starts.values())
        self._checkpoint.begin(number, position)
        for router in self._routes:
            self._begin_route(router, number, starts[router.name], found.get(router.name))
            if starts[router.name].position > position:
                router.start_at(number, starts[router.name].position)
        live_from = max(start.live_from for start in starts.values())
        self._partitions[number].replay(live_from)
        if position >= live_from:
            self._go_live(number)
        return position

    def _begin_route(self, router: Router, number: int, start: Start, restored: Restored | None) -> None:
        if restored is not None and restored.mark is not None:
            put_in_place(router.model_of(number), restored)
        self._checkpoint.begin_route(router.name, number, start.position, new_life=start.new_life, found=restored)

    def _ask_again(self, assignment: Assignment) -> Assignment:
        """Return what the brokers say now of a partition whose state was found ahead of its committed position.

        State is never stored ahead of it, but the position was asked for before the state was read. A member that lost
        its partitions and does not know it yet sees its successor's state; its commits will be refused.
        """
        asked = {each.partition: each for each in self._source.assignments()}
        return asked.get(assignment.partition, assignment)

    def _rules_of(self, number: int) -> StartRules:
        """Return where a partition starts: a policy other than `restore` applies once, not at every rebalance."""
        if self._routes.stores_state and number in self._recovered:
            return dataclasses.replace(self._rules, policy="restore")
        return self._rules

    def _go_live(self, number: int) -> None:
        partition = self._partitions[number]
        partition.go_live()
        seconds = self._reporting.clock() - partition.since
        self._reporting.metrics.restored(seconds)
        log.info("%s: live after %.2f s", self._name_of(number), seconds)

    def _name_of(self, number: int) -> str:
        return f"{self._source.name}[{number}]"
