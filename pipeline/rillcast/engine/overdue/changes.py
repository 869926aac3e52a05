"""That a stream falls silent, or that its silence is over: as it is found, and as it is told.

Does not know: when a stream is silent (`rillcast.engine.overdue.watch`), or who reads it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class OverdueChange(NamedTuple):
    """A stream falls silent, or its silence is over.

    Attributes:
        unique_id: The stream.
        over: Whether the silence is over: the stream had an event, or has left for good.
        partition: Partition of the record at which it is decided.
        offset: Offset of this record.
        row: The record in its poll.
        ds: Event time that the partition has reached, or time of the event that wakes the stream; milliseconds since
            the epoch, as `first` and `last`.
        first: Start of the first period that failed to come.
        last: Start of the last one so far.
        behind: Periods between the stream's newest event and its partition.
        allowed: Periods that it was allowed to be behind.
        interval: Periods in which one alarm of the stream is wanted.
    """

    unique_id: str
    over: bool
    partition: int
    offset: int
    row: int
    ds: int
    first: int
    last: int
    behind: int
    allowed: int
    interval: float


class Found(NamedTuple):
    """A change at the `at`-th record; `newest` is the stream's before, `last` the last period without events."""

    at: int
    over: bool
    unique_id: str
    slot: int
    newest: int
    allowed: int
    last: int
    behind: int
    ds: int
    interval: float


def told(found: Found, partition: int, offset: int, row: int, start_of: Callable[[int], int]) -> OverdueChange:
    """Return a change for those who read it.

    Args:
        found: The change.
        partition: Partition of the record at which it is decided.
        offset: Offset of this record.
        row: The record in its poll.
        start_of: Returns when a period begins.
    """
    first = found.newest + 1
    return OverdueChange(
        found.unique_id,
        found.over,
        partition,
        offset,
        row,
        found.ds,
        start_of(first),
        start_of(max(first, found.last)),
        found.behind,
        found.allowed,
        found.interval,
    )
