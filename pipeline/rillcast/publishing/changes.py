"""Has a stream's forecast moved since it was last published?

Owns: the forecast that was last published of each stream, and the comparison. Does not know: codecs, sinks, models.

Two forecasts are compared slot by slot of the time ahead that both cover, not step by step: what was said of 18:00 with
what is said of 18:00 now. The yardstick is the outer interval that was published for the slot, so that neither unit nor
level of the stream matters: a forecast has moved if for some slot its middle quantile differs by more than `share` of
the interval's width. A forecast of which half of the horizon has passed counts as moved, so that a reader always has
half of it ahead.

Invariant: what is kept depends on the events of a partition in their order, and begins empty with it: the first
forecast of every stream counts as moved. Nothing is stored. A stream that is silent for longer than the horizon is
forgotten when room is needed, which changes nothing but for a stream whose events lag behind the others': its next one
counts as moved.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from rillcast.arrays import FloatArray, IntArray
from rillcast.bundle.bundle import BundleMetadata
from rillcast.codecs.forecasts.columns import ForecastColumns

_FIRST_ROWS: Final = 256
_NEVER: Final = np.iinfo(np.int64).min


class Changes:
    """Used from one thread. Memory: 8 bytes per slot of the horizon and about 150 more, per stream."""

    def __init__(self, metadata: BundleMetadata, share: float) -> None:
        """Begin with nothing published.

        Args:
            metadata: of the model that forecasts.
            share: of the outer interval's width; a bundle with one level has none, so that any difference counts.
        """
        if not share > 0:
            raise ValueError(f"share={share} must be above 0")
        levels = np.asarray(metadata.quantiles)
        self._middle = int(np.abs(levels - 0.5).argmin())
        self._horizon = metadata.horizon
        self._frequency = metadata.frequency
        self._share = share
        self._row_of: dict[int, dict[str, int]] = {}  # by partition: equal ids in two partitions are two streams
        self._free: list[int] = []
        self._slot: IntArray = np.empty(0, np.int64)
        self._median: FloatArray = np.empty((0, metadata.horizon), np.float32)
        self._room: FloatArray = np.empty((0, metadata.horizon), np.float32)

    def __len__(self) -> int:
        return sum(map(len, self._row_of.values()))

    def moved(self, columns: ForecastColumns) -> npt.NDArray[np.bool_]:
        """Return for each forecast whether it has moved; those that have are taken for published.

        Args:
            columns: in the order in which they would be published. Revisions always count as moved: they correct what
                readers may have.
        """
        found = np.zeros(len(columns), dtype=bool)
        if not len(columns):
            return found
        rows = self._rows(columns)
        slots = self._frequency.period_of(columns.ds)
        forced = np.zeros(len(columns), bool) if columns.revision is None else columns.revision > 0
        # A stream stands in a wave once: its second forecast is compared with what became of its first.
        for wave in _waves(rows):
            at = rows[wave]
            differs = forced[wave] | self._differ(at, slots[wave], columns.forecast[wave, :, self._middle])
            found[wave] = differs
            self._keep(at[differs], slots[wave][differs], columns.forecast[wave[differs]])
        return found

    def forget(self, partition: int) -> None:
        """Begin anew with a partition that goes, or is read again."""
        rows = list(self._row_of.pop(partition, {}).values())
        self._slot[rows] = _NEVER
        self._free += rows

    def _differ(self, at: IntArray, slots: IntArray, median: FloatArray) -> npt.NDArray[np.bool_]:
        """Compare `(n, H)` middles, one per row, with what was published last."""
        known = self._slot[at] != _NEVER
        passed = np.where(known, slots - self._slot[at], self._horizon)
        old = (2 * passed > self._horizon) | (passed < 0)
        ahead = np.arange(self._horizon) + np.clip(passed, 0, self._horizon)[:, None]
        both = ahead < self._horizon
        place = at[:, None], np.minimum(ahead, self._horizon - 1)
        far = np.abs(median - self._median[place]) > self._room[place]
        found: npt.NDArray[np.bool_] = old | (far & both).any(axis=1)
        return found

    def _keep(self, at: IntArray, slots: IntArray, forecast: FloatArray) -> None:
        self._slot[at] = slots
        self._median[at] = forecast[:, :, self._middle]
        self._room[at] = self._share * (forecast[:, :, -1] - forecast[:, :, 0])

    def _rows(self, columns: ForecastColumns) -> IntArray:
        if len(self._free) < len(columns):
            self._make_room(len(columns), self._frequency.period_of(int(columns.ds.max())))
        rows = np.empty(len(columns), np.int64)
        for i, (partition, unique_id) in enumerate(zip(columns.partitions.tolist(), columns.unique_ids, strict=True)):
            row_of = self._row_of.setdefault(partition, {})
            row = row_of.get(unique_id)
            if row is None:
                row = row_of[unique_id] = self._free.pop()
            rows[i] = row
        return rows

    def _make_room(self, rows: int, newest: int) -> None:
        """Have `rows` free ones at least: forget what is too old to matter, and grow if that is not half of them."""
        size = len(self._slot)
        for row_of in self._row_of.values():
            for unique_id in [one for one, row in row_of.items() if newest - self._slot[row] > self._horizon]:
                row = row_of.pop(unique_id)
                self._slot[row] = _NEVER
                self._free.append(row)
        if len(self._free) >= max(rows, size // 2):
            return
        more = max(_FIRST_ROWS, size, rows)
        self._slot = np.concatenate((self._slot, np.full(more, _NEVER)))
        blank = np.zeros((more, self._horizon), np.float32)
        self._median, self._room = np.concatenate((self._median, blank)), np.concatenate((self._room, blank))
        self._free += range(size + more - 1, size - 1, -1)


def _waves(rows: IntArray) -> list[IntArray]:
    """Return the places of the first forecast of each row, then those of the second ones, and so on."""
    order = np.argsort(rows, kind="stable")
    first = np.flatnonzero(np.diff(rows[order], prepend=-1))
    per_row = np.diff(first, append=rows.size)
    rank = np.empty(rows.size, np.int64)
    rank[order] = np.arange(rows.size) - np.repeat(first, per_row)
    by_rank = np.argsort(rank, kind="stable")
    ends = np.cumsum(np.bincount(rank))[:-1]
    return np.split(by_rank, ends)
