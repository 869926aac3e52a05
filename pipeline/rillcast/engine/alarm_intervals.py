"""How many alarms of each stream are wanted, as the graph takes it: periods for one alarm, by slot.

Owns: which budget is a stream's, and the intervals of the slots. Does not know: how alarms are found, or settings.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

import numpy as np

from rillcast.arrays import FloatArray, IntArray
from rillcast.bundle.alarms import ONE_A_WEEK, slots_per_alarm
from rillcast.bundle.frequency import Frequency

Budget: TypeAlias = str | Mapping[str, str]
"""A rate of alarms for every stream, such as `1/week`, or rates by patterns of stream ids, of which the first counts.

A stream that no pattern fits has `1/week`. `off` and `0` mean no alarms."""

HOST_BYTES: Final = 4
"""Bytes of host memory for each slot, where budgets depend on the stream."""


class AlarmIntervals:
    """Intervals by slot. A slot's is looked up by its stream's id once, when the stream is stepped first."""

    def __init__(self, budget: Budget, frequency: Frequency, ids: Callable[[IntArray], list[str]]) -> None:
        """Begin without slots.

        Args:
            budget: The budgets.
            frequency: The bundle's.
            ids: Returns the streams in some slots.

        Raises:
            ValueError: A budget is no rate.
        """
        rates = {"*": budget} if isinstance(budget, str) else {**budget, "*": budget.get("*", ONE_A_WEEK)}
        self._intervals = [(pattern, slots_per_alarm(rate, frequency)) for pattern, rate in rates.items()]
        self._ids = ids
        self._of_all = self._intervals[0][1] if self._intervals[0][0] == "*" else None
        self._by_slot: FloatArray = np.empty(0, np.float32)  # NaN = not looked up

    def of(self, slots: IntArray) -> FloatArray:
        """Return the `(n,)` intervals of some slots in periods; 0 = no alarm is wanted."""
        if self._of_all is not None:
            return np.full(slots.size, self._of_all, np.float32)
        if (lacking := int(slots.max(initial=-1)) + 1 - self._by_slot.size) > 0:
            more = np.full(max(lacking, self._by_slot.size), np.nan, np.float32)
            self._by_slot = np.concatenate([self._by_slot, more])
        unknown = slots[np.isnan(self._by_slot[slots])]
        if unknown.size:
            self._by_slot[unknown] = [self._of_stream(name) for name in self._ids(unknown)]
        return self._by_slot[slots]

    def clear(self, slots: IntArray) -> None:
        """Forget the intervals of slots whose streams change."""
        self._by_slot[slots[slots < self._by_slot.size]] = np.nan

    def _of_stream(self, unique_id: str) -> float:
        return next(interval for pattern, interval in self._intervals if fnmatch.fnmatchcase(unique_id, pattern))
