"""Options of training runs that take a second, and their trainers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rillcast_training.data.split import split
from rillcast_training.fit.options import TrainOptions
from rillcast_training.fit.shape import forecaster_shape
from rillcast_training.fit.trainer import Trainer
from rillcast_training.fit.training import series_of


def quick_options(data: Path, folder: Path, **changes: Any) -> TrainOptions:
    """Return options for a small network, one alone unless changed, on a small table of hourly streams."""
    small: dict[str, Any] = {
        "data": data,
        "freq": "1h",
        "horizon": 6,
        "out": folder / "model.onnx",
        "experts": False,
        "hidden": 8,
        "seasons": (8,),
        "quantiles": (0.1, 0.5, 0.9),
        "epochs": 4,
        "batches": 6,
        "batch": 8,
        "window": 48,
        "origins": 8,
        "threads": 1,
        "quiet": True,
    }
    return TrainOptions(**(small | changes))


def trainer_of(options: TrainOptions) -> Trainer:
    """Return a trainer for the options."""
    series, config = series_of(options, forecaster_shape(options))
    return Trainer(options, config, split(series, config, options.validation))
