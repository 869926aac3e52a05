"""The offline unroll of an hourly forecaster, which the forecasts of each stream have to equal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from rillcast_training.export.bundle import export
from rillcast_training.model.features import default_context, default_seasons
from rillcast_training.model.forecaster import Forecaster, ForecasterConfig
from tests.support.forecasters import HOUR_MS, brief_parity, random_forecaster

# Batches are small, and threads that spin for each other are many times slower on a busy machine.
torch.set_num_threads(1)

LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)
START_MS = 1_714_521_600_000  # 2024-05-01T00:00:00Z


def hourly_forecaster(cell: str = "gru", horizon: int = 12, hidden: int = 32, seed: int = 0) -> Forecaster:
    """Return a forecaster of the size that people use, with random weights."""
    seasons = default_seasons("1h")
    context = default_context(seasons)
    return random_forecaster(
        ForecasterConfig("1h", horizon, LEVELS, seasons, context, context, cell=cell, hidden=hidden), seed
    )


def write_bundle(forecaster: Forecaster, folder: Path) -> Path:
    """Export and return the file, with a brief check, because tests compare it with unrolls."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.onnx"
    with brief_parity():
        export(forecaster, path, name="test")
    return path


def unroll(
    forecaster: Forecaster, ds: npt.NDArray[np.int64], y: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int8]]:
    """Step streams offline in PyTorch, each on its own from its first event.

    Args:
        forecaster: the module.
        ds: `[T, S]` milliseconds.
        y: `[T, S]`, NaN = missing.

    Returns:
        Forecasts `[T, S, H, Q]` and status `[T, S]` after each event.
    """
    rows = forecaster.initial_rows(ds.shape[1])
    forecasts, statuses = [], []
    with torch.no_grad():
        for t in range(ds.shape[0]):
            outputs, rows = forecaster.step(torch.from_numpy(ds[t]), torch.from_numpy(y[t]), rows)
            forecasts.append(outputs.forecast.numpy())
            statuses.append(outputs.status.numpy())
    return np.stack(forecasts), np.stack(statuses)


def some_streams(steps: int, streams: int, seed: int = 0) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return `[steps, streams]` hourly times and values of streams that differ in level, phase and size."""
    rng = np.random.default_rng(seed)
    hours = np.arange(steps)[:, None]
    level, size, phase = rng.uniform(-50, 500, streams), rng.uniform(0.5, 40, streams), rng.uniform(0, 24, streams)
    y = level + size * np.sin(2 * np.pi * (hours + phase) / 24) + rng.normal(size=(steps, streams)) * size / 5
    ds = START_MS + hours * HOUR_MS + np.zeros((1, streams), np.int64)
    return ds.astype(np.int64), y.astype(np.float32)
