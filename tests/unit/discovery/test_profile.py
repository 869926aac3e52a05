"""The figures of a sample, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from rillcast.discovery.profile import profile
from rillcast.events import EventBatch

START_MS = 1_764_547_200_000
HOUR_MS = 3_600_000


def test_the_figures_of_two_partitions() -> None:
    rows = [  # partition, stream, hours, value, timestamp in seconds
        (0, "a", 0, 1.0, 0), (0, "a", 1, 0.0, 10), (0, "a", 2, 2.0, 20), (0, "b", 0, 5.0, 30), (0, "a", 1, 0.0, 40),
        (1, "c", 0, np.nan, 0), (1, "c", 24, 3.0, 5), (1, "c", 48, 3.0, 10), (1, "a", 3, 1.0, 20),
    ]  # fmt: skip
    events = EventBatch(
        np.array([row[0] for row in rows]),
        np.arange(len(rows)),
        [row[1] for row in rows],
        np.array([START_MS + row[2] * HOUR_MS for row in rows]),
        np.array([row[3] for row in rows], np.float32),
        timestamps_ms=np.array([START_MS + row[4] * 1_000 for row in rows]),
    )
    found = profile(events)
    assert (found.events, found.streams, found.partitions) == (9, 3, 2)
    assert (found.first_ms, found.last_ms) == (START_MS, START_MS + 48 * HOUR_MS)
    assert found.frequencies == {"1h": 0.5, "1d": 0.5}
    assert found.repeated == 1 / 9
    assert found.late == 1 / 9  # the second event of a at one o'clock; that of another partition is not behind
    assert found.lateness_ms == HOUR_MS
    assert found.disorder_ms == 45 * HOUR_MS
    assert found.missing == pytest.approx(1 / 9)
    assert found.zeros == 2 / 8
    assert found.whole
    assert not found.negative
    assert found.constant is None
    assert found.streams_per_partition == (2, 2)
    assert (found.split, found.split_example) == (1, "a")
    assert found.events_per_s == 4 / 40 + 3 / 20


def test_records_of_one_moment_have_no_rate() -> None:
    events = EventBatch.of(["a", "a"], [1, 2], [1.0, 1.0])
    assert profile(events).events_per_s == 0.0
    assert profile(events).constant == 1.0
