from __future__ import annotations

import datetime as dt

import numpy as np
import pytest

from rillcast.bundle.frequency import MONTH_MS, Frequency, canonical, parse

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def ms(year: int, month: int, day: int, hour: int = 0, minute: int = 0) -> int:
    return (dt.datetime(year, month, day, hour, minute, tzinfo=dt.UTC) - EPOCH) // dt.timedelta(milliseconds=1)


@pytest.mark.parametrize(
    ("freq", "expected", "spelling"),
    [
        ("1h", Frequency(3_600_000), "1h"),
        ("h", Frequency(3_600_000), "1h"),
        ("30min", Frequency(1_800_000), "30min"),
        ("5s", Frequency(5_000), "5s"),
        ("1D", Frequency(86_400_000), "1d"),
        ("250ms", Frequency(250), "250ms"),
        ("2w", Frequency(1_209_600_000), "2w"),
        ("1mo", Frequency(1, in_months=True), "1mo"),
        (" 3MO ", Frequency(3, in_months=True), "3mo"),
        ("1q", Frequency(3, in_months=True), "3mo"),
        ("2y", Frequency(24, in_months=True), "24mo"),
        ("MS", Frequency(1, in_months=True), "1mo"),  # pandas' capitals
        ("ms", Frequency(1), "1ms"),
        ("2QE", Frequency(6, in_months=True), "6mo"),
        ("YS", Frequency(12, in_months=True), "12mo"),
    ],
)
def test_spellings(freq: str, expected: Frequency, spelling: str) -> None:
    assert parse(freq) == expected
    assert canonical(freq) == spelling
    assert parse(spelling) == expected


@pytest.mark.parametrize("freq", ["", "0h", "0mo", "-1h", "1.5h", "1 month", "M", "m", "hourly", "qs", "1" * 10 + "d"])
def test_other_texts_are_refused(freq: str) -> None:
    for read in (parse, canonical):
        with pytest.raises(ValueError, match="positive whole number"):
            read(freq)


@pytest.mark.parametrize(
    ("freq", "date", "period", "start"),
    [
        ("1mo", (1970, 1, 1), 0, (1970, 1, 1)),
        ("1mo", (1969, 12, 31), -1, (1969, 12, 1)),
        ("1mo", (2024, 2, 29), 649, (2024, 2, 1)),
        ("3mo", (2024, 3, 31), 216, (2024, 1, 1)),
        ("3mo", (1969, 12, 31), -1, (1969, 10, 1)),
        ("12mo", (1899, 12, 31), -71, (1899, 1, 1)),
        ("5mo", (1969, 8, 1), -1, (1969, 8, 1)),
    ],
)
def test_calendar_periods_begin_with_a_month(
    freq: str, date: tuple[int, int, int], period: int, start: tuple[int, int, int]
) -> None:
    assert parse(freq).period_of(ms(*date)) == period
    assert parse(freq).start_of(period) == ms(*start)


def test_periods_ahead_are_those_of_the_calendar() -> None:
    ahead = parse("1mo").ahead(ms(2024, 1, 31, 23), np.arange(1, 4))
    assert ahead.tolist() == [ms(2024, 2, 1), ms(2024, 3, 1), ms(2024, 4, 1)]
    assert parse("1h").ahead(ms(2024, 1, 31, 23, 59), 2) == ms(2024, 2, 1, 1)


def test_a_nominal_year_is_the_mean_one() -> None:
    assert parse("12mo").nominal_ms == 12 * MONTH_MS == (ms(2400, 1, 1) - ms(2000, 1, 1)) // 400
    assert parse("2h").nominal_ms == 7_200_000
