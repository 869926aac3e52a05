"""A model that is stepped behind the one that serves: to take over from it, or as its shadow.

A partition begins with the kept state of the model if the events since then are retained. Otherwise it begins without
state, at the offset that the caller chooses. From there its events are read again, by a second reader of the source's
topic, and stepped, up to the position at which the partition is served and never beyond. Nothing is published.

Owns: how far the model is in each partition. Does not know: who serves, when the model takes over, what its results are
compared with.

Invariant: in a partition whose lag is 0, every event below its limit was stepped once, and no event from it on.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import numpy as np

from rillcast.durability.restorer import Purpose, Restorer, put_in_place
from rillcast.durability.silences import all_due, cut
from rillcast.engine.pages import Silence
from rillcast.engine.step_engine import StepResult
from rillcast.events import EventBatch
from rillcast.rollout.decoding import Decoder
from rillcast.serving.served_model import ServedModel
from rillcast.stores.base import Restored
from rillcast.transports.kafka.common.partition_reader import PartitionReader

log = logging.getLogger(__name__)

_WAIT_S: Final = 0.005  # for a first record, where there must be one
_WAITING: Final = 8  # most slices of events that are held because they may not be stepped yet


class Follower:
    """One model behind the serving one. Used from one thread."""

    def __init__(
        self,
        model: ServedModel,
        reader: PartitionReader,
        decoder: Decoder,
        restorer: Restorer,
        *,
        begin_at: Callable[[ServedModel, PartitionReader, int], int],
        on_result: Callable[[ServedModel, EventBatch, StepResult], None],
        silences: Callable[[int], Sequence[Silence]] = lambda _partition: (),
    ) -> None:
        """Follow nothing yet.

        Args:
            model: The model; the partitions that it serves already are left alone.
            reader: Reads events again; the follower closes it.
            decoder: Decodes records as on the serving path.
            restorer: Loads kept state.
            begin_at: Returns the offset from which a partition without kept state is followed.
            on_result: Called with everything that was stepped.
            silences: Returns the decisions on a silent partition that the serving model has taken.
        """
        self.model = model
        self._reader = reader
        self._decoder = decoder
        self._restorer = restorer
        self._begin_at = begin_at
        self._on_result = on_result
        self._silences = silences
        self._loading: set[int] = set()
        self._following: set[int] = set()
        self._waiting: deque[EventBatch] = deque()

    @property
    def partitions(self) -> set[int]:
        """The partitions that are followed or loaded."""
        return self._loading | self._following

    def follow(self, partition: int) -> None:
        """Begin with a partition, from kept state if there is any."""
        self._loading.add(partition)
        self._restorer.begin(self.model, partition, Purpose.FOLLOW)

    def leave(self, partition: int, *, keep: bool = False) -> None:
        """Stop following a partition; `keep` = its states are served from now on, otherwise they are forgotten."""
        if partition in self._loading:
            self._restorer.cancel(self.model, partition)
        self._loading.discard(partition)
        self._following.discard(partition)
        self._reader.stop(partition)
        if not keep:
            self.model.residents.release(partition)
        rest = [events.take(np.flatnonzero(events.partitions != partition)) for events in self._waiting]
        self._waiting = deque(events for events in rest if len(events))

    def restrict(self, partitions: Iterable[int]) -> None:
        """Stop following all but some partitions, and forget the states of the others."""
        for partition in self.partitions - set(partitions):
            self.leave(partition)

    def advance(self, limits: Mapping[int, int], most_events: int) -> int:
        """Load kept state, or read and step a slice of events, and return how many were stepped.

        Args:
            limits: The position at which each followed partition is served.
            most_events: Events of a slice.

        Raises:
            RillcastError: The store, the reader or the model failed; the caller closes this follower.
        """
        self._load(limits)
        stepped = self._step(limits)
        waiting = sum(len(events) for events in self._waiting)
        if waiting < _WAITING * most_events and any(self.lags(limits).values()):
            polled = self._reader.poll(most_events, _WAIT_S)
            events, _rejected = self._decoder.decode(polled)  # the serving path dead-letters unusable records
            if len(events):
                self._waiting.append(events)
                stepped += self._step(limits)
        return stepped

    def lags(self, limits: Mapping[int, int]) -> dict[int, int | None]:
        """Return how many offsets lie between the model's state and each limit; None while kept state is loaded.

        A decision on a silent partition that has to be taken first counts like an event.
        """
        lags = self._lags_of_events(limits)
        for number, lag in lags.items():
            if lag == 0 and any(each.position <= limits[number] for each in self._due(number)):
                lags[number] = 1
        return lags

    def _lags_of_events(self, limits: Mapping[int, int]) -> dict[int, int | None]:
        positions: dict[int, int | None] = dict.fromkeys(self._loading)
        positions |= {number: at for number, at in self._reader.positions().items() if number in self._following}
        for events in reversed(self._waiting):
            for number in np.unique(events.partitions).tolist():
                positions[number] = int(events.offsets[np.argmax(events.partitions == number)])
        return {number: None if at is None else max(0, limits[number] - at) for number, at in positions.items()}

    def close(self) -> None:
        """Stop following, forget the states of what was followed, and close the reader."""
        self.restrict(())
        self._reader.close()

    def _load(self, limits: Mapping[int, int]) -> None:
        if self._loading:
            for restored in self._restorer.poll(self.model, Purpose.FOLLOW, _WAIT_S):
                self._begin(restored, limits[restored.partition])

    def _begin(self, restored: Restored, limit: int) -> None:
        partition, mark = restored.partition, restored.mark
        kept = mark is not None and self._reader.extent(partition)[0] <= mark.offset <= limit
        if mark is not None and kept:
            put_in_place(self.model, restored)
            position = mark.offset
        else:
            position = min(self._begin_at(self.model, self._reader, partition), limit)
        log.info(
            "model %s, partition %d: following from offset %d (%s) to %d",
            self.model.model_id,
            partition,
            position,
            "kept state" if kept else "no kept state",
            limit,
        )
        self._loading.discard(partition)
        self._following.add(partition)
        self._reader.follow(partition, position)

    def _step(self, limits: Mapping[int, int]) -> int:
        """Step the events that wait, of each partition up to its limit."""
        stepped, rest = 0, deque[EventBatch]()
        for events in self._waiting:
            within = np.zeros(len(events), np.bool_)
            for partition in np.unique(events.partitions).tolist():
                within |= (events.partitions == partition) & (events.offsets < limits[partition])
            now = events if within.all() else events.take(np.flatnonzero(within))
            if len(now):
                self._advance(now)
                stepped += len(now)
            if len(now) < len(events):
                rest.append(events.take(np.flatnonzero(~within)))
        self._waiting = rest
        self._go_on_in_silence(limits)
        return stepped

    def _advance(self, events: EventBatch) -> None:
        """Step events, with the decisions on silent partitions where the serving model took them."""
        due = all_due(np.unique(events.partitions).tolist(), self._due)
        parts = cut(events.partitions, events.offsets, due) if due else (((), None),)
        for decisions, rows in parts:
            for partition, silence in decisions:
                self._silence(partition, silence)
            for advanced in self.model.engine.advance(events if rows is None else events.take(rows)):
                self._on_result(self.model, advanced.events, advanced.result)

    def _go_on_in_silence(self, limits: Mapping[int, int]) -> None:
        """Take the decisions at the limits of partitions that are followed up to them."""
        if due := all_due(self._following, self._due):
            lags = self._lags_of_events(limits)
            for partition, silences in due.items():
                for silence in silences:
                    if lags[partition] == 0 and silence.position <= limits[partition]:
                        self._silence(partition, silence)

    def _due(self, partition: int) -> Sequence[Silence]:
        """Return the decisions of the serving model that this one has not taken yet."""
        silent_to = self.model.residents.silences.applied_to(partition)
        return [each for each in self._silences(partition) if each.watermark_ms > silent_to]

    def _silence(self, partition: int, silence: Silence) -> None:
        if (advanced := self.model.engine.silence(partition, silence)) is not None:
            self._on_result(self.model, advanced.events, advanced.result)
