"""Gradients through time where their decay is known, and clipping."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from rillcast import cli
from rillcast_training.data.series import Series
from rillcast_training.data.split import split
from rillcast_training.data.windows import WindowSampler
from rillcast_training.explain.gradients import Clipping, Profile, clipping, gradient_profiles
from rillcast_training.export.bundle import export
from rillcast_training.fit.trainer import CLIP_NORM
from rillcast_training.model.cells import CELLS
from tests.support.cells import cell_of, inputs_of
from tests.support.forecasters import HOUR_MS, brief_parity, random_forecaster, small_config

pytestmark = pytest.mark.usefixtures("brief_parity")

LAGS = 12


def elman_with_gain(gain: float) -> tuple[Profile, Profile]:
    """Near zero tanh is the identity, so each step back multiplies the Jacobian by the gain."""
    cell = cell_of("elman", hidden=16)
    weights = dict(cell.named_parameters())
    with torch.no_grad():
        weights["fused.weight_hh_l0"].copy_(gain * torch.linalg.qr(torch.randn(16, 16)).Q)
        weights["fused.bias_ih_l0"].zero_()
        weights["fused.bias_hh_l0"].zero_()
    return gradient_profiles(cell, 1e-6 * inputs_of(5, LAGS + 3), lags=LAGS, directions=200)


@pytest.mark.parametrize("gain", [0.5, 1.0, 1.5])
def test_norms_shrink_or_grow_with_the_gain_of_the_recurrent_weights(gain: float) -> None:
    for profile in elman_with_gain(gain):
        relative = np.array(profile.median) / profile.median[0]
        np.testing.assert_allclose(relative, gain ** np.arange(LAGS + 1), rtol=0.2)


def test_the_reach_is_where_one_per_cent_is_left() -> None:
    assert elman_with_gain(0.5)[0].reach == 7  # 2^-7 < 1 % <= 2^-6
    assert elman_with_gain(1.0)[0].reach is None


def test_the_norm_is_that_of_the_jacobian() -> None:
    cell, inputs = cell_of("gru"), inputs_of(1, 6)
    to_state, to_input = gradient_profiles(cell, inputs, lags=2, directions=4_000)

    def output_of(x: torch.Tensor) -> torch.Tensor:
        return cell.sequence(torch.cat([inputs[:, :3], x.unsqueeze(0), inputs[:, 4:]], dim=1))[0, -1]

    x = inputs[:, 3].clone().requires_grad_()
    jacobian = torch.stack([torch.autograd.grad(output, x, retain_graph=True)[0] for output in output_of(x)])
    assert to_input.median[2] == pytest.approx(float(jacobian.norm()), rel=0.05)
    assert to_state.median[0] == pytest.approx(7**0.5, rel=0.05)  # d h / d h: the identity


@pytest.mark.parametrize("name", sorted(CELLS))
def test_every_cell_can_be_measured(name: str) -> None:
    for profile in gradient_profiles(cell_of(name, layers=2), inputs_of(3, 30), lags=20):
        assert len(profile.median) == 21
        percentiles = zip(profile.low, profile.median, profile.high, strict=True)
        assert all(0 < low <= middle <= high for low, middle, high in percentiles)


def test_more_lags_than_events_are_refused() -> None:
    with pytest.raises(ValueError, match="12 lags need more than 12 steps"):
        gradient_profiles(cell_of("gru"), inputs_of(1, 12), lags=12)


def test_clipping_keeps_short_gradients_and_shortens_long_ones() -> None:
    figures = Clipping(2.0, (1.0, 4.0, 8.0)).to_dict()
    assert figures == {
        "bound": 2.0,
        "median": 4.0,
        "largest": 8.0,
        "clipped_share": pytest.approx(2 / 3),
        "kept": 0.5,
    }


def waves(count: int = 3, events: int = 90) -> list[Series]:
    rng = np.random.default_rng(0)
    periods = np.arange(events, dtype=np.int64)
    return [
        Series(f"s{i}", periods, (10 * i + np.sin(periods) + 0.1 * rng.normal(size=events)).astype(np.float32))
        for i in range(count)
    ]


def test_the_norms_are_those_that_training_clips() -> None:
    forecaster = random_forecaster(small_config())
    sampler = WindowSampler(split(waves(), small_config(), 0.1), small_config(), window=24, origins=4, batch=4)
    before = [weight.clone() for weight in forecaster.parameters()]
    found = clipping(forecaster, sampler.epoch(0, 0, 3), bound=CLIP_NORM)
    assert len(found.norms) == 3
    assert all(norm > 0 for norm in found.norms)
    assert all(torch.equal(old, new) for old, new in zip(before, forecaster.parameters(), strict=True))


def test_the_command_compares_bundles_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = []
    for cell in ("elman", "lru"):
        models.append(tmp_path / f"{cell}.onnx")
        with brief_parity():
            export(random_forecaster(small_config(cell=cell)), models[-1], name=cell)
    data = tmp_path / "d.csv"
    rows = [
        f"{one.unique_id},{period * HOUR_MS},{y}"
        for one in waves()
        for period, y in zip(one.periods, one.y, strict=True)
    ]
    data.write_text("\n".join(["unique_id,ds,y", *rows]) + "\n")
    command = ["explain", "gradients", *map(str, models), "--data", str(data), "--lags", "24", "--batches", "2"]
    assert cli.main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(one["name"], one["cell"], one["streams"]) for one in found["models"]] == [
        ("elman", "elman", 3),
        ("lru", "lru", 3),
    ]
    assert len(found["models"][0]["to_input"]["median"]) == 25
    assert Path(found["picture"]).read_bytes().startswith(b"\x89PNG")
    assert cli.main(command) == 0
    assert "above the bound of 1" in capsys.readouterr().out
    assert cli.main([*command[:-4], "--lags", "400"]) == 2
    assert "no stream ends with 413 events" in capsys.readouterr().err
