"""What one commit contains, and in which order.

    1. every forecast and dead letter handed to the sink is durable      (sink.flush)
    2. the position after the last event that they cover is durable      (source.commit)

This order is at-least-once delivery: a crash between 1 and 2 publishes the same forecasts again after the restart,
with the same `source`, so that a consumer can drop the repeats; a crash before 1 loses nothing, since nothing
was committed. The other order would lose forecasts.

Owns: the positions not yet committed and when they are due. Does not know: events, models, metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from pipeline.arrays import IntArray
from pipeline.transports.base import Sink, Source


class Checkpoint:
    """The pending commit. Used from one thread."""

    def __init__(
        self, source: Source, sink: Sink, *, interval_s: float, flush_timeout_s: float, clock: Callable[[], float]
    ) -> None:
        self._source = source
        self._sink = sink
        self._interval_s = interval_s
        self._flush_timeout_s = flush_timeout_s
        self._clock = clock
        self._positions: dict[int, int] = {}
        self._due_at = clock() + interval_s

    @property
    def pending(self) -> bool:
        """Whether anything was processed since the last commit."""
        return bool(self._positions)

    @property
    def due(self) -> bool:
        """Whether there is something to commit and it is time."""
        return self.pending and self._clock() >= self._due_at

    def processed(self, partitions: IntArray, offsets: IntArray) -> None:
        """Note events whose results were handed to the sink; offsets increase within a partition."""
        for partition in np.unique(partitions).tolist():
            # A committed position is the next offset to read: the last processed one plus one.
            self._positions[partition] = int(offsets[partitions == partition][-1]) + 1

    def forget(self, partitions: Iterable[int]) -> None:
        """Drop positions of partitions that are no longer ours to commit."""
        for partition in partitions:
            self._positions.pop(partition, None)

    def commit(self) -> None:
        """Commit what is pending, in the order of this module's docstring.

        Raises:
            DeliveryError: step 1 failed; no position was committed.
            TransportError: step 2 failed; results may be published again.
        """
        positions = dict(self._positions)
        self._sink.flush(self._flush_timeout_s)
        if positions:
            self._source.commit(positions)
        self._positions.clear()
        self._due_at = self._clock() + self._interval_s
