"""Forecasts of the experts keep to the values that a stream can have, and other streams' forecasts stay as they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rillcast.arrays import AnyArray
from rillcast_training.model.experts.config import ExpertsConfig
from rillcast_training.model.experts.forecaster import ExpertForecaster
from tests.support.experts_oracle import ExpertsOracle

HOUR_MS = 3_600_000
CONFIG = ExpertsConfig("1h", 7, (6, 24))
SALES, RAIN, NIGHTS, SIGNED, NOISE, FEW, TURNS, LARGE = range(8)
LENGTH, TURN = 144, 110


def values() -> AnyArray:
    """`[LENGTH, 8]`: rare sales, rain, counts by day, whole numbers of either sign, noise, a level near zero, rain with
    one negative value, and large counts.
    """
    rng, hour = np.random.default_rng(2), np.arange(LENGTH)
    some = rng.random(LENGTH) < 0.35
    rain = some * rng.gamma(2.0, 1.3, LENGTH)
    y = np.stack(
        [
            some * (1 + rng.poisson(2, LENGTH)),
            rain,
            rng.poisson(9 * np.maximum(0, np.sin(2 * np.pi * hour / 24))),
            rng.integers(-3, 4, LENGTH),
            rng.normal(size=LENGTH),
            0.1 + np.abs(rng.normal(size=LENGTH)),
            np.where(hour == TURN, -0.5, rain),
            1e7 + np.round(3 * rng.normal(size=LENGTH)),  # float32 tells values there apart by 1
        ],
        axis=1,
    )
    return y.astype(np.float32)


def forecasts(y: AnyArray, bounds: float = 1.0) -> AnyArray:
    """`[T, streams, H, Q]` after each of the values `[T, streams]`."""
    forecaster, found = ExpertForecaster(CONFIG), []
    rows = forecaster.initial_rows(y.shape[1])
    with torch.no_grad():
        for hour, now in enumerate(torch.from_numpy(y)):
            ds = torch.full((y.shape[1],), hour * HOUR_MS)
            outputs, rows = forecaster.step(ds, now, rows, bounds=bounds)
            found.append(outputs.forecast.numpy())
    return np.stack(found)


@pytest.fixture(scope="module")
def kept() -> AnyArray:
    return forecasts(values())


@pytest.fixture(scope="module")
def free() -> AnyArray:
    return forecasts(values(), bounds=0.0)


def test_they_are_those_of_the_float64_oracle(kept: AnyArray) -> None:
    y = values()
    oracle, apart, seen = ExpertsOracle(y.shape[1], CONFIG), 0, 0
    for hour, now in enumerate(y):
        oracle.step(np.full(len(now), hour), now.astype(np.float64))
        if hour % 6 == 5:
            far = np.abs(kept[hour] - oracle.forecast())[:LARGE] > 1e-3
            assert not far[[RAIN, SIGNED, NOISE, FEW, TURNS]].any(), hour
            apart, seen = apart + far.sum(), seen + far.size
    assert apart <= 1e-3 * seen  # a half may be rounded either way


def test_a_stream_that_never_was_negative_has_no_quantile_below_zero(kept: AnyArray, free: AnyArray) -> None:
    assert free[60:, [SALES, RAIN, NIGHTS]].min() < -0.1
    assert kept[9:, [SALES, RAIN, NIGHTS, FEW]].min() == 0


def test_a_level_needs_as_many_values_as_its_probability_says(kept: AnyArray, free: AnyArray) -> None:
    """After n values of which none is negative, the next one is with probability 1 / (n + 2)."""
    levels = np.array(CONFIG.quantiles)
    for count in range(1, 12):
        held = levels * (count + 2) > 1
        now, unbounded = kept[count - 1, FEW], free[count - 1, FEW]
        np.testing.assert_array_equal(now[:, held], np.maximum(unbounded[:, held], 0))
        np.testing.assert_array_equal(now[:, ~held], unbounded[:, ~held])
    assert (free[:12, FEW] < 0).any()


def test_counts_have_whole_quantiles_and_rare_ones_the_median_zero(kept: AnyArray) -> None:
    counts = kept[9:, [SALES, NIGHTS]]
    np.testing.assert_array_equal(counts, np.round(counts))
    assert (kept[60:, SALES, :, :5] == 0).mean() > 0.99
    assert (kept[60:, SALES, :, 8] > 0).all()
    assert (kept[60:, RAIN, :, 4] == 0).mean() > 0.9
    assert not np.array_equal(kept[60:, RAIN], np.round(kept[60:, RAIN]))


def test_zeros_of_each_night_are_none_by_day(kept: AnyArray) -> None:
    hour = np.arange(90, LENGTH)[:, None] + 1 + np.arange(7)
    noon = (hour % 24 >= 4) & (hour % 24 <= 8)
    assert np.median(kept[90:, NIGHTS, :, 4][noon]) > 4


def test_other_streams_forecasts_are_untouched(kept: AnyArray, free: AnyArray) -> None:
    np.testing.assert_array_equal(kept[30:, [SIGNED, NOISE]], free[30:, [SIGNED, NOISE]])


def test_a_negative_value_ends_it_for_good(kept: AnyArray, free: AnyArray) -> None:
    np.testing.assert_array_equal(kept[:TURN, TURNS], kept[:TURN, RAIN])
    np.testing.assert_array_equal(kept[TURN:, TURNS], free[TURN:, TURNS])
    assert kept[TURN:, TURNS].min() < 0


def test_quantiles_do_not_cross_and_large_counts_keep_their_digits(kept: AnyArray, free: AnyArray) -> None:
    assert (np.diff(kept, axis=3) >= 0).all()
    np.testing.assert_array_equal(kept[30:, LARGE], free[30:, LARGE])
