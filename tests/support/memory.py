"""An in-memory transport and a clock that tests set: crashes and rebalances written as data.

A `Log` outlives a process: it holds the events, the group's committed positions and the published records.
`MemorySink` makes records visible at flush, `MemoryTransactionalSink` together with the positions, at commit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rillcast.errors import DeliveryError, TransactionAborted, TransportError
from rillcast.transports.base import Assignment, AssignmentListener, Channel, Headers, Polled, Records


@dataclass
class Clock:
    """Seconds that pass only when a test says so; the wall clock is off by as many as it was stepped."""

    now: float = 0.0
    stepped_s: float = 0.0

    def __call__(self) -> float:
        return self.now


class Crash(BaseException):
    """The process dies here. Not an Exception, so that no handler of ours can swallow it."""


@dataclass
class Log:
    """A topic: partitions of (offset, key, value), and the committed position of one group. It outlives a worker."""

    partitions: dict[int, list[tuple[bytes | None, bytes | None]]] = field(default_factory=dict)
    committed: dict[int, int] = field(default_factory=dict)
    beginning: int = 0
    timestamp_ms: int = -1  # of every record
    # A value is bytes; only the dead letter of a tombstone has none.
    published: dict[Channel, list[tuple[bytes | None, Any, Headers]]] = field(
        default_factory=lambda: {channel: [] for channel in Channel}
    )

    def append(self, partition: int, value: bytes | None, key: bytes | None = None) -> None:
        self.partitions.setdefault(partition, []).append((key, value))


class MemorySource:
    """Reads a `Log`. Partitions are announced at the first poll; `schedule` adds rebalances before later polls."""

    def __init__(
        self, log: Log, *, owned: Sequence[int] | None = None, per_poll: Callable[[], int] = lambda: 10**9
    ) -> None:
        self._log = log
        self._owned = list(log.partitions) if owned is None else list(owned)
        self._per_poll = per_poll
        self._positions: dict[int, int] = {}
        self._paused: set[int] = set()
        self._listener: AssignmentListener | None = None
        self.before_poll: deque[Callable[[MemorySource], None]] = deque()
        self.fail_commit: Callable[[], None] = lambda: None
        self.closed = 0

    name = "memory"

    @property
    def exhausted(self) -> bool:
        return (
            self._listener is not None
            and bool(self._positions)
            and not self.before_poll
            and not self._paused
            and all(p >= len(self._log.partitions[n]) for n, p in self._positions.items())
        )

    def open(self, listener: AssignmentListener) -> None:
        self._listener = listener

    def assign(self, partitions: Sequence[int]) -> None:
        assert self._listener is not None
        self._positions |= dict.fromkeys(partitions, 0)
        starts = self._listener.on_assigned([self._assignment(n) for n in partitions])
        for number, position in starts.items():
            if position is None:
                self._paused.add(number)
            else:
                self.resume_from(number, position)

    def _assignment(self, number: int) -> Assignment:
        return Assignment(
            number, self._log.committed.get(number), self._log.beginning, len(self._log.partitions[number])
        )

    def revoke(self, partitions: Sequence[int]) -> None:
        assert self._listener is not None
        self._listener.on_revoked(partitions)
        for number in partitions:
            self._positions.pop(number)
            self._paused.discard(number)

    def lose(self, partitions: Sequence[int]) -> None:
        assert self._listener is not None
        for number in partitions:
            self._positions.pop(number)
            self._paused.discard(number)
        self._listener.on_lost(partitions)

    def pause(self, partitions: Sequence[int]) -> None:
        self._paused |= set(partitions) & set(self._positions)

    def resume_from(self, partition: int, position: int) -> None:
        if partition in self._positions:
            assert position >= self._log.beginning, "these events are not retained"
            self._positions[partition] = position
            self._paused.discard(partition)

    def assignments(self) -> Sequence[Assignment]:
        return [self._assignment(number) for number in self._positions]

    def group(self) -> object:
        return frozenset(self._positions)

    def poll(self, max_records: int, timeout_s: float) -> Polled:
        if self._owned:
            owned, self._owned = self._owned, []
            self.assign(owned)
        elif self.before_poll:
            self.before_poll.popleft()(self)
        room = min(max_records, max(1, self._per_poll()))
        reading = {number: at for number, at in self._positions.items() if number not in self._paused}
        polled, after = read_some(self._log, reading, room)
        self._positions |= after
        return polled

    def commit(self, positions: Mapping[int, int], timeout_s: float | None = None) -> None:
        self.fail_commit()
        if unowned := set(positions) - set(self._positions):
            raise TransportError(f"commit of partitions {unowned} that are not owned")
        self._log.committed |= positions

    def positions(self) -> Mapping[int, int]:
        return dict(self._positions)

    def lag(self) -> Mapping[int, int]:
        return {n: len(self._log.partitions[n]) - p for n, p in self._positions.items()}

    def close(self) -> None:
        self.closed += 1


class MemoryPartitionReader:
    """Reads a `Log` outside of its group. `fail` runs at every poll."""

    def __init__(self, log: Log, per_poll: Callable[[], int] = lambda: 10**9) -> None:
        self._log = log
        self._per_poll = per_poll
        self._positions: dict[int, int] = {}
        self.fail: Callable[[], None] = lambda: None
        self.started: list[tuple[int, int]] = []

    def extent(self, partition: int) -> tuple[int, int]:
        return self._log.beginning, len(self._log.partitions[partition])

    def offset_at(self, partition: int, timestamp_ms: int) -> int | None:
        return self._log.beginning if self._log.timestamp_ms >= timestamp_ms else None

    def follow(self, partition: int, position: int) -> None:
        self.started.append((partition, position))
        self._positions[partition] = position

    def read_to_end(self, partition: int) -> None:
        raise AssertionError("a model follows without an end")

    def ended(self) -> Sequence[int]:
        return ()

    def end(self, partition: int) -> int | None:
        return None

    def stop(self, partition: int) -> None:
        self._positions.pop(partition, None)

    def poll(self, max_records: int, timeout_s: float) -> Polled:
        self.fail()
        polled, self._positions = read_some(self._log, self._positions, min(max_records, max(1, self._per_poll())))
        return polled

    def positions(self) -> Mapping[int, int]:
        return dict(self._positions)

    def close(self) -> None:
        self._positions.clear()


def read_some(log: Log, positions: Mapping[int, int], room: int) -> tuple[Polled, dict[int, int]]:
    """Return at most `room` records from `positions` on, and the positions after them."""
    columns: list[tuple[int, int, bytes | None, bytes | None]] = []
    after = dict(positions)
    for number, position in positions.items():
        records = log.partitions[number][position : position + room - len(columns)]
        columns += [(number, position + i, key, value) for i, (key, value) in enumerate(records)]
        after[number] += len(records)
    polled = Polled(
        partitions=np.array([c[0] for c in columns], np.int64),
        offsets=np.array([c[1] for c in columns], np.int64),
        timestamps_ms=np.full(len(columns), log.timestamp_ms, np.int64),
        keys=[c[2] for c in columns],
        values=[c[3] for c in columns],
    )
    return polled, after


class MemorySink:
    """Publishes to a `Log` at flush: records that were not flushed die with the worker."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._pending: list[tuple[Channel, tuple[bytes | None, Any, Headers]]] = []
        self.fail_flush: Callable[[], None] = lambda: None
        self.largest: dict[Channel, int] = {}
        self.closed = 0

    def largest_record(self, channel: Channel) -> int | None:
        return self.largest.get(channel)

    def pending(self, channel: Channel) -> int:
        """Return how many records are not visible yet."""
        return sum(each is channel for each, _ in self._pending)

    def publish(self, channel: Channel, records: Records, partition: int | None = None) -> None:
        for row, (key, value) in enumerate(zip(records.keys, records.values, strict=True)):
            assert value is not None or channel is Channel.DEAD_LETTERS, "the worker publishes no tombstones"
            self._pending.append((channel, (key, value, records.headers[row] if records.headers else ())))

    def flush(self, timeout_s: float) -> None:
        self.fail_flush()
        for channel, record in self._pending:
            self._log.published[channel].append(record)
        self._pending.clear()

    def close(self) -> None:
        self.closed += 1


