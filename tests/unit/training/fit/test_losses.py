from __future__ import annotations

import math

import pytest
import torch

from rillcast_training.fit.losses import ValidationFigures, pinball, quantile_loss
from rillcast_training.model.forecaster import Forecast

LEVELS = (0.1, 0.5, 0.9)


def forecast_of(*, middle: float = 0.0, spread: tuple[float, ...] = (-1.0, 0.0, 1.0), scale: float = 2.0) -> Forecast:
    """One series, one origin, one horizon, base 100."""
    low, _, high = spread
    return Forecast(
        middle=torch.tensor([[[middle]]]),
        distances=torch.tensor([[[-low, high]]]),
        base=torch.tensor([[[100.0]]]),
        scale=torch.tensor([[[scale]]]),
        centre=1,
    )


def loss_of(target: float, forecast: Forecast, series_scale: float = 1.0) -> tuple[float, int]:
    loss, targets = quantile_loss(
        torch.tensor(LEVELS), forecast, torch.tensor([[[target]]]), torch.tensor([series_scale])
    )
    return float(loss), int(targets)


def test_pinball_weighs_an_error_by_its_side() -> None:
    error = torch.tensor([2.0, -2.0])
    torch.testing.assert_close(pinball(torch.tensor(0.9), error), torch.tensor([3.6, 0.4]))


def test_the_median_loss_is_the_absolute_error() -> None:
    assert float(pinball(torch.tensor(0.5), torch.tensor(-3.0))) == 3.0


def test_the_loss_is_the_mean_pinball_in_units_of_the_series_scale() -> None:
    # quantiles 98, 100, 102; observation 103: errors 5, 3, 1; over a series scale of 4
    expected = 2 * (0.1 * 5 + 0.5 * 3 + 0.9 * 1) / 3 / 4
    assert loss_of(103.0, forecast_of(), 4.0) == pytest.approx((expected, 1))


def test_a_series_counts_by_its_importance() -> None:
    levels, target, scale = torch.tensor(LEVELS), torch.tensor([[[103.0]]]), torch.tensor([4.0])
    plain, _ = quantile_loss(levels, forecast_of(), target, scale)
    weighted, targets = quantile_loss(levels, forecast_of(), target, scale, torch.tensor([2.5]))
    assert float(weighted) == pytest.approx(2.5 * float(plain))
    assert int(targets) == 1


def test_a_missing_target_counts_for_nothing_and_passes_no_gradient() -> None:
    forecast = forecast_of()
    forecast.middle.requires_grad_()
    loss, targets = quantile_loss(torch.tensor(LEVELS), forecast, torch.tensor([[[math.nan]]]), torch.tensor([1.0]))
    assert (float(loss.detach()), int(targets)) == (0.0, 0)
    loss.backward()  # type: ignore[no-untyped-call]
    assert forecast.middle.grad is not None
    assert forecast.middle.grad.eq(0).all()


def test_a_stream_far_above_its_series_scale_is_limited() -> None:
    near, _ = loss_of(101.0, forecast_of(scale=10.0))
    far, _ = loss_of(10_100.0, forecast_of(scale=1e6))
    assert near > 0
    assert math.isfinite(far)
    assert far < 10 * 10  # ten times the loss of about one scale


def test_the_loss_sees_an_error_far_below_the_level() -> None:
    level, error = 2.0**23, 1.0  # one float32 spacing
    forecast = forecast_of(spread=(0.0, 0.0, 0.0), scale=1.0)._replace(base=torch.full((1, 1, 1), level))
    assert loss_of(level + error, forecast) == pytest.approx((1.0, 1))


def test_figures_are_those_of_a_hand_calculation() -> None:
    figures = ValidationFigures(LEVELS)
    forecast = forecast_of(middle=1.0)  # quantiles 100, 102, 104; seasonal naive 100
    figures.add(forecast, torch.tensor([[[103.0]]]), torch.tensor([2.0]))
    figures.add(forecast, torch.tensor([[[105.0]]]), torch.tensor([2.0]))
    figures.add(forecast, torch.tensor([[[math.nan]]]), torch.tensor([2.0]))
    found = figures.figures()
    assert found["mase"] == pytest.approx((1 + 3) / 2 / 2)
    assert found["seasonal_naive_mase"] == pytest.approx((3 + 5) / 2 / 2)
    assert found["coverage"] == 0.5
    assert found["nominal_coverage"] == pytest.approx(0.8)
    first = 2 * (0.1 * 3 + 0.5 * 1 + 0.1 * 1) / 3
    second = 2 * (0.1 * 5 + 0.5 * 3 + 0.9 * 1) / 3
    assert found["wql"] == pytest.approx((first + second) / 208)
    assert found["seasonal_naive_wql"] == pytest.approx(8 / 208)
    assert found["scaled_loss"] == pytest.approx((first + second) / 2 / 2)
