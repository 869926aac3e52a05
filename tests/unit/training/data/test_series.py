from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from rillcast.errors import DataError
from rillcast_training.data.series import load, segments, to_series
from rillcast_training.model.lags import MEDIAN, SEASON

CSV = "unique_id,ds,y\nb,2024-01-01T01:00:00,2\na,2024-01-01T00:00:00,1.5\nb,2024-01-01T00:00:00,\n"
HOUR_2024 = 473_352  # hours from the epoch to 2024-01-01


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def as_csv(folder: Path) -> Path:
    return write(folder / "d.csv", CSV)


def as_csv_gz(folder: Path) -> Path:
    path = folder / "d.csv.gz"
    path.write_bytes(gzip.compress(CSV.encode()))
    return path


def as_jsonl(folder: Path) -> Path:
    rows = (
        '{"unique_id": "b", "ds": 1704070800000, "y": 2}\n'
        '{"unique_id": "a", "ds": 1704067200000, "y": 1.5}\n'
        '{"unique_id": "b", "ds": 1704067200000, "y": null}\n'
    )
    return write(folder / "d.jsonl", rows)


def as_parquet(folder: Path) -> Path:
    path = folder / "d.parquet"
    frame = pl.read_csv(as_csv(folder), try_parse_dates=True)
    frame.with_columns(pl.col("ds").dt.cast_time_unit("us")).write_parquet(path)
    return path


@pytest.mark.parametrize("written", [as_csv, as_csv_gz, as_jsonl, as_parquet])
def test_every_format_gives_the_same_series_in_time_order(written: Callable[[Path], Path], tmp_path: Path) -> None:
    a, b = load(written(tmp_path), "1h")
    assert (a.unique_id, a.periods.tolist(), a.y.tolist()) == ("a", [HOUR_2024], [1.5])
    assert (b.unique_id, b.periods.tolist()) == ("b", [HOUR_2024, HOUR_2024 + 1])
    np.testing.assert_array_equal(b.y, np.array([np.nan, 2], dtype=np.float32))


@pytest.mark.parametrize(
    ("ds", "period"),
    [
        ("2024-01-01", HOUR_2024),
        ("2024-01-01 05:59", HOUR_2024 + 5),
        ("2024-01-01T05:00:00.999Z", HOUR_2024 + 5),
        ("2024-01-01T05:00:00+02:00", HOUR_2024 + 3),
        ("2024-01-01T05:00-0330", HOUR_2024 + 8),
        ("1969-12-31T23:59:59.999", -1),
        ("-1", -1),
        ("1704067200000", HOUR_2024),
    ],
)
def test_times_are_read_as_utc_unless_they_say_otherwise(ds: str, period: int, tmp_path: Path) -> None:
    (series,) = load(write(tmp_path / "d.csv", f"unique_id,ds,y\na,{ds},1\n"), "1h")
    assert series.periods.tolist() == [period]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("unique_id,time,y\na,1,1\n", "no column 'ds'; found .*'time'"),
        ("unique_id,ds,y\n", "no rows"),
        (
            "unique_id,ds,y\na,1,1\na,yesterday,1\n",
            "column 'ds', row 2 .line 3.: found 'yesterday', expected a time: ISO 8601",
        ),
        ("unique_id,ds,y\na,2024-13-01T00:00:00,1\n", "column 'ds', row 1"),
        ("unique_id,ds,y\na,1,1\na,2,many\n", "column 'y', row 2 .line 3.: found 'many', expected a number"),
        ("unique_id,ds,y\na,1,inf\n", "column 'y', row 1 .line 2.: found 'inf', expected a finite number"),
        ("unique_id,ds,y\n,1,1\n", "column 'unique_id', row 1"),
        ("unique_id,ds,y\na,,1\n", "column 'ds', row 1"),
    ],
)
def test_an_unusable_file_is_refused_with_file_column_and_row(text: str, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "d.csv", text)
    with pytest.raises(DataError, match=message) as caught:
        load(path, "1h")
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["d.csv", "d.csv.gz", "d.jsonl", "d.parquet", "d.xlsx"])
def test_a_file_that_contradicts_its_name_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b"\x00\x01 neither this nor that \xff")
    with pytest.raises(DataError, match=name):
        load(path, "1h")


