"""Limits a replay to a number of records a second.

Owns: the count of records that have passed. Does not know: what they are.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class Pacer:
    """Says how many records are due, at `rate` records a second since the first question; 0 = no limit."""

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._started: float | None = None
        self._passed = 0

    def due(self, most: int) -> int:
        """Return how many records may pass now, at most `most`."""
        if not self._rate:
            return most
        return max(0, min(most, int(self._elapsed() * self._rate) + 1 - self._passed))

    def wait_s(self) -> float:
        """Return the seconds until the next record is due."""
        if not self._rate:
            return 0.0
        return max(0.0, self._passed / self._rate - self._elapsed())

    def passed(self, count: int) -> None:
        """Count records that have passed."""
        self._passed += count

    def _elapsed(self) -> float:
        now = self._clock()
        if self._started is None:
            self._started = now
        return now - self._started
