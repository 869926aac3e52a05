from __future__ import annotations

import numpy as np
import pytest

from rillcast.errors import DataError
from rillcast.figures import reasons_of
from rillcast_training.evaluate.accuracy import SeasonalNaive, accuracy

LEVELS = (0.1, 0.5, 0.9)


def test_figures_of_a_forecast_worked_out_by_hand() -> None:
    actual = np.array([[10.0, 20.0], [100.0, np.nan]])
    forecast = np.array([[[8.0, 11.0, 12.0], [21.0, 22.0, 23.0]], [[90.0, 100.0, 110.0], [0.0, 0.0, 0.0]]])
    figures = accuracy(actual, forecast, LEVELS, np.array([0, 1]), np.array([2.0, 5.0]))
    assert figures.mase == pytest.approx(((1 + 2) / 2 / 2 + 0 / 5) / 2)
    assert figures.smape == pytest.approx(((200 / 21 + 400 / 42) / 2 + 0) / 2)
    pinball = [0.1 * 2 + 0.9 * 1 + 0.1 * 10, 0.5 * 1 + 0.5 * 2 + 0, 0.1 * 2 + 0.1 * 3 + 0.1 * 10]
    assert figures.wql == pytest.approx(2 * np.mean(pinball) / 130)
    assert figures.coverage == pytest.approx(2 / 3)
    assert figures.nominal_coverage == pytest.approx(0.8)
    assert (figures.targets, figures.series, figures.series_without_scale) == (3, 2, 0)


def test_series_without_scale_counts_nowhere_in_mase() -> None:
    actual = np.array([[10.0], [10.0]])
    forecast = np.array([[[9.0, 11.0, 12.0]], [[9.0, 17.0, 18.0]]])
    figures = accuracy(actual, forecast, LEVELS, np.array([0, 1]), np.array([1.0, np.nan]))
    assert figures.mase == pytest.approx(1.0)
    assert figures.series_without_scale == 1


@pytest.mark.parametrize(
    ("actual", "median", "smape"),
    [
        ([0.0, 0.0], [2e-22, -3e-22], 0.0),  # the forecasts of a stream of zeros
        ([0.0, 0.0], [1e-9, 0.0], 100.0),
        ([0.0, 1e6], [0.01, 1e6], 0.0),  # float32 has a spacing of 0.06 at a million
        ([0.0, 1e6], [1.0, 1e6], 100.0),
        ([1e-30, 1e-30], [2e-30, 2e-22], 0.0),
        ([1e-12, 1e-12], [3e-12, 1e-12], 50.0),
    ],
)
def test_a_forecast_that_float32_cannot_tell_from_zero_is_no_error(
    actual: list[float], median: list[float], smape: float
) -> None:
    forecast = np.repeat(np.array([median])[..., None], 3, axis=2)
    figures = accuracy(np.array([actual]), forecast, LEVELS, np.array([0]), np.array([np.nan]))
    assert figures.smape == pytest.approx(smape)


def test_a_figure_without_a_value_says_why() -> None:
    figures = accuracy(np.zeros((1, 2)), np.zeros((1, 2, 3)), LEVELS, np.array([0]), np.array([0.0]))
    found = dict(reasons_of(figures.as_dict()))
    assert found.keys() == {"mase", "rmsse", "wql", "crps"}
    assert "no series has a scale" in found["mase"]
    assert found["wql"] == "every observation that is scored is 0"


def test_several_origins_of_a_series_weigh_as_one_series() -> None:
    actual = np.array([[10.0], [10.0], [10.0]])
    forecast = np.zeros((3, 1, 3)) + np.array([8.0, 9.0, 30.0])[:, None, None]
    figures = accuracy(actual, forecast, LEVELS, np.array([0, 0, 1]), np.array([1.0, 1.0]))
    assert figures.mase == pytest.approx((1.5 + 20) / 2)


def test_forecast_without_median_is_refused() -> None:
    with pytest.raises(DataError, match=r"0\.5"):
        accuracy(np.ones((1, 1)), np.ones((1, 1, 2)), (0.1, 0.9), np.array([0]), np.array([1.0]))


def test_nothing_observed_is_refused() -> None:
    with pytest.raises(DataError, match="no forecast"):
        accuracy(np.full((1, 1), np.nan), np.ones((1, 1, 3)), LEVELS, np.array([0]), np.array([1.0]))


def test_seasonal_naive_repeats_the_season_and_fills_holes_from_the_one_before() -> None:
    grid = np.array([1.0, 2.0, 3.0, 11.0, np.nan, 13.0])
    naive = SeasonalNaive(grid, 3, LEVELS)
    assert naive.scale == pytest.approx(10.0)
    forecast = naive.forecast(grid, 4)
    assert forecast[:, 1].tolist() == [11.0, 2.0, 13.0, 11.0]
    assert np.all(np.diff(forecast, axis=1) >= 0)


def test_seasonal_naive_widens_with_the_seasons_ahead() -> None:
    rng = np.random.default_rng(0)
    grid = np.cumsum(rng.normal(size=500))
    forecast = SeasonalNaive(grid, 4, LEVELS).forecast(grid, 8)
    width = forecast[:, 2] - forecast[:, 0]
    assert width[4] == pytest.approx(width[3] * np.sqrt(2))


def test_seasonal_naive_of_a_short_series_is_its_last_value() -> None:
    grid = np.array([5.0, 6.0])
    assert SeasonalNaive(grid, 24, LEVELS).forecast(grid, 2).tolist() == [[6.0] * 3] * 2
