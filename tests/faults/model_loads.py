"""The loads of real models: a recurrent network, a mixture of experts, and a network on top of one.

Owns: the models (the networks have random weights), their events, and the oracle: the module in PyTorch, unrolled
offline over each stream. Does not know: faults, brokers, delivery.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch

from rillcast.arrays import AnyArray, FloatArray, IntArray
from rillcast.bundle import shipped
from rillcast.bundle.bundle import Bundle, Status
from rillcast_training.export.experts import restore_experts, write_experts
from rillcast_training.model.experts.config import ExpertsConfig, NetworkShape
from rillcast_training.model.experts.forecaster import ExpertForecaster
from tests.faults.load import BUSY, Load, Published
from tests.support import unrolls
from tests.support.forecasters import brief_parity

TOLERANCE: Final = 1e-4
_STREAMS: Final = 200
_MISSING: Final = 0.02
_SPREAD: Final = 0.05  # of the weights of a network's last layer, so that it says something


@dataclass(frozen=True)
class ModelOracle:
    """Within a tolerance: relative to the value, or to the stream's spread where the value passes through zero.

    Attributes:
        names: Stream ids, by the number of the stream.
        levels: Quantile levels, Q of them.
        stream: `(events,)` int64, number of the stream.
        forecast: `(events, H, Q)`.
        status: `(events,)`.
        spread: `(streams,)`, the standard deviation of each stream's values.
    """

    names: Sequence[str]
    levels: Sequence[float]
    stream: IntArray
    forecast: AnyArray
    status: AnyArray
    spread: FloatArray

    def fault_of(self, event: int, published: Published) -> str | None:
        """Return what is wrong."""
        stream = self.stream[event]
        if published.unique_id != self.names[stream]:
            return f"it says {published.unique_id!r}, the event was of {self.names[stream]!r}"
        status = Status(int(self.status[event])).name.lower()
        if published.status != status:
            return f"status {published.status}, the unroll has {status}"
        seen = np.array([published.quantiles[f"{level:g}"] for level in self.levels]).T
        expected = self.forecast[event]
        error = np.abs(seen - expected) / np.maximum(np.abs(expected), self.spread[stream])
        return f"off by {error.max():.2e}, relative" if error.max() > TOLERANCE else None


def gru_load(events: int, seed: int, folder: Path) -> tuple[Load, Path]:
    """Return a load for a GRU of the size that people use, and the bundle's file."""
    forecaster = unrolls.hourly_forecaster("gru")
    ds, y = _values(events, seed)
    forecast, status = unrolls.unroll(forecaster, ds, y)
    return _load("gru", events, ds, y, forecast, status, unrolls.LEVELS), unrolls.write_bundle(forecaster, folder)


def experts_load(events: int, seed: int, folder: Path) -> tuple[Load, Path]:
    """Return a load for the bundle of experts that is shipped for hourly streams, and its file."""
    path = shipped.locate("universal:1h")
    forecaster = restore_experts(Bundle.load(path))
    ds, y = _values(events, seed)
    return _load("experts", events, ds, y, *_unroll(forecaster, ds, y), forecaster.config.quantiles), path


def network_load(events: int, seed: int, folder: Path) -> tuple[Load, Path]:
    """Return a load for a GRU on top of experts, and the bundle's file."""
    torch.manual_seed(0)
    forecaster = ExpertForecaster(ExpertsConfig("1h", 24, (24, 168), network=NetworkShape("gru", 32)))
    assert forecaster.network is not None, "its shape was given"
    torch.nn.init.normal_(forecaster.network.head.weight, std=_SPREAD)
    path = folder / "network.onnx"
    with brief_parity():
        write_experts(forecaster.eval(), path, name="network")
    ds, y = _values(events, seed)
    return _load("network", events, ds, y, *_unroll(forecaster, ds, y), forecaster.config.quantiles), path


def _values(events: int, seed: int) -> tuple[IntArray, FloatArray]:
    """Return times and values, `(steps, streams)`; some values are missing."""
    ds, y = unrolls.some_streams(-(-events // _STREAMS), _STREAMS, seed)
    y[np.random.default_rng(seed).random(y.shape) < _MISSING] = np.nan
    return ds, y


def _unroll(forecaster: ExpertForecaster, ds: IntArray, y: FloatArray) -> tuple[AnyArray, AnyArray]:
    """Return the forecasts `(steps, streams, H, Q)` and the statuses `(steps, streams)` after each event."""
    rows = forecaster.initial_rows(ds.shape[1])
    forecasts, statuses = [], []
    with torch.no_grad():
        for at, values in zip(ds, y, strict=True):
            outputs, rows = forecaster.step(torch.from_numpy(at), torch.from_numpy(values), rows)
            forecasts.append(outputs.forecast.numpy())
            statuses.append(outputs.status.numpy())
    return np.stack(forecasts), np.stack(statuses)


def _load(
    name: str,
    events: int,
    ds: IntArray,
    y: FloatArray,
    forecast: AnyArray,
    status: AnyArray,
    levels: Sequence[float],
) -> Load:
    """Return the load in which each stream has an event of each step."""
    ids = [f"{name}-{number}" for number in range(_STREAMS)]
    stream = np.tile(np.arange(_STREAMS), len(ds))[:events]
    flat = forecast.reshape(-1, *forecast.shape[2:])[:events]
    oracle = ModelOracle(ids, levels, stream, flat, status.reshape(-1)[:events], np.nanstd(y, axis=0))
    return Load(
        name, ids, np.arange(_STREAMS) % BUSY, stream, ds.reshape(-1)[:events],
        y.reshape(-1)[:events].astype(np.float64), 0.0, oracle,
    )  # fmt: skip
