"""Counts the scores of forecasts that their observation has met, by how many periods ahead they were made.

Owns: which column of a bundle's `score` goes to which series. Does not know: whose scores they are, or how the series
are described (`rillcast.observability.metric_table`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from prometheus_client import Counter

from rillcast.arrays import FloatArray


class ScoreCounters:
    """The counters that the columns of `score` are added to, by the names of the columns.

    `covered` is the score of the next period, `covered_6` that of the sixth. Columns of other names are left alone.
    """

    def __init__(
        self,
        counters: Mapping[str, Counter],
        names: Sequence[str],
        prefix: str = "rillcast_",
        labels: tuple[str, ...] = (),
    ) -> None:
        """Find the columns.

        Args:
            counters: Counters by name.
            names: Names of the columns.
            prefix: Prefix of the counters' names.
            labels: Values of the labels before the horizon.
        """
        self._columns: list[tuple[int, str, tuple[Counter, ...]]] = []
        for column, name in enumerate(names):
            kind, _, periods = name.partition("_")
            horizon = periods or "1"
            if not horizon.isdecimal():
                continue
            if kind == "covered":
                scored = counters[prefix + "scored_forecasts_total"].labels(*labels, horizon)
                covered = counters[prefix + "covered_forecasts_total"].labels(*labels, horizon)
                self._columns.append((column, kind, (scored, covered)))
            elif kind == "pinball":
                self._columns.append(
                    (column, kind, (counters[prefix + "pinball_loss_total"].labels(*labels, horizon),))
                )
            elif kind == "bias":
                error = counters[prefix + "forecast_error_total"]
                sides = error.labels(*labels, horizon, "over"), error.labels(*labels, horizon, "under")
                self._columns.append((column, kind, sides))
            elif kind == "naive":
                self._columns.append((column, kind, (counters[prefix + "naive_error_total"].labels(*labels, horizon),)))

    def add(self, score: FloatArray) -> None:
        """Add the scores of some events, `(n, K)`; NaN where nothing was scored."""
        # A row for each score: sums along the rows of `(n, K)` take ten times as long.
        scores = score.T.astype(np.float64, order="C")
        known = ~np.isnan(scores)
        scores[~known] = 0
        counts = np.count_nonzero(known, axis=1).tolist()
        sums = scores.sum(axis=1).tolist()
        over = np.maximum(scores, 0, out=scores).sum(axis=1).tolist()
        for column, kind, counters in self._columns:
            if not counts[column]:
                continue
            if kind == "covered":
                counters[0].inc(counts[column])
                counters[1].inc(over[column])
            elif kind == "bias":
                counters[0].inc(over[column])
                counters[1].inc(over[column] - sums[column])
            else:
                counters[0].inc(sums[column])
