"""The filter of `publish.on_change`: has a stream's forecast moved since it was last published?

Owns: the forecast that was last published of each stream, and the comparison. Does not know: codecs, sinks, models.

Two forecasts are compared period by period where both cover the time ahead: the last forecast for 18:00 with the new
one for 18:00. The yardstick is the outer interval that was published for the period, so that neither the unit nor the
level of a stream matters. A forecast has moved if for some period its middle quantile differs by more than `share` of
the interval's width. Once half of the horizon has passed, the next forecast counts as moved, so that a reader always
has half of it ahead.

Invariant: the memory depends on the events of a partition in their order, and begins empty with it: the first forecast
of every stream counts as moved. Nothing is stored. A stream that is silent for longer than the horizon is forgotten
when room is needed. That changes a decision only where a stream's events lag behind the others': its next forecast
counts as moved.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from rillcast.arrays import FloatArray, IntArray
from rillcast.bundle.bundle import BundleMetadata
from rillcast.codecs.forecasts.columns import ForecastColumns

_FIRST_ROWS: Final = 256
_NEVER: Final = np.iinfo(np.int64).min


class Changes:
    """Used from one thread. Memory per stream: 8 bytes per period of the horizon and about 150 more."""

    def __init__(
        self, metadata: BundleMetadata, share: float, count: Callable[[int], None] = lambda _unchanged: None
    ) -> None:
        """Begin with nothing published.

        Args:
            metadata: The description of the model that forecasts; forecasts are compared up to its horizon, which may
                be shorter than theirs.
            share: Share of the outer interval's width by which a forecast has to move. A bundle with one level has no
                such interval, so that any difference counts.
            count: Is called with the number of forecasts that were kept back.
        """
        if not share > 0:
            raise ValueError(f"share={share} must be above 0")
        self._count = count
        levels = np.asarray(metadata.quantiles)
        self._middle = int(np.abs(levels - 0.5).argmin())
        self._horizon = metadata.horizon
        self._frequency = metadata.frequency
        self._share = share
        self._row_of: dict[int, dict[str, int]] = {}  # by partition: equal ids in two partitions are two streams
        self._free: list[int] = []
        self._period: IntArray = np.empty(0, np.int64)
        self._median: FloatArray = np.empty((0, metadata.horizon), np.float32)
        self._room: FloatArray = np.empty((0, metadata.horizon), np.float32)

    def __len__(self) -> int:
        return sum(map(len, self._row_of.values()))

    def keep(self, forecasts: ForecastColumns) -> npt.NDArray[np.bool_]:
        """Return for each forecast whether it has moved; the next ones are compared with those that have.

        Revisions always count as moved: they correct forecasts that readers may have.
        """
        moved = np.zeros(len(forecasts), dtype=bool)
        if not len(forecasts):
            return moved
        rows = self._rows(forecasts)
        periods = self._frequency.period_of(forecasts.ds)
        forced = np.zeros(len(forecasts), bool) if forecasts.revision is None else forecasts.revision > 0
        # A wave has one forecast of a stream: its second one is compared after its first was noted, or not.
        for wave in _waves(rows):
            at = rows[wave]
            differs = forced[wave] | self._differ(
                at, periods[wave], forecasts.forecast[wave, : self._horizon, self._middle]
            )
            moved[wave] = differs
            self._note(at[differs], periods[wave][differs], forecasts.forecast[wave[differs], : self._horizon])
        self._count(int(np.count_nonzero(~moved)))
        return moved

    def forget(self, partition: int) -> None:
        """Forget a partition that leaves, is read again, or gets another model."""
        rows = list(self._row_of.pop(partition, {}).values())
        self._period[rows] = _NEVER
        self._free += rows

    def _differ(self, at: IntArray, periods: IntArray, median: FloatArray) -> npt.NDArray[np.bool_]:
        """Compare `(n, H)` middle quantiles, one forecast per row, with those that were published last."""
        known = self._period[at] != _NEVER
        passed = np.where(known, periods - self._period[at], self._horizon)
        old = (2 * passed > self._horizon) | (passed < 0)
        ahead = np.arange(self._horizon) + np.clip(passed, 0, self._horizon)[:, None]
        both = ahead < self._horizon
        place = at[:, None], np.minimum(ahead, self._horizon - 1)
        far = np.abs(median - self._median[place]) > self._room[place]
        found: npt.NDArray[np.bool_] = old | (far & both).any(axis=1)
        return found

    def _note(self, at: IntArray, periods: IntArray, forecast: FloatArray) -> None:
        self._period[at] = periods
        self._median[at] = forecast[:, :, self._middle]
        self._room[at] = self._share * (forecast[:, :, -1] - forecast[:, :, 0])

    def _rows(self, forecasts: ForecastColumns) -> IntArray:
        if len(self._free) < len(forecasts):
            self._make_room(len(forecasts), self._frequency.period_of(int(forecasts.ds.max())))
        rows = np.empty(len(forecasts), np.int64)
        for i, (partition, unique_id) in enumerate(
            zip(forecasts.partitions.tolist(), forecasts.unique_ids, strict=True)
        ):
            row_of = self._row_of.setdefault(partition, {})
            row = row_of.get(unique_id)
            if row is None:
                row = row_of[unique_id] = self._free.pop()
            rows[i] = row
        return rows

    def _make_room(self, rows: int, newest: int) -> None:
        """Make at least `rows` rows free: forget streams that are too old to matter, then grow if too few are free."""
        size = len(self._period)
        for row_of in self._row_of.values():
            for unique_id in [one for one, row in row_of.items() if newest - self._period[row] > self._horizon]:
                row = row_of.pop(unique_id)
                self._period[row] = _NEVER
                self._free.append(row)
        if len(self._free) >= max(rows, size // 2):
            return
        more = max(_FIRST_ROWS, size, rows)
        self._period = np.concatenate((self._period, np.full(more, _NEVER)))
        blank = np.zeros((more, self._horizon), np.float32)
        self._median, self._room = np.concatenate((self._median, blank)), np.concatenate((self._room, blank))
        self._free += range(size + more - 1, size - 1, -1)


def _waves(rows: IntArray) -> list[IntArray]:
    """Return the indices of the first forecast of each row, then those of the second ones, and so on."""
    order = np.argsort(rows, kind="stable")
    first = np.flatnonzero(np.diff(rows[order], prepend=-1))
    per_row = np.diff(first, append=rows.size)
    rank = np.empty(rows.size, np.int64)
    rank[order] = np.arange(rows.size) - np.repeat(first, per_row)
    by_rank = np.argsort(rank, kind="stable")
    ends = np.cumsum(np.bincount(rank))[:-1]
    return np.split(by_rank, ends)
