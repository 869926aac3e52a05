"""Which events were counted before: after a transaction that came to nothing, events are stepped and published again.

Owns: how far each partition was counted by this process. Does not know: what is counted, or why an event comes again.
Nothing of it is ever forgotten, also of a partition that another member has meanwhile: an event is counted here once.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from rillcast.arrays import IntArray


class Counted:
    """Used from one thread."""

    def __init__(self) -> None:
        """Begin with nothing counted."""
        self._to: dict[int, int] = {}

    def new(self, partitions: IntArray, offsets: IntArray) -> npt.NDArray[np.bool_]:
        """Return `(n,)` for each event whether it was not counted before; all of them are from now on.

        Args:
            partitions: `(n,)` int64.
            offsets: `(n,)` int64, increasing within a partition.
        """
        new = np.ones(offsets.size, np.bool_)
        starts = [0, *(np.flatnonzero(np.diff(partitions)) + 1).tolist(), offsets.size]
        for first, end in pairwise(starts):
            if end > first:
                partition, to = int(partitions[first]), int(offsets[end - 1]) + 1
                known = self._to.get(partition, 0)
                if offsets[first] < known:
                    new[first:end] = offsets[first:end] >= known
                self._to[partition] = max(known, to)
        return new
