"""Partitions and streams without events: when the time of a partition goes on without them, and how many streams wait.

The clock decides that a partition is silent, once; the decision is written down with the commit that applies it, and a
replay takes it again at the same position (`rillcast.durability.silences`).

Owns: when a decision is taken and applied, before or after its commit; the counts of streams without events. Does not
know: what closes by a decision, or how results are published and commits made (`Loop`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from rillcast.arrays import IntArray
from rillcast.durability import silences
from rillcast.durability.assignment import Partitions
from rillcast.durability.checkpoint import Checkpoint
from rillcast.engine.pages import Silence
from rillcast.events import EventBatch
from rillcast.serving.router import ModelResult, Router
from rillcast.serving.routes import Routes
from rillcast.transports.base import Polled

_NONE: Final[IntArray] = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class Loop:
    """What the loop does for this module.

    Attributes:
        busy: Whether a poll is in flight in the step thread.
        finish_step: Waits for the step in flight and publishes its results.
        publish: Publishes results that no record of a poll has caused, if they are live.
        commit: Commits everything that is pending.
        lag: Returns the records that wait, by partition.
    """

    busy: Callable[[], bool]
    finish_step: Callable[[], object]
    publish: Callable[[int, Sequence[ModelResult], bool], None]
    commit: Callable[[], None]
    lag: Callable[[], Mapping[int, int]]


@dataclass(frozen=True, slots=True)
class _Decision:
    """A decision of one route."""

    router: Router
    silence: Silence

    @property
    def position(self) -> int:
        return self.silence.position


class SilentPartitions:
    """Used from the thread of the loop."""

    def __init__(
        self,
        loop: Loop,
        routes: Routes,
        partitions: Partitions,
        checkpoint: Checkpoint,
        idle_s: float,
        clock: Callable[[], float],
        *,
        repeats: bool,
    ) -> None:
        """Begin without a silent partition.

        Args:
            loop: What the loop does.
            routes: Which models serve which partition.
            partitions: The partitions of this member.
            checkpoint: Knows the positions, and writes decisions down.
            idle_s: Seconds after which a partition without records is silent; 0 = never.
            clock: Monotonic seconds.
            repeats: Whether delivery is at least once, so that a decision is committed before its results.
        """
        self._loop = loop
        self._routes = routes
        self._partitions = partitions
        self._checkpoint = checkpoint
        self._repeats = repeats
        self._clocks = [silences.SilenceClock(idle_s, clock) for _ in routes]
        self._seen: list[list[IntArray]] = [[] for _ in routes]

    def cut(self, polled: Polled) -> Iterator[Polled]:
        """Yield the records of a poll in parts; between them, decisions that a replay has come to are taken again."""
        due = self._due()
        if not due:
            yield polled
            return
        for decisions, rows in silences.cut(polled.partitions, polled.offsets, due):
            for partition, decision in decisions:
                self._apply(decision.router, partition, decision.silence)
            if rows.size:
                yield polled.take(rows)

    def saw(self, polled: Polled, events: EventBatch) -> None:
        """Note the records of this iteration; where there are routes, those that have events of a route."""
        if events.routes is None:
            self._seen[0].append(polled.partitions)
            return
        for number, seen in enumerate(self._seen):
            seen.append(events.partitions[events.routes == number])

    def advance(self) -> None:
        """Take decisions again that a replay has come to, and let the time of silent partitions go on."""
        loading = self._partitions.loading_numbers
        for partition, due in self._due().items():
            for decision in due:
                if partition not in loading and self._checkpoint.position(partition) >= decision.position:
                    self._apply(decision.router, partition, decision.silence)
        for router, clock, seen in zip(self._routes, self._clocks, self._seen, strict=True):
            clock.passed(self._partitions.live, np.concatenate([_NONE, *seen]), self._loop.lag)
            seen.clear()
            for partition, seconds in clock.silent().items():
                self._decide(router, partition, seconds)

    def _due(self) -> Mapping[int, Sequence[_Decision]]:
        """Return the decisions of restored partitions that the replay has not come to yet, in their order."""
        return silences.all_due(self._partitions.owned, self._due_in)

    def _due_in(self, partition: int) -> Sequence[_Decision]:
        due = [
            _Decision(router, silence)
            for router in self._routes
            for silence in router.model_of(partition).residents.silences.due(partition)
        ]
        return sorted(due, key=lambda decision: decision.position)

    def _decide(self, router: Router, partition: int, seconds: float) -> None:
        """Let the time of a partition go on by the seconds that it was silent, if that closes periods of a route."""
        model = router.model_of(partition)
        watermark_ms = model.residents.watermark(partition) + round(seconds * 1000)
        if self._loop.busy() or not model.engine.closes_by(partition, watermark_ms):
            return
        silence = Silence(self._checkpoint.position(partition), watermark_ms)
        model.residents.silences.know(partition, silence)
        self._checkpoint.decided(router.name, partition)
        # At least once, the decision is durable before its forecasts: a repeat is then the same. Exactly once, both are
        # in one transaction.
        if self._repeats:
            self._loop.commit()
            self._apply(router, partition, silence)
        else:
            self._apply(router, partition, silence, decided=True)
            self._loop.commit()

    def _apply(self, router: Router, partition: int, silence: Silence, *, decided: bool = False) -> None:
        """Let the time of a partition go on in one route, and publish what closes unless that was published before.

        A decision that is found in the store was committed with its forecasts, or, at least once, before them.
        """
        self._loop.finish_step()
        again = self._repeats and self._partitions.publishes_at(partition, silence.position)
        self._loop.publish(partition, router.silence(partition, silence), decided or again)
