"""What release 0.1.0 trained, or was killed in training, goes on as it did there."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch

import rillcast
from rillcast import cli
from rillcast_training.export.restore import restore
from rillcast_training.model.lags import SEASON
from tests.support import releases
from tests.support.releases import V0_1_0

FLAGS = "--freq 1h --horizon 2 --hidden 3 --epochs 2 --batches 3 --quantiles 0.1,0.5,0.9 --season 4 --context 5"


def forecast_of(model: Path) -> np.ndarray:
    engine = rillcast.StepEngine(rillcast.Bundle.load(model), rillcast.Device("cpu"))
    hours = np.arange(20)
    observations = 10 + 3 * np.sin(hours * np.pi / 2) + 0.1 * hours
    return engine.step(rillcast.EventBatch.of(["a"] * 20, hours * 3_600_000, observations)).forecast


def test_an_interrupted_training_is_ended_as_it_would_have_been(tmp_path: Path) -> None:
    checkpoint, model = tmp_path / "training.ckpt", tmp_path / "model.onnx"
    shutil.copy(V0_1_0 / "training.ckpt", checkpoint)
    before = torch.load(checkpoint, weights_only=True)["progress"]
    arguments = [*FLAGS.split(), "--no-calendar", "--quiet", "--out", str(model), "--checkpoint", str(checkpoint)]
    assert cli.main(["train", str(V0_1_0 / "history.csv"), *arguments]) == 0
    after = torch.load(checkpoint, weights_only=True)["progress"]
    assert (before["epoch"], after["epoch"]) == (1, 2)
    assert after["history"][0] == before["history"][0], "the first epoch was not run again"
    np.testing.assert_allclose(forecast_of(model), forecast_of(releases.model()), rtol=1e-4)


def test_the_module_of_a_bundle_fills_missing_values_as_its_graph_does() -> None:
    assert restore(releases.model()).config.fill == SEASON
