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

    def expected(  # noqa: C901  in one piece it is the rule as the page has it
        self, partition: int, values: Sequence[bytes | None]
    ) -> list[Told]:
        """Return what has to be told of one partition's records."""
        told: list[Told] = []
        streams: dict[str, _Stream] = {}
        reached_ms = before_ms = json.loads(values[0] or b"")["ds"] if values else 0
        period_of = self.frequency.period_of
        for offset, value in enumerate(values):
            event = json.loads(value or b"")
            before_ms, reached_ms = reached_ms, max(reached_ms, event["ds"])
            before, reached = period_of(before_ms), period_of(reached_ms)
            if self.ttl_ms and reached_ms // (self.ttl_ms // 8) > before_ms // (self.ttl_ms // 8):
                for name, stream in list(streams.items()):
                    if reached_ms - stream.newest_ms > self.ttl_ms:
                        if stream.due < before:
                            told.append((partition, offset, name, "closed", stream.newest + 1, reached - 1))
                        del streams[name]
            for name, stream in streams.items():
                if before <= stream.due < reached:
                    told.append((partition, offset, name, "opened", stream.newest + 1, reached - 1))
            period, name = period_of(event["ds"]), event["unique_id"]
            if self.in_time and period < reached:
                continue
            if name not in streams:
                own = streams[name] = _Stream(period, event["ds"])
                gap = 0
            else:
                own = streams[name]
                own.newest_ms = max(own.newest_ms, event["ds"])
                if period <= own.newest:
                    continue
                gap = reached - own.newest
            if own.due < reached:
                told.append((partition, offset, name, "closed", own.newest + 1, max(own.newest + 1, period - 1)))
                own.usual, own.since = float(np.float32(RISE * (own.due - own.newest))), period
            elif own.events < self.warm:
                own.usual, own.events = max(own.usual, float(np.float32(1.5 * gap))), own.events + 1
                own.since = period
            own.newest = period
            own.due = math.inf
            if own.events >= self.warm:
                allowed = max(self.least, own.usual / (1 + (RISE - 1) * (period - own.since) / self.interval))
                if period + math.floor(allowed) >= reached:
                    own.due = period + math.floor(allowed)
        return told
