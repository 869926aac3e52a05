"""Streams that change, and the coverage that online calibration restores.

Owns: the drifting streams and the measurement of their coverage. Does not know: how calibration works.

Each stream is a daily wave of its own shape, level and noise. Half-way its noise doubles and its level jumps by eight
of its old standard deviations. A model is trained on other streams of the same kind, before any change. The coverage of
its outermost interval is taken over the second half, through the exported bundle and the serving engine, with
calibration applied and without.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from rillcast.bundle.bundle import Bundle
from rillcast.engine.device import Device
from rillcast.engine.step_engine import StepEngine
from rillcast_training.data.series import Series
from rillcast_training.evaluate.backtest import backtest
from rillcast_training.fit.options import TrainOptions
from rillcast_training.fit.training import train

HALF: Final = 1_200  # periods before the change, and after it
_STREAMS: Final = 48
_HORIZON: Final = 24
_STRIDE: Final = 5  # no factor in common with a day, so that every hour is an origin at times
_SEASON: Final = 24
_FIRST_PERIOD: Final = 473_400  # 2024-01-02, in hours
_JUMP: Final = 8.0  # standard deviations of the noise


@dataclass(frozen=True, slots=True)
class DriftCoverage:
    """Coverage of the outermost interval over the second half."""

    on: float
    off: float
    nominal: float


def drifting_streams(streams: int = _STREAMS, *, half: int = HALF, drift: bool = True, seed: int = 0) -> list[Series]:
    """Return hourly streams of two halves; with `drift`, the second half is changed."""
    rng = np.random.default_rng((seed, drift))
    periods = np.arange(2 * half)
    series = []
    for number in range(streams):
        shape = sum(
            rng.normal(0, 1 / k) * np.sin(2 * np.pi * k * (periods + rng.uniform(0, _SEASON)) / _SEASON)
            for k in (1, 2, 3)
        )
        level, size = rng.normal(0, 50), 10 ** rng.uniform(-1, 2)
        sigma = size * rng.uniform(0.2, 0.8)
        noise = sigma * rng.normal(size=periods.size)
        later = periods >= half
        if drift:
            noise = np.where(later, 2 * noise, noise)
            level = level + later * _JUMP * sigma * rng.choice([-1.0, 1.0])
        y = level + size * shape + noise
        series.append(Series(f"s{number:03}", periods + _FIRST_PERIOD, y.astype(np.float32)))
    return series


def measure(folder: Path, *, epochs: int = 6, streams: int = _STREAMS, seed: int = 0) -> DriftCoverage:
    """Train a small model on streams without drift, and return its coverage on streams with it.

    Args:
        folder: Folder for the training data and the bundle.
        epochs: Most epochs of training.
        streams: Streams to measure on.
        seed: Seed of data and training.
    """
    data = folder / "steady.csv"
    write_csv(data, drifting_streams(drift=False, seed=seed))
    out = folder / "drift.onnx"
    train(
        TrainOptions(
            data=data,
            freq="1h",
            horizon=_HORIZON,
            out=out,
            experts=False,
            hidden=32,
            epochs=epochs,
            seed=seed,
            quiet=True,
        )
    )
    return coverage(Bundle.load(out), streams=streams, seed=seed)


def coverage(bundle: Bundle, *, streams: int = _STREAMS, half: int = HALF, seed: int = 0) -> DriftCoverage:
    """Return the coverage of an hourly bundle over the second half of streams that change."""
    series = drifting_streams(streams, half=half, seed=seed)
    first = [Series(one.unique_id, one.periods[:half], one.y[:half]) for one in series]
    second = [Series(one.unique_id, one.periods[half:], one.y[half:]) for one in series]

    def of(calibrate: bool) -> float:
        engine = StepEngine(bundle, Device("cpu"), calibrate=calibrate)
        return backtest(engine, second, train=first, stride=_STRIDE).model.coverage

    levels = bundle.metadata.quantiles
    return DriftCoverage(on=of(True), off=of(False), nominal=levels[-1] - levels[0])


def write_csv(path: Path, series: list[Series]) -> None:
    """Write hourly series in the long format."""
    with path.open("w", encoding="utf-8") as file:
        file.write("unique_id,ds,y\n")
        for one in series:
            file.writelines(
                f"{one.unique_id},{period * 3_600_000},{value!r}\n"
                for period, value in zip(one.periods.tolist(), one.y.tolist(), strict=True)
            )
