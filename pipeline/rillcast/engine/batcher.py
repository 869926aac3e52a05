"""Splits events into calls of the model: no stream appears twice in a call, and each stream's order is kept.

A call gathers, steps and scatters its rows at once, so a stream may appear in it only once. A poll in which a stream
has k events therefore takes k calls of the step: the first events of all streams, then the second ones ("waves"). Few
streams with many events each would make many small calls. The sequence graph takes T consecutive events of each of B
streams at once ("runs"), which is faster while B is small.

Owns: this arithmetic.
Does not know: streams, states, models.
Invariant: the result of an event does not depend on its batch, so two runs of the service may batch differently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from rillcast.arrays import IntArray


@dataclass(frozen=True, slots=True)
class Runs:
    """Conditions under which consecutive events of a stream go through the sequence graph together.

    Attributes:
        lengths: Lengths T of runs in events, decreasing, each at least 2; empty = no runs.
        max_rows: Largest number of events, B times T, in one call of runs. More than `max_rows / T` streams with T
            events each make full waves, which are as fast.
    """

    lengths: Sequence[int] = ()
    max_rows: int = 1024


DEFAULT_RUNS: Final = Runs(lengths=(256, 64, 16, 4), max_rows=1024)


@dataclass(frozen=True, slots=True)
class Batching:
    """Rules by which events are put into calls.

    Attributes:
        rows: Largest number of events in one call of the step.
        row_buckets: Batch sizes that calls are padded to with slot 0, the largest at least `rows`; empty = no padding.
            Providers that specialise on shapes (CUDA graphs) need few shapes.
        runs: When events of one stream go together, where the bundle has a sequence graph.
    """

    rows: int = 256
    row_buckets: Sequence[int] = ()
    runs: Runs = DEFAULT_RUNS

    def __post_init__(self) -> None:
        if self.row_buckets and max(self.row_buckets) < self.rows:
            raise ValueError(f"the largest of row_buckets {list(self.row_buckets)} is less than rows {self.rows}")


def calls(
    slots: IntArray, max_rows: int, runs: Runs, follows: Callable[[], npt.NDArray[np.bool_]]
) -> Iterator[IntArray]:
    """Split events into calls.

    Args:
        slots: `(n,)` int64, the slot of each event, in the order in which the events apply.
        max_rows: Largest number of events in one call of the step.
        runs: When events of one stream go together.
        follows: Returns `(n,)` bool, whether each event may continue a run after the event of its slot before it.
            Called only where runs may be faster.

    Yields:
        `(B, T)` indices into `slots`, every event exactly once. Slots are unique along B; T events of one slot stand in
        their order along T; calls come in the order of each slot's events.
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
    """Return the lengths for which there are runs, and too few of them to fill waves."""
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
    """Yield runs, and the events between them singly; all arguments are by position in `order`."""
    # A segment is consecutive events of one slot that follow each other; any other event is a segment of its own.
    starts = is_first | ~follows
    starts[1:] |= ~follows[:-1]
    segment = np.cumsum(starts) - 1
    first = np.flatnonzero(starts)
    within = np.arange(order.size, dtype=np.int64) - first[segment]
    size = np.diff(np.append(first, order.size))[segment]
    of_slot = segment - np.maximum.accumulate(np.where(is_first, segment, 0))

    # A segment is cut into the longest runs that fit, then into shorter ones, then into single events.
    length: IntArray = np.ones_like(within)
    rank: IntArray = np.empty_like(within)
    is_head = np.ones_like(starts)
    cut: IntArray = np.zeros_like(within)
    for candidate in lengths:
        end = cut + (size - cut) // candidate * candidate
        inside = (within >= cut) & (within < end)
        length[inside] = candidate
        rank[inside] = ((within - cut) // candidate)[inside]
        is_head[inside] = ((within - cut) % candidate == 0)[inside]
        cut = end
    rest = within >= cut
    rank[rest] = (within - cut)[rest]

    # Sort keys of a slot's pieces; pieces of different slots with equal keys go into one call.
    heads = np.flatnonzero(is_head)
    keys = np.stack([of_slot[heads], -length[heads], rank[heads]])
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
