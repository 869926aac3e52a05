"""The partitions that this member owns, and how each comes to be live.

    loading     its stored pages are being read; the source hands out nothing of it
    replaying   events from the pages' offset to the committed one are stepped again, their results suppressed:
                a hidden state is not idempotent, so an event is applied exactly once to the state that has it not
    live        results are published and positions committed

Without a store there is nothing to load and the replay begins at the first retained event.

A partition begins with the worker's home lane. Where the store says that another model serves it (a roll-out was
interrupted, or this member is further with it than the one before), that model goes on with it from its own state, and
the roll-out begins anew; where that model is not to be had, the home lane takes over from what is retained.

Owns: the phases, and what is restored. Does not know: commits, polls, or what becomes of results.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from rillcast.durability.checkpoint import Checkpoint
from rillcast.durability.recovery import Policy, decide, is_ahead
from rillcast.observability.health import Health
from rillcast.observability.metrics import Metrics
from rillcast.serving.router import Router, ServedModel
from rillcast.stores.base import Mark, Restored
from rillcast.transports.base import Assignment, Polled, Source

log = logging.getLogger(__name__)


class Phase(enum.Enum):
    """Where a partition stands; see the module's docstring."""

    LOADING = "loading"
    REPLAYING = "replaying"
    LIVE = "live"


@dataclass(slots=True)
class _Partition:
    assignment: Assignment
    phase: Phase
    since: float
    live_from: int = 0


