"""Breakdowns and skill, against figures that can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from rillcast_training.evaluate.accuracy import score_series
from rillcast_training.evaluate.diagnostics import diagnose
from rillcast_training.evaluate.skill import skills

LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)


def test_intervals_are_the_pairs_of_levels_around_one_half() -> None:
    actual = np.array([[0.0], [1.5], [np.nan], [9.0]])
    forecast = np.tile(np.array([-2.0, -1.0, 0.0, 1.0, 2.0]), (4, 1, 1))
    outer, inner = diagnose(actual, forecast, LEVELS, np.zeros(4, np.int64), np.array([2.0])).intervals
    assert (outer.low, outer.high) == (0.1, 0.9)
    assert outer.nominal == pytest.approx(0.8)
    assert outer.coverage == pytest.approx(2 / 3)
    assert inner.coverage == pytest.approx(1 / 3)
    assert (outer.width, inner.width) == (2.0, 1.0)  # 4 and 2, over a scale of 2


def test_the_calibration_curve_of_true_quantiles_is_the_diagonal() -> None:
    rng = np.random.default_rng(0)
    actual = rng.uniform(size=(20_000, 1))
    forecast = np.tile(np.array(LEVELS), (20_000, 1, 1))
    points = diagnose(actual, forecast, LEVELS, np.zeros(20_000, np.int64), np.ones(1)).levels
    assert [point.level for point in points] == list(LEVELS)
    np.testing.assert_allclose([point.share for point in points], LEVELS, atol=0.02)


def test_steps_are_separate_and_a_step_without_observations_has_no_figures() -> None:
    actual = np.array([[1.0, 4.0, np.nan], [1.0, -4.0, np.nan]])
    forecast = np.zeros((2, 3, 5)) + np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    first, second, third = diagnose(actual, forecast, LEVELS, np.zeros(2, np.int64), np.array([2.0])).steps
    assert (first.step, first.mase, first.bias, first.coverage, first.width) == (1, 0.5, -0.5, 1.0, 2.0)
    assert (second.mase, second.bias, second.coverage) == (2.0, 0.0, 0.0)
    assert np.isnan([third.mase, third.wql, third.coverage]).all()


def scores_of(error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Forecasts of ones, one origin per series, off by `error`."""
    n = error.size
    return np.ones((n, 1)), 1 + np.tile(error[:, None, None], (1, 1, len(LEVELS)))


def test_skill_is_one_minus_the_ratio_and_its_interval_holds_it() -> None:
    rng = np.random.default_rng(1)
    errors = rng.uniform(0.5, 1.5, 60)
    series, scale = np.arange(60), np.ones(60)
    actual, ours = scores_of(0.5 * errors)
    _, theirs = scores_of(errors)
    found = skills(
        score_series(actual, ours, LEVELS, series, scale, scale),
        score_series(actual, theirs, LEVELS, series, scale, scale),
    )
    assert set(found) == {"mase", "rmsse", "smape", "wql", "crps"}
    for name in ("mase", "rmsse", "wql", "crps"):
        assert found[name].skill == pytest.approx(0.5)
        assert found[name].low <= 0.5 + 1e-9
        assert found[name].high >= 0.5 - 1e-9


def test_the_interval_widens_as_series_differ_and_covers_no_skill_where_there_is_none() -> None:
    rng = np.random.default_rng(2)
    series, scale = np.arange(40), np.ones(40)
    actual, ours = scores_of(rng.exponential(1.0, 40))
    _, theirs = scores_of(rng.exponential(1.0, 40))
    mase = skills(
        score_series(actual, ours, LEVELS, series, scale), score_series(actual, theirs, LEVELS, series, scale)
    )["mase"]
    assert mase.low < 0 < mase.high
    assert mase.low < mase.skill < mase.high


def test_one_series_has_a_skill_without_an_interval() -> None:
    actual, ours = scores_of(np.array([0.1]))
    _, theirs = scores_of(np.array([0.4]))
    arguments = (LEVELS, np.zeros(1, np.int64), np.ones(1))
    mase = skills(score_series(actual, ours, *arguments), score_series(actual, theirs, *arguments))["mase"]
    assert mase.skill == pytest.approx(0.75)
    assert np.isnan([mase.low, mase.high]).all()
    assert mase.shown().endswith("[-: an interval takes two series]")


def test_a_skill_against_no_error_has_no_value_and_says_why() -> None:
    series, scale = np.arange(2), np.ones(2)
    actual, perfect = scores_of(np.zeros(2))
    _, worse = scores_of(np.ones(2))
    ours, theirs = (score_series(actual, one, LEVELS, series, scale) for one in (worse, perfect))
    assert skills(ours, theirs)["mase"].shown() == "- (the other forecast has no error, and this one has)"
    assert skills(theirs, theirs)["mase"].shown() == "- (the other forecast has no error; nor has this one)"
    assert skills(ours, ours)["rmsse"].shown() == "- (no forecast has this figure)"


def test_rmsse_and_crps_are_means_over_series() -> None:
    actual = np.array([[1.0, 3.0], [10.0, 10.0]])
    forecast = np.zeros((2, 2, 1)) + np.array([[[0.0]], [[10.0]]])
    scores = score_series(actual, forecast, (0.5,), np.arange(2), np.array([2.0, 5.0]), np.array([4.0, 25.0]))
    figures = scores.accuracy((0.5,))
    assert figures.rmsse == pytest.approx(np.sqrt(5 / 4) / 2)
    assert figures.crps == figures.mase == pytest.approx(0.5)