class MemoryTransactionalSink(MemorySink):
    """Publishes at commit, together with the positions; tests set `before_end` and `after_end` to fail."""

    def __init__(self, log: Log) -> None:
        super().__init__(log)
        self.before_end: Callable[[], None] = lambda: None
        self.after_end: Callable[[], None] = lambda: None

    def fail_at(self, commits: Container[int], *, ambiguous: bool) -> None:
        """Abort the commits of these numbers (from 1), before their end or, `ambiguous`, after it."""
        count = 0

        def fail() -> None:
            nonlocal count
            count += 1
            if count in commits:
                raise TransactionAborted("the coordinator is away")

        if ambiguous:
            self.after_end = fail
        else:
            self.before_end = fail

    def flush(self, timeout_s: float) -> None:
        raise AssertionError("a transactional sink is committed, not flushed")

    def commit(self, positions: Mapping[int, int], group: object, timeout_s: float | None = None) -> None:
        assert isinstance(group, frozenset)
        if unowned := set(positions) - group:
            self.abort()
            raise TransactionAborted(f"partitions {unowned} are not in the group's generation")
        try:
            self.before_end()
        except TransactionAborted:
            self.abort()
            raise
        super().flush(0)
        self._log.committed |= positions
        self.after_end()

    def abort(self) -> None:
        self._pending.clear()


def broken_flush() -> None:
    """Raise the error of a sink whose broker is unavailable."""
    raise DeliveryError("3 records were not acknowledged")