class Partitions:
    """Used from one thread."""

    def __init__(
        self,
        source: Source,
        lanes: Router,
        checkpoint: Checkpoint,
        metrics: Metrics,
        health: Health,
        *,
        recovery: Policy,
        start_at: Literal["earliest", "latest"],
        open_lane: Callable[[str], ServedModel | None],
        clock: Callable[[], float],
    ) -> None:
        """Own nothing yet.

        Args:
            source: where events come from.
            lanes: who serves what.
            checkpoint: which is told where a partition's state stands.
            metrics: counts and gauges.
            health: what the probes say.
            recovery: the setting `worker.recovery`.
            start_at: where a partition starts that the group has never committed.
            open_lane: returns a lane of the model with an id, None where it is not to be had.
            clock: monotonic seconds.
        """
        self._source = source
        self._lanes = lanes
        self._checkpoint = checkpoint
        self._metrics = metrics
        self._health = health
        self._recovery = recovery
        self._start_at = start_at
        self._open_lane = open_lane
        self._clock = clock
        self._partitions: dict[int, _Partition] = {}
        self._recovered: set[int] = set()

    @property
    def owned(self) -> list[int]:
        """Every partition that this member has."""
        return list(self._partitions)

    @property
    def live(self) -> set[int]:
        """Partitions whose results are published."""
        return {number for number, partition in self._partitions.items() if partition.phase is Phase.LIVE}

    @property
    def loading(self) -> bool:
        """Whether any partition's stored state is being read."""
        return any(partition.phase is Phase.LOADING for partition in self._partitions.values())

    @property
    def idle(self) -> bool:
        """Whether nothing but loading is going on."""
        return all(partition.phase is Phase.LOADING for partition in self._partitions.values())

    def assign(self, assignments: Iterable[Assignment]) -> Mapping[int, int | None]:
        """Return where to start reading; None = not before the stored state is loaded.

        Raises:
            RecoveryError: the committed offset lies outside what the source still has.
        """
        starts = dict[int, int | None]()
        for assignment in assignments:
            number, home = assignment.partition, self._lanes.home
            self._partitions[number] = _Partition(assignment, Phase.LOADING, self._clock())
            self._lanes.give(number, home)
            if home.restores is not None and self._policy(number) == "restore":
                home.restores.begin(number, "serving")
                starts[number] = None
            else:
                starts[number] = self._begin(assignment, None)
        self._health.assigned = True
        self.report()
        return starts

    def load(self, timeout_s: float) -> None:
        """Go on loading stored state, and start the partitions that have all of theirs.

        Raises:
            StateError: stored state is damaged.
            RecoveryError: it cannot be brought to the committed offset.
            TransportError: a store cannot be reached.
        """
        for lane in list(self._lanes.all):
            for restored in lane.restores.poll("serving", timeout_s) if lane.restores is not None else ():
                if self._belongs_to_another(lane, restored):
                    continue
                partition = self._partitions[restored.partition]
                position = self._begin(partition.assignment, restored)
                self._metrics.loaded(self._clock() - partition.since)
                self._source.resume_from(restored.partition, position)
        self.report()

    def note_live(self) -> None:
        """Notice partitions whose replay has reached the committed offset.

        The position decides, not the last record seen: a compacted record or a transaction marker may stand
        right before the committed offset, and then no record with the offset before it ever comes.
        """
        waiting = [number for number, partition in self._partitions.items() if partition.phase is Phase.REPLAYING]
        if waiting:
            positions = self._source.positions()
            for number in waiting:
                if positions.get(number, -1) >= self._partitions[number].live_from:
                    self._go_live(number)
            self.report()

    def drop(self, numbers: Iterable[int]) -> None:
        """Forget partitions and their states."""
        for number in numbers:
            if self._partitions.pop(number, None) is not None:
                lane = self._lanes.of(number)
                if lane.restores is not None:
                    lane.restores.cancel(number)
                self._lanes.drop(number)
        self.report()

    def are_live(self, polled: Polled) -> npt.NDArray[np.bool_]:
        """Return for each record whether its results are to be published."""
        live = np.ones(len(polled), dtype=bool)
        for number, partition in self._partitions.items():
            if partition.phase is not Phase.LIVE:
                live[(polled.partitions == number) & (polled.offsets < partition.live_from)] = False
        return live

    def reached(self, polled: Polled) -> set[int]:
        """Return the partitions of which something in the poll was published, so that it has to be committed."""
        reached = set()
        for number in np.unique(polled.partitions).tolist():
            last = int(polled.offsets[polled.partitions == number][-1])
            if last >= self._partitions[number].live_from:
                reached.add(number)
        return reached

    def report(self) -> None:
        """Say how many partitions are owned, and how many are live."""
        restoring = sum(partition.phase is not Phase.LIVE for partition in self._partitions.values())
        self._health.restored = restoring == 0
        self._metrics.assignment(len(self._partitions), restoring)

    def _belongs_to_another(self, lane: ServedModel, restored: Restored) -> bool:
        """Hand a partition that another model serves to that model, and return whether that was so."""
        number, claim = restored.partition, restored.claim
        if claim is None or claim.model_id == lane.model_id:
            return False
        claimed_by = claim.model_id
        where = f"{self._source.name}[{number}]"
        other = next((each for each in self._lanes.all if each.model_id == claimed_by), None)
        if other is None and (other := self._open_lane(claimed_by)) is None:
            log.warning(
                "%s: was served by model %s, which is not to be had; %s takes over by stepping what is retained",
                where,
                claimed_by,
                lane.model_id,
            )
            return False
        if other.restores is None:
            return False
        log.info("%s: served by model %s, which goes on with it until %s is warm", where, claimed_by, lane.model_id)
        self._lanes.give(number, other)
        other.restores.begin(number, "serving")
        return True

    def _begin(self, assignment: Assignment, restored: Restored | None) -> int:
        """Take in what was stored, if anything, and return the position to read from."""
        number = assignment.partition
        mark: Mark | None = restored.mark if restored is not None else None
        where = f"{self._source.name}[{number}]"
        if mark is not None and is_ahead(mark, assignment):
            assignment = self._ask_again(assignment)
        start = decide(where, assignment, mark, self._policy(number), self._start_at)
        self._recovered.add(number)
        if restored is not None and mark is not None:
            # A page that came after the mark belongs to streams that the replay brings back by itself.
            pages = [page for page in restored.pages if page.number < mark.pages]
            self._lanes.of(number).residents.load(number, pages, mark.watermark_ms, mark.arrivals)
        self._checkpoint.begin(number, start.position, new_life=start.new_life, found=restored)
        partition = self._partitions[number]
        partition.live_from = start.live_from
        partition.phase = Phase.REPLAYING
        if start.position >= start.live_from:
            self._go_live(number)
        return start.position

    def _ask_again(self, assignment: Assignment) -> Assignment:
        """Return what the brokers say now of a partition whose state was found ahead of its committed position.

        State is never stored ahead of it, but the position was asked for before the state was read. A member that lost
        its partitions without knowing it yet sees its successor's state; its commits will be refused.
        """
        asked = {each.partition: each for each in self._source.assignments()}
        return asked.get(assignment.partition, assignment)

    def _policy(self, number: int) -> Policy:
        """Return how a partition recovers: another way than `restore` is asked for once, not at every rebalance."""
        if self._lanes.home.store is not None and number in self._recovered:
            return "restore"
        return self._recovery

    def _go_live(self, number: int) -> None:
        partition = self._partitions[number]
        partition.phase = Phase.LIVE
        seconds = self._clock() - partition.since
        self._metrics.restored(seconds)
        log.info("%s[%d]: live after %.2f s", self._source.name, number, seconds)
