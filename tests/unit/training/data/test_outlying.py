from __future__ import annotations

import logging
from collections.abc import Sequence

import polars as pl
import pytest

from rillcast_training.data.outlying import iso, outlying_rows
from rillcast_training.data.series import newest, to_series

HOUR = 3_600_000
START = 1_714_521_600_000  # 2024-05-01
YEAR_2099 = 4_102_358_400_000
REGULAR = [START + n * HOUR for n in range(100)]


def table(**streams: Sequence[int]) -> pl.DataFrame:
    rows = [(name, ds, float(n % 7)) for name, times in streams.items() for n, ds in enumerate(sorted(times))]
    return pl.DataFrame(rows, schema=["unique_id", "ds", "y"], orient="row")


def left_out(**streams: Sequence[int]) -> list[tuple[str, int]]:
    frame = table(**streams)
    return frame.filter(outlying_rows(frame)).select("unique_id", "ds").rows()


@pytest.mark.parametrize("wrong", [[YEAR_2099], [0], [0, YEAR_2099], [REGULAR[-1] + 250 * HOUR]])
def test_a_date_far_from_all_others_is_outlying(wrong: list[int]) -> None:
    assert left_out(a=[*REGULAR, *wrong]) == [("a", ds) for ds in wrong]
    assert left_out(a=REGULAR, b=[*REGULAR, *wrong], c=REGULAR[50:]) == [("b", ds) for ds in wrong]


def test_a_stream_of_nothing_but_an_outlying_date_is_left_out() -> None:
    assert left_out(a=REGULAR, b=[YEAR_2099]) == [("b", YEAR_2099)]


@pytest.mark.parametrize(
    "times",
    [
        REGULAR,
        [*REGULAR, REGULAR[-1] + 50 * HOUR],  # a gap shorter than the data
        [*REGULAR, *(ds + 300 * HOUR for ds in REGULAR)],  # two halves
        [*REGULAR, REGULAR[-1] + 250 * HOUR, REGULAR[-1] + 251 * HOUR],  # more than a hundredth
        [START, START + HOUR, YEAR_2099],  # too few to know
        [START] * 100 + [YEAR_2099],
    ],
)
def test_other_gaps_are_data(times: list[int]) -> None:
    assert left_out(a=times) == []


def test_outlying_events_are_named_and_no_part_of_the_series(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        (one,) = to_series(table(a=[*REGULAR, YEAR_2099]), "1h")
    assert len(one.periods) == 100
    assert "2099-12-31T00:00:00Z of stream 'a'" in caplog.text
    early, late = newest([one], 10)
    assert [len(part[0].periods) for part in (early, late)] == [90, 10]


def test_a_time_of_any_year_can_be_shown() -> None:
    assert iso(0) == "1970-01-01T00:00:00Z"
    assert iso(1_714_521_600_000_000) == "56301-01-11T00:00:00Z"
