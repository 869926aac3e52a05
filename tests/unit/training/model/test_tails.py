from __future__ import annotations

import numpy as np
import pytest
import torch

from rillcast.arrays import AnyArray
from rillcast_training.model.scores import ForecastScores
from rillcast_training.model.tails import WIDTH, TailModel, miss_of
from tests.support.tails_oracle import TailsOracle

LEVELS = (0.1, 0.5, 0.9)


def judged(y: AnyArray, forecast: AnyArray, levels: tuple[float, ...] = LEVELS) -> tuple[AnyArray, AnyArray]:
    """Judge `y` `[T, B]` by forecasts `[T, 3]`; return the tail probabilities `[T, 2, B]` and the last state."""
    model = TailModel(levels)
    state, tails = torch.zeros(WIDTH, y.shape[1]), []
    for now, quantiles in zip(torch.from_numpy(y.astype(np.float32)), forecast.astype(np.float32), strict=True):
        ends = torch.stack([torch.full_like(now, float(q)) for q in quantiles])
        state, periods = model(state, miss_of(now, ends), now.isfinite())
        tails.append(1 / periods.numpy())
    return np.stack(tails), state.numpy()


@pytest.mark.parametrize("levels", [LEVELS, (0.05, 0.5, 0.98)])
def test_tails_are_those_of_the_definition(levels: tuple[float, ...]) -> None:
    rng = np.random.default_rng(1)
    y = rng.standard_t(2, (3_000, 1)) * np.exp(rng.normal(0, 0.5, (3_000, 1)))
    forecast = np.stack([np.full(3_000, -1.0), rng.normal(0, 0.1, 3_000), rng.uniform(0.2, 2, 3_000)], axis=1)
    found, _ = judged(y, forecast, levels)
    oracle = TailsOracle(levels[0], levels[-1])
    pairs = zip(y[:, 0].astype(np.float32).tolist(), forecast.astype(np.float32).tolist(), strict=True)
    expected = np.array([oracle.judge(now, *quantiles) for now, quantiles in pairs])
    np.testing.assert_allclose(found[:, :, 0], expected, rtol=2e-4)
    assert (expected < 0.004).any(axis=0).all()  # both sides' farthest knots were reached


@pytest.mark.parametrize(
    ("name", "draw"),
    [
        ("normal", lambda rng, shape: rng.normal(size=shape)),
        ("heavy", lambda rng, shape: rng.standard_t(1.5, shape)),
        ("one-sided", lambda rng, shape: rng.lognormal(0, 1.5, shape)),
        ("bursts", lambda rng, shape: rng.normal(size=shape) * np.where(rng.random(shape) < 0.02, 1e4, 1)),
    ],
)
def test_tails_become_right_whatever_the_distribution(name: str, draw: object) -> None:
    """After 500 events, of 60 streams, by quantiles that are right at 10 % and 90 %."""
    y = draw(np.random.default_rng(5), (2_500, 60))  # type: ignore[operator]
    forecast = np.tile(np.quantile(y, LEVELS), (len(y), 1))
    tails, _ = judged(y, forecast)
    anomaly = 1 - 2 * tails[500:].min(axis=1)
    assert 0.005 < (anomaly > 0.99).mean() < 0.02, name
    assert 0.0003 < (anomaly > 0.999).mean() < 0.003, name


def test_a_bounded_distribution_has_no_rare_values_and_few_false_ones() -> None:
    """Its tails are lighter than the first knots, which come nearer only slowly."""
    y = np.random.default_rng(5).uniform(-1, 1, (1_500, 60))
    tails, _ = judged(y, np.tile(np.quantile(y, LEVELS), (len(y), 1)))
    anomaly = 1 - 2 * tails[500:].min(axis=1)
    assert (anomaly > 0.99).mean() < 0.02
    assert (anomaly > 0.999).mean() < 0.003


def test_one_observation_moves_a_knot_by_its_rate_however_far_out_it_lies() -> None:
    y = np.tile(np.random.default_rng(0).normal(size=(300, 1)), (1, 3))
    y[-1] = 0, 100, 1e20
    _, state = judged(y, np.tile([-1.3, 0, 1.3], (300, 1)))
    np.testing.assert_allclose(state[3:6, 1] / state[3:6, 0], np.exp([0.4, 0.6, 1.5]), rtol=1e-5)
    assert (state[:, 1] == state[:, 2]).all()  # the usual miss, too


def test_a_missing_value_teaches_nothing_and_no_tail_is_ever_zero() -> None:
    y = np.random.default_rng(0).normal(size=(50, 1))
    _, before = judged(y, np.tile([-1, 0, 1], (50, 1)))
    _, after = judged(np.concatenate([y, [[np.nan]]]), np.tile([-1, 0, 1], (51, 1)))
    np.testing.assert_array_equal(before, after)
    tails, _ = judged(np.concatenate([y, [[1e30]]]), np.tile([-1, 0, 1], (51, 1)))
    assert tails[-1, 1, 0] == pytest.approx(1e-7)


def test_an_anomaly_is_never_exactly_nothing_or_certain() -> None:
    scores = ForecastScores(LEVELS, (1,))
    quantiles = torch.tensor([[-1.0, 0, 1]]).repeat(4, 1)
    y = torch.tensor([0.0, 0.5, -1e30, 1e30])
    outside = torch.tensor([0.0, 0, 1e7, 1e7])
    one = torch.ones(4)
    _, anomaly = scores(y, quantiles, one, one.unsqueeze(1) > 0, one, outside)
    assert anomaly.tolist() == pytest.approx([1e-7, 0.4, 1 - 2e-7, 1 - 2e-7], abs=1e-7)
    assert float(anomaly.min()) > 0
    assert float(anomaly.max()) < 1


def test_a_result_does_not_depend_on_the_place_in_the_batch() -> None:
    rng = np.random.default_rng(3)
    y, forecast = rng.standard_t(2, (400, 13)), np.tile([-1.3, 0, 1.3], (400, 1))
    together, state = judged(y, forecast)
    for column in (0, 7, 12):
        alone, own = judged(y[:, column : column + 1], forecast)
        np.testing.assert_array_equal(alone[:, :, 0], together[:, :, column])
        np.testing.assert_array_equal(own[:, 0], state[:, column])
