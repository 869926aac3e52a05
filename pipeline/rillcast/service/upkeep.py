"""What the loop does now and then, beside events: it tells of lag, streams and records, and gives freed memory back.

Owns: when each is due. Does not know: what the loop does in between.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from rillcast.durability.assignment import Partitions
from rillcast.service import freed_memory
from rillcast.service.parts import Parts
from rillcast.service.stream_report import report_streams
from rillcast.serving.routes import Routes

log = logging.getLogger(__name__)

LAG_INTERVAL_S: Final = 5.0
SUMMARY_INTERVAL_S: Final = 30.0


class Upkeep:
    """Used from the thread of the loop."""

    def __init__(
        self,
        parts: Parts,
        routes: Routes,
        partitions: Partitions,
        overdue_periods: int,
        clock: Callable[[], float],
    ) -> None:
        """Be due at once.

        Args:
            parts: The source, and who is told.
            routes: The models and their streams.
            partitions: Those of the member.
            overdue_periods: Periods without an event after which a stream is overdue; 0 = none is.
            clock: Monotonic seconds.
        """
        self._parts = parts
        self._routes = routes
        self._partitions = partitions
        self._overdue_periods = overdue_periods
        self._clock = clock
        self._next_lag = self._next_summary = clock()

    @property
    def num_streams(self) -> int:
        """How many streams have a state."""
        return sum(model.residents.num_streams for model in self._routes.models)

    def do_what_is_due(self, events: int, *, busy: bool) -> None:
        """Report if it is time.

        Args:
            events: How many events were stepped since the start.
            busy: Whether a step is in flight, so that no state may be looked at.
        """
        now = self._clock()
        if now >= self._next_lag:
            self._next_lag = now + LAG_INTERVAL_S
            self._parts.metrics.lag(self._parts.source.lag())
            if not busy:
                for number, router in enumerate(self._routes):
                    report_streams(router, self._partitions.live, self._overdue_periods, looks=number == 0)
        if now >= self._next_summary:
            self._next_summary = now + SUMMARY_INTERVAL_S
            owned = len(self._partitions.owned)
            log.info("%d events, %d streams, %d partitions", events, self.num_streams, owned)
            for line in self._parts.summary.report():
                log.warning("%s", line)
            freed_memory.give_back()
