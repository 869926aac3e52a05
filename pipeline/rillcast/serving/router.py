"""The models that one worker runs, and which of them serves which partition.

A worker has one lane, its home, but for the time of a roll-out (`rillcast.rollout.rollout`). With more of them each
partition
is served by exactly one, and changes lanes only between two commits (`Checkpoint.commit(handovers=...)`), never within
a poll.

Owns: who serves what, and how a poll's events are shared out. Does not know: where models come from, when a partition
changes lanes, transports, commits.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from rillcast.engine.residents import Residents
from rillcast.engine.step_engine import StepEngine, StepResult
from rillcast.events import EventBatch
from rillcast.publishing.publisher import Publisher
from rillcast.stores.base import StateStore
from rillcast.stores.restores import Restores


@dataclass(frozen=True, slots=True, eq=False)
class ServedModel:
    """One model: its states, where they are stored, and what is told of its results.

    Attributes:
        engine: the states and the model.
        publisher: of its results.
        store: of its states; None = they are not stored.
        restores: of that store.
    """

    engine: StepEngine
    publisher: Publisher
    store: StateStore | None
    restores: Restores | None = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "restores", None if self.store is None else Restores(self.store))

    @property
    def model_id(self) -> str:
        """The identity of what it computes."""
        return self.engine.bundle.metadata.model_id

    @property
    def residents(self) -> Residents:
        """Its streams."""
        return self.engine.residents

    def close(self) -> None:
        """Let go of the store; may be called twice."""
        if self.store is not None:
            self.store.close()


class Part(NamedTuple):
    """What one lane made of its share of a poll.

    Attributes:
        lane: The served model.
        events: The events of its partitions.
        result: Row `i` belongs to event `i`.
    """

    lane: ServedModel
    events: EventBatch
    result: StepResult


class Router:
    """Used from one thread, but for `step`, which may run beside it while nothing is given or dropped."""

    def __init__(self, home: ServedModel) -> None:
        """Begin with one lane.

        Args:
            home: where partitions begin.
        """
        self.home = home
        self._serving: dict[int, ServedModel] = {}
        self._held: set[ServedModel] = set()
        self._retired_bytes = 0

    @property
    def all(self) -> Collection[ServedModel]:
        """The home lane, and whichever else serves a partition."""
        return dict.fromkeys([self.home, *self._serving.values()])

    @property
    def _open(self) -> Collection[ServedModel]:
        return dict.fromkeys([*self.all, *self._held])

    @property
    def bytes_staged(self) -> int:
        """Bytes handed to the stores so far."""
        return self._retired_bytes + sum(lane.store.bytes_staged for lane in self._open if lane.store is not None)

    def of(self, partition: int) -> ServedModel:
        """Return the lane that serves a partition."""
        return self._serving.get(partition, self.home)

    def give(self, partition: int, lane: ServedModel) -> None:
        """Let a lane serve a partition from the next event on; the states of the one before are left alone."""
        before = self._open
        self._serving[partition] = lane
        self._retire(before)

    def drop(self, partition: int) -> None:
        """Forget a partition and its states."""
        before = self._open
        self.of(partition).residents.release(partition)
        self.of(partition).publisher.forget(partition)
        self._serving.pop(partition, None)
        self._retire(before)

    def move_home(self, lane: ServedModel) -> None:
        """Let partitions begin with another lane; those that are served by the one before stay there."""
        before = self._open
        self.home = lane
        self._retire(before)

    def hold(self, lane: ServedModel) -> None:
        """Keep a lane open that may serve nothing: a model that is to take over, or in the shadow."""
        self._held.add(lane)

    def let_go(self, lane: ServedModel) -> None:
        """Hold a lane no more."""
        before = self._open
        self._held.discard(lane)
        self._retire(before)

    def step(self, events: EventBatch) -> list[Part]:
        """Step each event with the lane of its partition."""
        lanes = self.all
        if len(lanes) == 1:
            return [Part(self.home, events, self.home.engine.step(events))]
        shares: dict[ServedModel, list[int]] = {}
        for partition in np.unique(events.partitions).tolist():
            shares.setdefault(self.of(partition), []).append(partition)
        parts = []
        for lane, partitions in shares.items():
            share = events.take(np.flatnonzero(np.isin(events.partitions, partitions)))
            parts.append(Part(lane, share, lane.engine.step(share)))
        return parts

    def discard(self) -> None:
        """Drop what was staged for a commit that failed."""
        for lane in self._open:
            if lane.store is not None:
                lane.store.discard()

    def close(self) -> None:
        """Let go of every lane's store."""
        for lane in self._open:
            lane.close()

    def _retire(self, before: Collection[ServedModel]) -> None:
        """Close the lanes of `before` that nobody needs any more."""
        for lane in before:
            if lane not in self._open and lane.store is not None:
                self._retired_bytes += lane.store.bytes_staged
                lane.close()
