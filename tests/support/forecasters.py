"""Small forecasters with random weights, and events to feed them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from rillcast_training.export import parity
from rillcast_training.export.bundle import export
from rillcast_training.model.forecaster import Forecaster, ForecasterConfig
from rillcast_training.model.lags import MEDIAN

HOUR_MS = 3_600_000


def small_config(**changes: Any) -> ForecasterConfig:
    """Return a configuration small enough to run thousands of steps in a test."""
    options: dict[str, Any] = {
        "freq": "1h",
        "horizon": 5,
        "quantiles": (0.1, 0.5, 0.9),
        "seasons": (4, 9),
        "context": 12,
        "max_gap": 12,
        "cell": "gru",
        "hidden": 6,
        "layers": 1,
        "fill": MEDIAN,
    }
    return ForecasterConfig(**(options | changes))


def random_forecaster(config: ForecasterConfig, seed: int = 0) -> Forecaster:
    """Return a forecaster whose head is random too, because the initial head ignores the cells."""
    torch.manual_seed(seed)
    forecaster = Forecaster(config).eval()
    torch.nn.init.normal_(forecaster.head.out.weight, std=0.3)
    return forecaster


def write_network(path: Path) -> Path:
    """Write a small bundle with a network, a sequence graph and its module, as `rillcast train` does."""
    with brief_parity():
        export(random_forecaster(small_config()), path, name=path.stem)
    return path


@contextmanager
def brief_parity() -> Iterator[None]:
    """Let exports compare file and forecaster on a few events, for tests that are not about the export.

    The full check takes most of an export's time; `tests/integration/training/test_export.py` runs it for every cell.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parity, "BATCHES", (8,))
        patch.setattr(parity, "STEPS", 30)
        yield
