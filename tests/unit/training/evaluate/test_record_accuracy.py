"""Published records are lined up with the right observations."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rillcast.errors import DataError
from rillcast_training.data.series import Series
from rillcast_training.evaluate.record_accuracy import PublishedAccuracy, score_records
from tests.support.live_views import HORIZON, HOUR_MS, QUANTILES, START_MS, metadata

LENGTH = 40
SPLIT_PERIOD = 30


def ramp() -> Series:
    """A series whose value is its index, with a season of one period by the metadata."""
    first = START_MS // HOUR_MS
    return Series("ramp", np.arange(first, first + LENGTH), np.arange(LENGTH, dtype=np.float32))


def write(path: Path, forecast: Callable[[int, int], float], spread: float) -> None:
    """Write a record per origin with the median `forecast(origin, step)` and an interval of `spread` either side."""
    with path.open("w") as file:
        for origin in range(LENGTH):
            ds = dt.datetime.fromtimestamp((START_MS + origin * HOUR_MS) / 1000, dt.UTC)
            medians = [forecast(origin, step) for step in range(1, HORIZON + 1)]
            quantiles = {
                str(level): [value + spread * np.sign(level - 0.5) for value in medians] for level in QUANTILES
            }
            file.write(json.dumps({"unique_id": "ramp", "ds": ds.isoformat(), "quantiles": quantiles}) + "\n")


def score(path: Path, stride: int = 1) -> PublishedAccuracy:
    split = dt.datetime.fromtimestamp((START_MS + SPLIT_PERIOD * HOUR_MS) / 1000, dt.UTC)
    return score_records(path, metadata(), [ramp()], split, stride)


def test_perfect_forecasts_have_no_error_and_cover_everything(tmp_path: Path) -> None:
    write(tmp_path / "f.jsonl", lambda origin, step: origin + step, spread=0.5)

    found = score(tmp_path / "f.jsonl")

    # The last origin has nothing after it; the two before it have two and one of three targets.
    assert found.origins == LENGTH - SPLIT_PERIOD - 1
    assert found.model.targets == 3 * (found.origins - 2) + 2 + 1
    assert found.model.mase == 0.0
    assert found.model.coverage == 1.0
    # The ramp climbs by its scale every season, so step h of the naive forecast is h scales short: 1, 2 and 3.
    assert found.seasonal_naive.mase == pytest.approx((9 * 1 + 8 * 2 + 7 * 3) / (9 + 8 + 7))


def test_a_forecast_that_is_one_period_off_is_noticed(tmp_path: Path) -> None:
    write(tmp_path / "f.jsonl", lambda origin, step: origin + step - 1, spread=0.5)

    found = score(tmp_path / "f.jsonl")

    assert found.model.mase == pytest.approx(1.0)
    assert found.model.coverage == 0.0


def test_only_every_stride_th_period_is_an_origin(tmp_path: Path) -> None:
    write(tmp_path / "f.jsonl", lambda origin, step: origin + step, spread=0.5)

    first = START_MS // HOUR_MS
    assert score(tmp_path / "f.jsonl", stride=2).origins == sum(
        (first + place) % 2 == 0 for place in range(SPLIT_PERIOD, LENGTH - 1)
    )


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    write(tmp_path / "f.jsonl", lambda origin, step: origin + step, spread=0.5)
    with (tmp_path / "f.jsonl").open("a") as file:
        file.write('{"unique_id": "ramp"\n')

    with pytest.raises(DataError, match=f"line {LENGTH + 1}: not a forecast record"):
        score(tmp_path / "f.jsonl")


def test_a_file_without_a_forecast_to_score_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "f.jsonl").touch()

    with pytest.raises(DataError, match="no forecast from 2024-05-02 on"):
        score(tmp_path / "f.jsonl")