def test_a_missing_file_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        load(tmp_path / "none.csv", "1h")


def context_of(periods: list[int], y: list[float], rule: str = MEDIAN) -> list[list[float]]:
    values = np.array(y, dtype=np.float32)
    found = segments(np.array(periods), values, season=3, max_gap=10, rule=rule)
    return [segment.grid.tolist() for segment in found]


def test_late_and_repeated_events_drop_out() -> None:
    (segment,) = segments(np.array([5, 6, 6, 4, 7]), np.arange(5, dtype=np.float32), season=2, max_gap=5, rule=MEDIAN)
    assert segment.rows.tolist() == [0, 1, 4]
    assert segment.grid.tolist() == [0.0, 1.0, 4.0]


def test_a_gap_takes_the_value_of_one_season_before() -> None:
    assert context_of([0, 1, 2, 8], [10, 11, 12, 18]) == [[10, 11, 12, 10, 11, 12, 10, 11, 18]]


def test_a_gap_before_the_known_values_takes_the_newest_value() -> None:
    assert context_of([0, 1, 5], [10, 11, 15]) == [[10, 11, 11, 10, 11, 15]]


def test_a_gap_takes_the_median_of_newest_value_season_and_season_with_the_newest_deviation() -> None:
    # 14 lies 4 above the value of a season before. Medians of (14, 6, 10), (14, 12, 16) and (14, 14, 18).
    assert context_of([0, 1, 2, 3, 8], [10, 6, 12, 14, 7]) == [[10, 6, 12, 14, 10, 14, 14, 10, 7]]


def test_after_a_missing_value_its_own_deviation_is_the_newest() -> None:
    # Medians of (14, 6, 10), (10, 12, 16) and (12, 14, 14).
    assert context_of(list(range(8)), [10, 6, 12, 14, *[np.nan] * 3, 7]) == [[10, 6, 12, 14, 10, 12, 14, 7]]


def test_older_bundles_fill_with_the_value_of_a_season_before() -> None:
    assert context_of([0, 1, 2, 3, 8], [10, 6, 12, 14, 7], SEASON) == [[10, 6, 12, 14, 6, 12, 14, 6, 7]]


def test_what_is_filled_from_filled_values_does_not_grow() -> None:
    y = np.where(np.arange(700) % 4, np.nan, np.random.default_rng(0).uniform(-1, 1, 700))
    (grid,) = context_of(list(range(700)), y.tolist())
    assert np.abs(grid).max() <= 1


def test_a_missing_value_is_filled_like_a_gap_and_is_no_truth() -> None:
    (segment,) = segments(np.arange(5), np.array([1, 2, 3, np.nan, 5], np.float32), season=3, max_gap=5, rule=MEDIAN)
    assert segment.grid.tolist() == [1, 2, 3, 1, 5]
    assert np.isnan(segment.truth[3])
    assert segment.known.tolist() == [1, 2, 3, 4, 5]


def test_nothing_is_known_before_the_first_observation() -> None:
    (segment,) = segments(np.arange(4), np.array([np.nan, np.nan, 7, 8], np.float32), season=2, max_gap=5, rule=MEDIAN)
    assert segment.known.tolist() == [0, 0, 1, 2]
    assert segment.grid.tolist() == [0, 0, 7, 8]


def test_a_gap_beyond_the_limit_starts_a_new_segment() -> None:
    assert context_of([0, 1, 12], [1, 2, 3]) == [[1, 2], [3]]
    assert len(context_of([0, 1, 11], [1, 2, 3])) == 1


def test_series_whose_changes_float32_cannot_hold_are_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    n = 48
    levels = {"counter": 1e9, "other": 1e9, "plain": 10.0}
    frame = pl.DataFrame(
        {
            "unique_id": [name for name in levels for _ in range(n)],
            "ds": [hour * 3_600_000 for _ in levels for hour in range(n)],
            "y": [level + hour for level in levels.values() for hour in range(n)],
        }
    )
    to_series(frame, "1h")
    (message,) = [entry.getMessage() for entry in caplog.records]
    assert message.startswith("series 'counter': its values lie near 1e+09 and change by 1")
    assert message.endswith("1 more series are like it")
    caplog.clear()
    to_series(frame.filter(pl.col("unique_id") == "plain"), "1h")
    assert not caplog.records
