"""Events to calls: batches in which no stream stands twice, each stream's order kept.

A call of the model gathers, steps and scatters its rows at once, so a stream may stand in it only once. A poll in which
a stream has k events therefore takes k calls of the step: the first events of all streams, then the second ones, and so
on ("waves"). Few streams with many events each would make many small calls; the sequence graph takes T consecutive
events of each of B streams at once ("runs"), which pays while B is small.

Owns only that arithmetic; knows nothing of streams, states or models. What comes of an event does not depend on how it
was batched, so nothing here has to be the same from one run of the service to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rillcast.arrays import IntArray


@dataclass(frozen=True, slots=True)
class Runs:
    """When runs are worth it.

    Attributes:
        lengths: numbers of events T that a stream's run is cut to, decreasing, each at least 2; none = never runs.
        max_rows: most events, B times T, in one call of runs. More streams than `max_rows / T` with so many events
            make full waves, which are as fast.
    """

    lengths: Sequence[int] = ()
    max_rows: int = 1024


def calls(
    slots: IntArray, max_rows: int, runs: Runs, follows: Callable[[], npt.NDArray[np.bool_]]
) -> Iterator[IntArray]:
    """Split events into calls.

    Args:
        slots: `(n,)` int64, the slot of each event, in the order in which the events apply.
        max_rows: most events in one call of the step.
        runs: when events of one stream go together.
        follows: tells for each event whether it may stand in a run behind the event of its slot before it, `(n,)`;
            called only where runs may be worth it.

    Yields:
        `(B, T)` indices into `slots`: every event exactly once; slots unique along B; T events of one slot in their
        order along T; events of one slot in calls that follow each other in the order of the events.
    """
    if slots.size == 0:
        return
    order = np.argsort(slots, kind="stable")
    ordered = slots[order]
    is_first = np.empty(slots.size, dtype=bool)
    is_first[:1] = True
    np.not_equal(ordered[1:], ordered[:-1], out=is_first[1:])
    if is_first.all():
        yield from _cut(np.arange(slots.size, dtype=np.int64)[:, None], max_rows)
        return
    lengths = _worthwhile(is_first, runs)
    if not lengths:
        yield from _waves(order, is_first, max_rows)
        return
    yield from _with_runs(order, is_first, follows()[order], lengths, max_rows, runs.max_rows)


def _worthwhile(is_first: npt.NDArray[np.bool_], runs: Runs) -> list[int]:
    """Return the lengths for which there are runs, but not so many that waves would be full."""
    events = np.diff(np.append(np.flatnonzero(is_first), is_first.size))
    worthwhile = []
    for length in runs.lengths:
        streams = np.count_nonzero(events >= length)
        if streams > 0 and streams * length <= runs.max_rows:
            worthwhile.append(length)
    return worthwhile


def _waves(order: IntArray, is_first: npt.NDArray[np.bool_], max_rows: int) -> Iterator[IntArray]:
    """Yield the first events of all slots, then the second ones, and so on, each in the order of the events."""
    positions = np.arange(order.size, dtype=np.int64)
    wave: IntArray = np.empty_like(order)
    wave[order] = positions - np.maximum.accumulate(np.where(is_first, positions, 0))
    in_waves = np.argsort(wave, kind="stable")
    bounds = np.cumsum(np.bincount(wave)).tolist()
    for first, last in zip([0, *bounds[:-1]], bounds, strict=True):
        yield from _cut(in_waves[first:last, None], max_rows)


def _with_runs(
    order: IntArray,
    is_first: npt.NDArray[np.bool_],
    follows: npt.NDArray[np.bool_],
    lengths: Sequence[int],
    max_rows: int,
    max_run_rows: int,
) -> Iterator[IntArray]:
    """Yield runs and what is left between them; all arguments by position in `order`."""
    # A segment is a stretch of one slot's events that follow each other; an event that does not stands alone.
    starts = is_first | ~follows
    starts[1:] |= ~follows[:-1]
    segment = np.cumsum(starts) - 1
    first = np.flatnonzero(starts)
    within = np.arange(order.size, dtype=np.int64) - first[segment]
    size = np.diff(np.append(first, order.size))[segment]
    of_slot = segment - np.maximum.accumulate(np.where(is_first, segment, 0))

    # A segment is cut to as many of the longest runs as fit, then of the next, and single events at last.
    length: IntArray = np.ones_like(within)
    turn: IntArray = np.empty_like(within)
    is_head = np.ones_like(starts)
    cut: IntArray = np.zeros_like(within)
    for candidate in lengths:
        end = cut + (size - cut) // candidate * candidate
        inside = (within >= cut) & (within < end)
        length[inside] = candidate
        turn[inside] = ((within - cut) // candidate)[inside]
        is_head[inside] = ((within - cut) % candidate == 0)[inside]
        cut = end
    rest = within >= cut
    turn[rest] = (within - cut)[rest]

    # What a slot's pieces are ordered by, and equal for pieces of different slots that go into one call.
    heads = np.flatnonzero(is_head)
    keys = np.stack([of_slot[heads], -length[heads], turn[heads]])
    by_key = np.lexsort(keys[::-1])
    heads, keys = heads[by_key], keys[:, by_key]
    bounds = np.flatnonzero((keys[:, 1:] != keys[:, :-1]).any(axis=0)) + 1
    for group in np.split(heads, bounds):
        events = int(length[group[0]])
        rows = order[group[:, None] + np.arange(events)]
        if events == 1:
            rows.sort(axis=0)
            yield from _cut(rows, max_rows)
        else:
            yield from _cut(rows, max(1, max_run_rows // events))


def _cut(rows: IntArray, max_rows: int) -> Iterator[IntArray]:
    for first in range(0, len(rows), max_rows):
        yield rows[first : first + max_rows]
