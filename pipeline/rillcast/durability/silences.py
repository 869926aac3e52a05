"""Partitions that fall silent: when their time goes on without events, and that a replay lets it go on alike.

The wall clock decides once. The decision names the position and the event time that is reached there; it is written
down with the commit that applies it (`rillcast.stores.base.Mark`), and a replay takes it from there.

Owns: for how long a partition has been silent, and where records of a poll have to wait for a decision before them.
Does not know: which periods close by a decision (`rillcast.engine.periods`), commits.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final, Protocol, TypeVar

import numpy as np

from rillcast.arrays import IntArray

_LONGEST_PASS_S: Final = 1.0  # a process that was stopped has not seen a partition being silent meanwhile


class Positioned(Protocol):
    """A decision, or what names one: `rillcast.engine.pages.Silence`."""

    @property
    def position(self) -> int:
        """Events below it come before the decision."""
        ...


D = TypeVar("D", bound=Positioned)


class SilenceClock:
    """Measures for how long partitions have had no records. Used from one thread."""

    def __init__(self, idle_s: float, clock: Callable[[], float]) -> None:
        """Begin without partitions.

        Args:
            idle_s: Seconds after which a partition is silent; 0 = never.
            clock: Monotonic seconds.
        """
        self._idle_s = idle_s
        self._clock = clock
        self._last = clock()
        self._silent_s: dict[int, float] = {}
        self._waiting: Mapping[int, int] = {}

    def passed(self, partitions: Iterable[int], polled: IntArray, lag: Callable[[], Mapping[int, int]]) -> None:
        """Let the time since the last call pass.

        Args:
            partitions: The live partitions.
            polled: Partitions of the records of this iteration.
            lag: Returns the records that wait, by partition.
        """
        if not self._idle_s:
            return
        now = self._clock()
        passed, self._last = min(_LONGEST_PASS_S, now - self._last), now
        with_records = set(np.unique(polled).tolist())
        self._waiting = lag()
        self._silent_s = {
            number: self._silent_s.get(number, 0.0) + (0.0 if self._waiting.get(number, 0) else passed)
            for number in partitions
            if number not in with_records
        }

    def silent(self) -> Mapping[int, float]:
        """Return for how many seconds each silent partition has been silent; where records wait, it may not be."""
        return {
            number: seconds
            for number, seconds in self._silent_s.items()
            if seconds >= self._idle_s > 0 and not self._waiting.get(number, 0)
        }


def cut(
    partitions: IntArray, offsets: IntArray, due: Mapping[int, Sequence[D]]
) -> Iterator[tuple[Sequence[tuple[int, D]], IntArray]]:
    """Cut records where a decision comes before them.

    Args:
        partitions: `(n,)` int64, partitions of the records.
        offsets: `(n,)` int64, their offsets, increasing within a partition.
        due: The decisions by partition, in the order of their positions.

    Yields:
        Decisions, and the rows that come after them. Decisions behind all records are left out.
    """
    part: IntArray = np.zeros(offsets.size, np.int64)
    before: dict[int, list[tuple[int, D]]] = {}
    for partition, silences in due.items():
        rows = np.flatnonzero(partitions == partition)
        nth = 0
        for silence in silences:
            behind = rows[offsets[rows] >= silence.position]
            if behind.size:
                part[behind] = nth = nth + 1
                before.setdefault(nth, []).append((partition, silence))
    for nth in range(int(part.max(initial=0)) + 1):
        yield before.get(nth, ()), np.flatnonzero(part == nth)


def all_due(partitions: Collection[int], due_of: Callable[[int], Sequence[D]]) -> dict[int, Sequence[D]]:
    """Return the decisions of some partitions; those without any are left out."""
    return {partition: due for partition in partitions if (due := due_of(partition))}
