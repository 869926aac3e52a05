"""The forecasters that were tried: each does what its name says, and learns."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from rillcast_training.data.series import Series
from rillcast_training.data.windows import Batch
from rillcast_training.fit.losses import quantile_loss
from rillcast_training.model.forecaster import Forecast, Forecaster, ForecasterConfig
from rillcast_training.research.ablation_shapes import Arcsinh, Attention, Dilated, Ensemble, JointEnsemble
from rillcast_training.research.ablations import batches
from tests.support.forecasters import small_config

SHAPES = [Ensemble, JointEnsemble, Attention, Dilated, Arcsinh]
CONFIG = small_config(cell="lstm")
LEVELS = torch.tensor(CONFIG.quantiles)


def batch_of(y: np.ndarray) -> Batch:
    """Return one series' last 20 periods as targets, four origins."""
    periods = np.arange(1_000, 1_000 + len(y))
    (batch,) = batches(CONFIG, [Series("a", periods, y.astype(np.float32))], {"a": 980 + len(y)})
    return batch


def wave(length: int = 80) -> np.ndarray:
    return np.sin(np.arange(length) * np.pi / 2) + 0.3 * np.random.default_rng(0).normal(size=length)


def trained(make: Callable[[ForecasterConfig], Forecaster], steps: int = 30) -> tuple[Forecaster, list[float]]:
    torch.manual_seed(0)
    forecaster, batch = make(CONFIG).train(), batch_of(wave())
    optimizer, losses = torch.optim.Adam(forecaster.parameters(), lr=0.01), []
    for _ in range(steps):
        total, count = quantile_loss(LEVELS, forecaster(batch.sequences, batch.origins), batch.target, batch.scale)
        optimizer.zero_grad()
        (total / count).backward()  # type: ignore[no-untyped-call]  # PyTorch has no annotation here
        optimizer.step()
        losses.append(float((total / count).detach()))
    return forecaster.eval(), losses


def quantiles(forecaster: Forecaster, y: np.ndarray) -> Tensor:
    batch = batch_of(y)
    with torch.no_grad():
        forecast: Forecast = forecaster(batch.sequences, batch.origins)
    return forecast.quantiles()


@pytest.mark.parametrize("make", SHAPES)
def test_it_learns_and_its_quantiles_do_not_cross(make: Callable[[ForecasterConfig], Forecaster]) -> None:
    forecaster, losses = trained(make)
    assert losses[-1] < 0.7 * losses[0]
    found = quantiles(forecaster, wave())
    assert found.shape == (1, 4, CONFIG.horizon, len(CONFIG.quantiles))
    assert (found.diff(dim=-1) >= 0).all()


@pytest.mark.parametrize("make", SHAPES)
def test_events_after_an_origin_change_nothing(make: Callable[[ForecasterConfig], Forecaster]) -> None:
    forecaster, _ = trained(make, 5)
    later = wave()
    later[-4:] += 3
    torch.testing.assert_close(quantiles(forecaster, later), quantiles(forecaster, wave()), rtol=0, atol=1e-6)


def test_an_ensemble_is_the_mean_of_two_and_each_has_its_own_loss() -> None:
    ensemble, batch = trained(Ensemble, 5)[0], batch_of(wave())
    assert isinstance(ensemble, Ensemble)
    with torch.no_grad():
        mean = ensemble(batch.sequences, batch.origins)
        first = Forecaster.forward(ensemble, batch.sequences, batch.origins)
        second = ensemble.other(batch.sequences, batch.origins)
        ensemble.train()
        both, count = quantile_loss(LEVELS, ensemble(batch.sequences, batch.origins), batch.target, batch.scale)
    torch.testing.assert_close(mean.middle, (first.middle + second.middle) / 2)
    torch.testing.assert_close(mean.distances, (first.distances + second.distances) / 2)
    single = [quantile_loss(LEVELS, one, batch.target, batch.scale) for one in (first, second)]
    torch.testing.assert_close(both, single[0][0] + single[1][0])
    assert count == single[0][1]


def test_the_dilated_layer_sees_the_same_phase_of_earlier_seasons_alone() -> None:
    torch.manual_seed(0)
    dilated, inputs = Dilated(CONFIG).eval(), torch.randn(2, 14, CONFIG.hidden)
    changed = inputs.clone()
    changed[:, 3] += 1
    with torch.no_grad():
        moved = (dilated._seasonal(changed) - dilated._seasonal(inputs)).abs().amax(dim=(0, 2)) > 1e-6
    assert moved.nonzero().flatten().tolist() == [3, 7, 11]


def test_arcsinh_undoes_the_limit() -> None:
    batch = batch_of(100 * wave())
    limited, own = (make(CONFIG).view(batch.sequences).features for make in (Forecaster, Arcsinh))
    calendar = 2 * len(Forecaster(CONFIG).features.cycles)
    there = limited[..., :-calendar]
    torch.testing.assert_close(own[..., :-calendar].sinh(), there / (1 - there.abs() / 8), rtol=1e-3, atol=1e-4)
    assert torch.equal(own[..., -calendar:], limited[..., -calendar:])
