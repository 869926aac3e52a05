"""Events to calls: batches in which no stream stands twice, each stream's order kept.

A call of the model gathers, steps and scatters its rows at once, so a stream may stand in it only once. A poll
in which a stream has k events therefore takes at least k calls: the first events of all streams, then the second
ones, and so on ("waves"). Owns only that arithmetic; knows nothing of streams, states or models.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pipeline.arrays import IntArray


def calls(slots: IntArray, max_rows: int) -> Iterator[IntArray]:
    """Split events into calls.

    Args:
        slots: `(n,)` int64, the slot of each event, in the order in which the events apply.
        max_rows: most events in one call.

    Yields:
        Indices into `slots`: every event exactly once; slots unique within a call; events of one slot in calls that
        follow each other in the order of the events.
    """
    if slots.size == 0:
        return
    wave = occurrence(slots)
    if wave.max() == 0:
        in_waves = np.arange(slots.size, dtype=np.int64)
        bounds = np.array([0, slots.size])
    else:
        in_waves = np.argsort(wave, kind="stable")
        bounds = np.concatenate(([0], np.cumsum(np.bincount(wave))))
    for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        for first in range(start, end, max_rows):
            yield in_waves[first : min(first + max_rows, end)]


def occurrence(slots: IntArray) -> IntArray:
    """Return for each event how many earlier events of `slots` have the same slot: `[7, 7, 3, 7] -> [0, 1, 0, 2]`."""
    order = np.argsort(slots, kind="stable")
    ordered = slots[order]
    is_first = np.empty(slots.size, dtype=bool)
    is_first[:1] = True
    np.not_equal(ordered[1:], ordered[:-1], out=is_first[1:])
    positions = np.arange(slots.size, dtype=np.int64)
    starts = np.maximum.accumulate(np.where(is_first, positions, 0))
    ranks: IntArray = np.empty_like(slots)
    ranks[order] = positions - starts
    return ranks
