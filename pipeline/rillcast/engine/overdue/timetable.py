"""Slots by the period at whose end something is due for them.

Owns: the lists of slots, and which of them are past. Does not know: what is due, or whether an entry still counts.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

import numpy as np

from rillcast.arrays import IntArray


class Timetable:
    """A heap of periods, and the slots of each."""

    def __init__(self) -> None:
        self._slots: dict[int, list[IntArray]] = {}
        self._periods: list[int] = []

    def add(self, slots: IntArray, periods: IntArray) -> None:
        """Enter slots, `(n,)`, each under its period, `(n,)`."""
        order = np.argsort(periods, kind="stable")
        found, firsts = np.unique(periods[order], return_index=True)
        for period, listed in zip(found.tolist(), np.split(slots[order], firsts[1:]), strict=True):
            if period not in self._slots:
                heapq.heappush(self._periods, period)
                self._slots[period] = []
            self._slots[period].append(listed)

    def take_before(self, period: int) -> Iterator[tuple[int, IntArray]]:
        """Remove all entries before a period, and yield each of their periods with its slots, in increasing order."""
        while self._periods and self._periods[0] < period:
            past = heapq.heappop(self._periods)
            yield past, np.unique(np.concatenate(self._slots.pop(past)))
