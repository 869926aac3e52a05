"""Where a model begins that has no kept state: how much of a partition's events it is warmed up with.

Owns: the choice of the offset. Does not know: how events are read or stepped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

from rillcast.engine.residents import NO_WATERMARK
from rillcast.serving.router import Router
from rillcast.serving.served_model import ServedModel
from rillcast.transports.kafka.common.partition_reader import PartitionReader

_CONTEXTS: Final = 2  # contexts of events: allows for gaps, and for statistics that converge


class WarmUp:
    """Chooses where warm-ups begin."""

    def __init__(
        self, extent: Literal["context", "retained"], router: Router, wall_clock_ms: Callable[[], int]
    ) -> None:
        """Put the parts together.

        Args:
            extent: The setting `rollout.warm_up`.
            router: Knows the newest event of a partition.
            wall_clock_ms: Milliseconds since the epoch.
        """
        self._extent = extent
        self._router = router
        self._wall_clock_ms = wall_clock_ms

    def begin_at(self, model: ServedModel, reader: PartitionReader, partition: int) -> int:
        """Return the offset of the first event that warms a model up.

        Raises:
            TransportError: No broker answers.
        """
        beginning = reader.extent(partition)[0]
        if self._extent == "retained":
            return beginning
        metadata, newest = model.engine.bundle.metadata, self._wall_clock_ms()
        watermark = self._router.model_of(partition).residents.watermark(partition)
        if watermark != NO_WATERMARK:
            newest = min(newest, watermark)  # old data: by the records' timestamps or by the events' times
        found = reader.offset_at(partition, newest - _CONTEXTS * metadata.context * metadata.frequency.nominal_ms)
        return beginning if found is None else max(beginning, found)
