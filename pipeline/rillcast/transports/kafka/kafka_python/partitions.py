"""The partitions that one member owns: the position of each, and fetched records that were not handed out yet.

Owns: positions, the backlog, which partitions are paused, and which changes the client has not been asked for yet. Does
not know: the client, threads, the worker.

Invariant: a record of a partition that is paused, or no longer owned, is never handed out. Neither is one from a call
of the client that began before the partition was paused, resumed or dropped.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any


class Partitions:
    """Used from one thread. `polling` says whether a call of the client is in flight; its records are outdated then."""

    def __init__(self) -> None:
        self.owned: set[int] = set()
        self.positions: dict[int, int] = {}  # of the owned partitions that are not paused
        self.to_pause: set[int] = set()  # paused here, not in the client yet
        self.to_seek: dict[int, int] = {}  # resumed here, not in the client yet
        self._backlog: dict[int, list[Any]] = {}
        self._fetched_to: dict[int, int] = {}
        self._outdated: set[int] = set()  # records of these from the call in flight are dropped

    @property
    def pending(self) -> bool:
        """Whether there are records to hand out."""
        return bool(self._backlog)

    def assign(self, number: int, start: int | None, end: int) -> int:
        """Own a partition that is read from `start`, or paused if that is None; return where the client has to seek to.

        A paused partition needs a position too, or the client asks for one by itself; it gets the end.
        """
        self.owned.add(number)
        if start is not None:
            self.positions[number] = start
            if number in self._outdated:  # it left and came back within one call
                self.to_seek[number] = start
        self._fetched_to[number] = end if start is None else start
        return self._fetched_to[number]

    def pause(self, numbers: Sequence[int], *, polling: bool) -> None:
        """Hand out nothing of these owned partitions until `resume_from`."""
        for number in self.owned.intersection(numbers):
            self._drop_fetched(number, polling=polling)
            self.positions.pop(number, None)
            self.to_seek.pop(number, None)
            self.to_pause.add(number)

    def resume_from(self, number: int, position: int, *, polling: bool) -> None:
        """Hand out an owned partition's records from `position` on."""
        if number in self.owned:
            self._drop_fetched(number, polling=polling)
            self.positions[number] = self._fetched_to[number] = self.to_seek[number] = position
            self.to_pause.discard(number)

    def drop(self, number: int, *, polling: bool) -> None:
        """Stop owning a partition."""
        self._drop_fetched(number, polling=polling)
        self.owned.discard(number)
        self.positions.pop(number, None)
        self.to_pause.discard(number)
        self.to_seek.pop(number, None)

    def current(self) -> Collection[int]:
        """Return the partitions whose records from the call that has just ended may be handed out."""
        outdated, self._outdated = self._outdated, set()
        return self.positions.keys() - outdated

    def take(self, records: Mapping[int, Sequence[Any]], positions: Mapping[int, int]) -> None:
        """Add fetched records of current partitions, and the positions where their next fetches begin.

        Those lie beyond transaction markers and compacted records, so they are the positions of partitions that have no
        records waiting.
        """
        for number, batch in records.items():
            self._backlog.setdefault(number, []).extend(batch)
        for number, position in positions.items():
            self._fetched_to[number] = position
            if number not in self._backlog:
                self.positions[number] = position

    def next_records(self, max_records: int) -> list[Any]:
        """Hand out at most `max_records` records."""
        taken: list[Any] = []
        for number in list(self._backlog):
            records = self._backlog[number]
            room = max_records - len(taken)
            taken += records[:room]
            if len(records) > room:
                self._backlog[number] = records[room:]
                self.positions[number] = records[room].offset
                break
            del self._backlog[number]
            self.positions[number] = self._fetched_to[number]
        return taken

    def clear(self) -> None:
        """Own nothing."""
        for remembered in (self.owned, self.positions, self.to_pause, self.to_seek, self._backlog):
            remembered.clear()

    def _drop_fetched(self, number: int, *, polling: bool) -> None:
        self._backlog.pop(number, None)
        if polling:
            self._outdated.add(number)
