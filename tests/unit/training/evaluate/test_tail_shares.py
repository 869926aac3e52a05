from __future__ import annotations

import numpy as np

from rillcast.bundle.bundle import Status
from rillcast_training.evaluate.tail_shares import SETTLED, TailShares


def test_only_settled_regular_events_count_however_they_come() -> None:
    """Two streams in turns; the first has gaps and unrated events among its later ones."""
    rng = np.random.default_rng(0)
    n = 2 * SETTLED + 60
    series, status = np.arange(n) % 2, np.full(n, Status.OK, np.int8)
    anomaly = rng.random(n).astype(np.float32)
    anomaly[-10::2] = np.nan
    status[-20:-10:2] = Status.GAP
    whole, parts = TailShares(2), TailShares(2)
    whole.add(series, status, anomaly)
    for first in range(0, n, 7):
        part = slice(first, first + 7)
        parts.add(series[part], status[part], anomaly[part])
    assert whole.events == parts.events == 60 - 5 - 5
    counted = anomaly[2 * SETTLED :][(status == Status.OK)[2 * SETTLED :]]
    counted = counted[~np.isnan(counted)]
    assert whole.shares()["0.9"] == parts.shares()["0.9"] == (counted > 0.9).mean()
    assert "50 observations after 500" in whole.table()


def test_short_streams_have_no_shares_and_the_table_says_why() -> None:
    tails = TailShares(1)
    tails.add(np.zeros(20, np.int64), np.zeros(20, np.int8), np.ones(20, np.float32))
    assert np.isnan(tails.shares()["0.99"])
    assert "no stream has more than 500 rated events" in tails.table()
