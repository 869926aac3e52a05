"""A model that is stepped behind the one that serves: to take over from it, or in its shadow.

A partition that is followed begins with the state that was kept of the model, if the events since then are retained;
else with none, at the offset that the caller chooses. From there its events are read again, from a history beside the
source, and stepped, up to the position where it is served and never beyond. Nothing is published.

Owns: how far the model is in each partition. Does not know: who serves, when it takes over, what its results are
compared with.

Invariant: a partition whose lag is 0 has every event below its limit stepped once, and none from it on.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import numpy as np

from rillcast.codecs.observations.decoder import ObservationDecoder
from rillcast.engine.step_engine import StepResult
from rillcast.events import EventBatch
from rillcast.serving.router import ServedModel
from rillcast.stores.base import Restored
from rillcast.transports.kafka.common.partition_reader import PartitionReader

log = logging.getLogger(__name__)

_WAIT_S: Final = 0.005  # for a first record, where some must be there
_WAITING: Final = 8  # so many slices of events that may not be stepped yet are held at most
_FIRST_SLICE: Final = 256  # before it is known how long the model takes for one
_LEAST_SLICE: Final = 8
_SLICE_S: Final = 0.05  # what a slice is to take at most: so long the loop does nothing else


class Follower:
    """One model behind the serving one. Used from one thread."""

    def __init__(
        self,
        lane: ServedModel,
        history: PartitionReader,
        decoder: ObservationDecoder,
        begin_at: Callable[[ServedModel, PartitionReader, int], int],
        *,
        most_events: int,
        on_result: Callable[[ServedModel, EventBatch, StepResult], None] = lambda _lane, _events, _result: None,
    ) -> None:
        """Follow nothing yet.

        Args:
            lane: the model; what it serves already is left alone.
            history: where events are read again.
            decoder: as that of the serving path.
            begin_at: returns the offset from which a partition without kept state is followed.
            most_events: that a turn reads.
            on_result: is told of what was stepped.
        """
        self.lane = lane
        self._history = history
        self._decoder = decoder
        self._begin_at = begin_at
        self._most_events = most_events
        self.slice_events = min(most_events, _FIRST_SLICE)
        self._on_result = on_result
        self._loading: set[int] = set()
        self._following: set[int] = set()
        self._waiting: deque[EventBatch] = deque()

    @property
    def partitions(self) -> set[int]:
        """What is followed, or about to be."""
        return self._loading | self._following

    def follow(self, partition: int) -> None:
        """Begin with a partition, from kept state if there is any."""
        self._loading.add(partition)
        if self.lane.restores is not None:
            self.lane.restores.begin(partition, "following")

    def leave(self, partition: int, *, keep: bool = False) -> None:
        """Follow a partition no more; `keep` = its states are served from now on, else they are forgotten."""
        if partition in self._loading and self.lane.restores is not None:
            self.lane.restores.cancel(partition)
        self._loading.discard(partition)
        self._following.discard(partition)
        self._history.stop(partition)
        if not keep:
            self.lane.residents.release(partition)
        rest = [events.take(np.flatnonzero(events.partitions != partition)) for events in self._waiting]
        self._waiting = deque(events for events in rest if events.ds.size)

    def turn(self, limits: Mapping[int, int]) -> int:
        """Load kept state, or read and step a slice of events, and return how many were stepped.

        Args:
            limits: position of each followed partition at which it is served.

        Raises:
            RillcastError: the store, the history or the model failed; the caller lets go of this follower.
        """
        self._load(limits)
        stepped = self._step(limits)
        waiting = sum(events.ds.size for events in self._waiting)
        if waiting < _WAITING * self.slice_events and any(self.lags(limits).values()):
            polled = self._history.poll(self.slice_events, _WAIT_S)
            observed, _rejected = self._decoder.decode(polled)  # those that cannot be used were buried when served
            if len(observed):
                where = polled.partitions[observed.rows], polled.offsets[observed.rows]
                times = polled.timestamps_ms[observed.rows]
                self._waiting.append(
                    EventBatch(*where, observed.unique_ids, observed.ds, observed.y, observed.x, observed.future, times)
                )
                stepped += self._step(limits)
        return stepped

    def pace(self, stepped: int, seconds: float) -> None:
        """Read less or more in a turn, by how long the last one took."""
        if seconds > _SLICE_S:
            self.slice_events = min(self._most_events, max(_LEAST_SLICE, self.slice_events // 2))
        elif stepped >= self.slice_events // 2 and seconds < _SLICE_S / 2:
            self.slice_events = min(self._most_events, 2 * self.slice_events)

    def lags(self, limits: Mapping[int, int]) -> dict[int, int | None]:
        """Return how many offsets lie between the model's state and each limit; None while kept state is loaded."""
        positions: dict[int, int | None] = dict.fromkeys(self._loading)
        positions |= {number: at for number, at in self._history.positions().items() if number in self._following}
        for events in reversed(self._waiting):
            for number in np.unique(events.partitions).tolist():
                positions[number] = int(events.offsets[np.argmax(events.partitions == number)])
        return {number: None if at is None else max(0, limits[number] - at) for number, at in positions.items()}

    def close(self, partitions: Iterable[int] | None = None) -> None:
        """Follow nothing any more, and forget the states of what was followed."""
        for partition in self.partitions if partitions is None else set(partitions):
            self.leave(partition)

    def _load(self, limits: Mapping[int, int]) -> None:
        if self.lane.restores is None:
            for partition in list(self._loading):
                self._begin(Restored(partition, None, []), limits[partition])
        elif self._loading:
            for restored in self.lane.restores.poll("following", _WAIT_S):
                self._begin(restored, limits[restored.partition])

    def _begin(self, restored: Restored, limit: int) -> None:
        partition, mark = restored.partition, restored.mark
        if mark is not None and self._history.beginning(partition) <= mark.offset <= limit:
            pages = [page for page in restored.pages if page.number < mark.pages]
            self.lane.residents.load(partition, pages, mark.watermark_ms, mark.arrivals)
            position = mark.offset
        else:
            position = min(self._begin_at(self.lane, self._history, partition), limit)
        log.info(
            "model %s, partition %d: following from offset %d (%s) to %d",
            self.lane.model_id,
            partition,
            position,
            "kept state" if mark is not None and position == mark.offset else "no kept state",
            limit,
        )
        self._loading.discard(partition)
        self._following.add(partition)
        self._history.follow(partition, position)

    def _step(self, limits: Mapping[int, int]) -> int:
        """Step what is waiting, of each partition up to its limit."""
        stepped, rest = 0, deque[EventBatch]()
        for events in self._waiting:
            within = np.zeros(events.ds.size, np.bool_)
            for partition in np.unique(events.partitions).tolist():
                within |= (events.partitions == partition) & (events.offsets < limits[partition])
            now = events if within.all() else events.take(np.flatnonzero(within))
            if now.ds.size:
                self._on_result(self.lane, now, self.lane.engine.step(*now))
                stepped += now.ds.size
            if now.ds.size < events.ds.size:
                rest.append(events.take(np.flatnonzero(~within)))
        self._waiting = rest
        return stepped
