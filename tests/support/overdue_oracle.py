"""Which streams fall silent and wake, one event at a time: the plain form of `rillcast.engine.overdue`."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rillcast.bundle.frequency import Frequency

Told = tuple[int, int, str, str, int, int]
"""Partition, offset, stream, change, and the first and last silent period."""
_Change = tuple[str, str, int, int]
"""The same without the place of the record."""
RISE = 1.6487213


@dataclass
class _Stream:
    newest: int
    newest_ms: int
    due: float = math.inf
    usual: float = 0.0
    events: int = 0
    since: int = 0


@dataclass(frozen=True)
class _Time:
    """Periods that a partition had reached before a record, and has reached with it."""

    before: int
    reached: int


@dataclass(frozen=True)
class Rule:
    """When a stream is silent; see `OverdueWatch`.

    Attributes:
        least: Fewest periods that every stream may be behind.
        interval: Periods in which one silence is wanted.
        warm: Periods with events from which a stream learns first.
        frequency: Length of a period.
        ttl_ms: After which a stream leaves; 0 = never.
        in_time: Whether an event counts only in a period that its partition has not passed.
    """

    least: int
    interval: float
    warm: int
    frequency: Frequency
    ttl_ms: int = 0
    in_time: bool = False

    def expected(self, partition: int, values: Sequence[bytes | None]) -> list[Told]:
        """Return what has to be told of one partition's records."""
        told: list[Told] = []
        streams: dict[str, _Stream] = {}
        reached_ms = json.loads(values[0] or b"")["ds"] if values else 0
        period_of = self.frequency.period_of
        for offset, value in enumerate(values):
            event = json.loads(value or b"")
            before_ms, reached_ms = reached_ms, max(reached_ms, event["ds"])
            time = _Time(period_of(before_ms), period_of(reached_ms))
            changes = self._leave(streams, time, before_ms, reached_ms)
            for name, stream in streams.items():
                if time.before <= stream.due < time.reached:
                    changes.append((name, "opened", stream.newest + 1, time.reached - 1))
            changes += self._step(streams, time, event["unique_id"], event["ds"])
            told += [(partition, offset, *change) for change in changes]
        return told

    def _leave(self, streams: dict[str, _Stream], time: _Time, before_ms: int, reached_ms: int) -> list[_Change]:
        """Remove the streams that leave, and return whose silence is over by that."""
        if not self.ttl_ms or reached_ms // (self.ttl_ms // 8) == before_ms // (self.ttl_ms // 8):
            return []
        gone = [name for name, stream in streams.items() if reached_ms - stream.newest_ms > self.ttl_ms]
        left = [(name, streams.pop(name)) for name in gone]
        silent = [(name, stream) for name, stream in left if stream.due < time.before]
        return [(name, "closed", stream.newest + 1, time.reached - 1) for name, stream in silent]

    def _step(self, streams: dict[str, _Stream], time: _Time, name: str, ds: int) -> list[_Change]:
        """Let an event of a stream come, and return that its silence is over, if it is."""
        period, new = self.frequency.period_of(ds), name not in streams
        if self.in_time and period < time.reached:
            return []
        own = streams.setdefault(name, _Stream(period, ds))
        own.newest_ms = max(own.newest_ms, ds)
        if not new and period <= own.newest:
            return []
        changes: list[_Change] = []
        if own.due < time.reached:
            changes.append((name, "closed", own.newest + 1, max(own.newest + 1, period - 1)))
            own.usual, own.since = float(np.float32(RISE * (own.due - own.newest))), period
        elif own.events < self.warm:
            gap = 0 if new else time.reached - own.newest
            own.usual, own.events = max(own.usual, float(np.float32(1.5 * gap))), own.events + 1
            own.since = period
        own.newest, own.due = period, math.inf
        if own.events >= self.warm:
            allowed = max(self.least, own.usual / (1 + (RISE - 1) * (period - own.since) / self.interval))
            if period + math.floor(allowed) >= time.reached:
                own.due = period + math.floor(allowed)
        return changes
