"""Turns history into states before a service goes live, so that its first forecasts know their streams.

Owns: stepping history through the engine of each table of models, and storing the states: all pages of a partition and
its marks, as of the position at which the service begins. Does not know: where history comes from, whose state may be
replaced, or the command line.

Nothing of history is published. Unusable records are counted by reason, with one example.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from rillcast.arrays import FloatArray, IntArray
from rillcast.bundle.bundle import Status
from rillcast.codecs.observations.decoder import ObservationDecoder
from rillcast.durability.snapshot_schedule import mark_of
from rillcast.engine.periods import RawOutcome
from rillcast.engine.step_engine import Advanced, Outcome, StepEngine
from rillcast.events import EventBatch
from rillcast.stores.base import StateStore
from rillcast.transports.base import Polled

_CHUNK: Final = 5_000  # events that are stepped at once


@dataclass
class Taken:
    """What was made of the history.

    Attributes:
        events: Events that were read.
        stepped: Events that advanced their stream; the others were late, repeated, or left out.
        outcomes: Events by status, or by outcome if the model did not step them.
        unmatched: Events that no table of models takes.
        refused: Records that are not observations, by reason.
        example: Detail of the first record that was refused.
    """

    events: int = 0
    stepped: int = 0
    unmatched: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    example: str = ""


class Warming:
    """Steps history. Used from one thread."""

    def __init__(
        self,
        engines: Mapping[int, StepEngine],
        decoder: ObservationDecoder,
        partition_of: Callable[[str], int] | None,
    ) -> None:
        """Begin without streams.

        Args:
            engines: Engines without streams, by the number of their table of models in the settings; 0 = the only one.
                Events of other tables are left out.
            decoder: Decodes the records of the history, and divides the events among the tables.
            partition_of: Returns the partition of a stream; None = the partition of its record.
        """
        self._engines = engines
        self._decoder = decoder
        self._partition_of = partition_of
        self._warm: dict[tuple[int, int, str], bool] = {}
        self.taken = Taken()

    def take(self, polled: Polled) -> None:
        """Step some records, in their order."""
        self._step(self._decode(polled))

    def take_sorted(self, polls: Iterable[Polled]) -> None:
        """Step all records in the order of their times, as they would have come; they are held in memory."""
        batches = [batch for batch in map(self._decode, polls) if len(batch)]
        if not batches:
            return
        events = EventBatch(
            partitions=np.concatenate([batch.partitions for batch in batches]),
            offsets=np.concatenate([batch.offsets for batch in batches]),
            unique_ids=[unique_id for batch in batches for unique_id in batch.unique_ids],
            ds=np.concatenate([batch.ds for batch in batches]),
            y=np.concatenate([batch.y for batch in batches]),
            x=_joined([batch.x for batch in batches]),
            future=_joined([batch.future for batch in batches]),
            routes=_joined_routes([batch.routes for batch in batches]),
        )
        order = np.argsort(events.ds, kind="stable")
        for first in range(0, len(order), _CHUNK):
            rows = order[first : first + _CHUNK]
            self._step(replace(events.take(rows), offsets=np.arange(first, first + len(rows), dtype=np.int64)))

    def _decode(self, polled: Polled) -> EventBatch:
        events, rejections = self._decoder.decode(polled)
        for rejection in rejections:
            self.taken.refused[rejection.reason.value] += 1
            self.taken.example = self.taken.example or rejection.detail
        self.taken.unmatched += events.unmatched
        return events

    def _step(self, events: EventBatch) -> None:
        if not len(events):
            return
        # The timestamps of history do not say how fast new streams arrive, so the limit on these does not apply.
        events = replace(events, timestamps_ms=None)
        if (partition_of := self._partition_of) is not None:
            partitions = np.fromiter((partition_of(each) for each in events.unique_ids), np.int64, len(events))
            events = replace(events, partitions=partitions)
        for number, engine in self._engines.items():
            own = events if events.routes is None else events.take(np.flatnonzero(events.routes == number))
            self.taken.events += len(own)
            for advanced in engine.advance(own) if len(own) else ():
                self._note(number, advanced)

    def _note(self, number: int, advanced: Advanced) -> None:
        """Count what was stepped, and raw events that joined no period."""
        events, result = advanced.events, advanced.result
        if advanced.taken is not None:
            for outcome in RawOutcome:
                refused = int(np.count_nonzero(advanced.taken.outcome == outcome))
                if refused and outcome not in (RawOutcome.JOINED, RawOutcome.CORRECTED):
                    self.taken.outcomes[outcome.name.lower()] += refused
        rows = zip(
            events.partitions.tolist(), events.unique_ids, result.outcome.tolist(), result.status.tolist(), strict=True
        )
        for partition, unique_id, outcome, status in rows:
            stepped = outcome == Outcome.STEPPED
            name = Status(status).name if stepped else Outcome(outcome).name
            self.taken.outcomes[name.lower()] += 1
            if stepped and Status(status).advanced:
                self.taken.stepped += 1
                self._warm[number, partition, unique_id] = status != Status.WARMING_UP

    def streams(self, partition: int, number: int = 0) -> tuple[int, int]:
        """Return how many streams a table has in a partition, and how many of them lack some of the model's context."""
        warm = [warm for (table, at, _), warm in self._warm.items() if (table, at) == (number, partition)]
        return len(warm), warm.count(False)

    def store(self, stores: Mapping[int, StateStore], positions: Mapping[int, int], commit: Callable[[], None]) -> None:
        """Store every partition as of its position, each in one commit with the states of all tables.

        Args:
            stores: By the number of its table, a store that has nothing of these partitions.
            positions: By partition, the position at which the service begins.
            commit: Commits the transport of the stores.

        Raises:
            TransportError: A store cannot be written; the partitions before the failure are stored.
        """
        for partition, position in positions.items():
            for number, store in stores.items():
                residents = self._engines[number].residents
                store.stage(residents.export(partition, position), [mark_of(partition, position, residents)])
            commit()
            for store in stores.values():
                store.commit()


def _joined(parts: Sequence[FloatArray | None]) -> FloatArray | None:
    """Return a column of covariates; all batches have it or none does."""
    given = [part for part in parts if part is not None]
    return np.concatenate(given) if given else None


def _joined_routes(parts: Sequence[IntArray | None]) -> IntArray | None:
    given = [part for part in parts if part is not None]
    return np.concatenate(given) if given else None
