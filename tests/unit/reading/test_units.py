"""Unlikely times are named with the likely unit; likely ones are not doubted."""

from __future__ import annotations

import re

import pytest

from rillcast.reading.units import doubt

MAY = 1_714_521_600
HOUR_MS = 3_600_000
MILLIS = MAY * 1_000


@pytest.mark.parametrize(
    ("first", "last", "events", "streams", "periods", "message"),
    [
        (MAY, MAY + 29 * 3_600, 30, 1, 1, "29 events repeat .* as seconds .* 2024-05-01T00:00:00Z .* --unit s"),
        (MAY, MAY + 29 * 3_600, 30, 1, None, "as seconds"),
        (2_000, 2_029, 30, 1, 1, "they may be years: write them as dates, such as 2000-01-01"),
        (0, 29, 30, 1, 1, "row numbers, or another unit"),
        (0, 1, 2, 1, None, "row numbers"),
        (2_024_050_100, 2_024_050_115, 16, 1, 1, "dates and hours without separators"),
        (MAY // 60, MAY // 60 + 40, 40, 1, None, "another unit"),
        (MILLIS, MILLIS, 30, 2, 2, "30 events of 2 streams repeat one period each"),
    ],
)
def test_unlikely_times_are_doubted(
    first: int, last: int, events: int, streams: int, periods: int | None, message: str
) -> None:
    assert re.search(message, doubt(first, last, events, streams, periods, "--unit") or "")


@pytest.mark.parametrize(
    ("first", "last", "events", "streams", "periods"),
    [
        (MILLIS, MILLIS + 29 * HOUR_MS, 30, 1, 30),
        (0, 29 * HOUR_MS, 30, 1, 30),  # January 1970 by the hour
        (MILLIS, MILLIS, 30, 30, 30),  # one event of each stream
        (MILLIS, MILLIS + 60_000, 5, 1, 1),  # a few repeats
        (0, 0, 1, 1, 1),
        (-(10**12), 10**12, 100, 1, 50),
    ],
)
def test_likely_times_are_not(first: int, last: int, events: int, streams: int, periods: int) -> None:
    assert doubt(first, last, events, streams, periods, "--unit") is None
