"""History into states, before a service goes live: so that its first forecasts know their streams.

Owns: stepping history through the engine (its sequence graph, where the bundle has one), and what is stored of it: all
pages of a partition and its mark, as of the position at which the service begins. Does not know: where history comes
from, who may be replaced, or the command line.

Nothing of history is published. Its records that cannot be used are counted, with the first reason of each kind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from rillcast.bundle.bundle import Status
from rillcast.codecs.observations.decoder import ObservationDecoder
from rillcast.engine.step_engine import Outcome, StepEngine
from rillcast.stores.base import Mark, StateStore
from rillcast.transports.base import Polled


@dataclass
class Taken:
    """What became of the history.

    Attributes:
        events: that were stepped.
        outcomes: of them, by status, or by outcome where they were not used.
        refused: records that are no observations, by reason.
        example: of the first record that was refused.
    """

    events: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    example: str = ""


class Warming:
    """The states that history makes. Used from one thread."""

    def __init__(self, engine: StepEngine, decoder: ObservationDecoder, place: Callable[[str], int] | None) -> None:
        """Begin with no stream.

        Args:
            engine: without streams.
            decoder: of the history's records.
            place: returns the partition of a stream; None = that of its record.
        """
        self._engine = engine
        self._decoder = decoder
        self._place = place
        self._warm: dict[tuple[int, str], bool] = {}
        self.taken = Taken()

    def take(self, polled: Polled) -> None:
        """Step some records, in their order."""
        events, rejections = self._decoder.decode(polled)
        for rejection in rejections:
            self.taken.refused[rejection.reason.value] += 1
            self.taken.example = self.taken.example or rejection.detail
        if not len(events):
            return
        # Timestamps of history say nothing of how fast streams come, so the limit on new ones does not apply.
        events = replace(events, timestamps_ms=None)
        if (place := self._place) is not None:
            partitions = np.fromiter((place(one) for one in events.unique_ids), np.int64, len(events))
            events = replace(events, partitions=partitions)
        result = self._engine.step(events)
        self.taken.events += len(events)
        rows = zip(
            events.partitions.tolist(), events.unique_ids, result.outcome.tolist(), result.status.tolist(), strict=True
        )
        for partition, unique_id, outcome, status in rows:
            stepped = outcome == Outcome.STEPPED
            name = Status(status).name if stepped else Outcome(outcome).name
            self.taken.outcomes[name.lower()] += 1
            if stepped and Status(status).advanced:
                self._warm[partition, unique_id] = status != Status.WARMING_UP

    def streams(self, partition: int) -> tuple[int, int]:
        """Return how many streams a partition has, and how many of them know less than the model's context."""
        warm = [warm for (number, _), warm in self._warm.items() if number == partition]
        return len(warm), warm.count(False)

    def store(self, store: StateStore, positions: Mapping[int, int], commit: Callable[[], None]) -> None:
        """Store every partition as of its position, each in one commit.

        Args:
            store: where to; it has nothing of them.
            positions: where the service begins, by partition.
            commit: of the store's transport.

        Raises:
            TransportError: the store cannot be written; the partitions before are stored.
        """
        residents = self._engine.residents
        for partition, position in positions.items():
            mark = Mark(partition, position, residents.watermark(partition), residents.num_pages(partition))
            store.stage(residents.export(partition, position), [mark])
            commit()
            store.commit()
