"""What a forecast of a bundle of experts is made of, by a run of a stream's history through the module.

Owns: that run, and the proof that the file agrees. Does not know: the words (`rillcast.bundle.mixture`), attribution,
files of pictures.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from rillcast.arrays import FloatArray
from rillcast.bundle.bundle import Bundle
from rillcast.bundle.mixture import MEMBER, Mixture, Shares
from rillcast.bundle.network_share import STATES, NetworkShare, network_figures, network_shares
from rillcast.engine.device import Device
from rillcast.engine.step_engine import StepEngine
from rillcast.errors import ParityError
from rillcast.events import EventBatch
from rillcast_training.data.series import Series
from rillcast_training.export.experts import restore_experts
from rillcast_training.model.experts.forecaster import ExpertForecaster
from rillcast_training.model.experts.network import Advice

_AGREES: Final = 1e-3  # largest |module - file| in units of the forecast's size


@dataclass(frozen=True, slots=True)
class Explained:
    """What the newest forecast of a stream is made of.

    Attributes:
        periods: Periods of the stream's events that were stepped.
        forecast: `[H]` its middle quantile.
        by_step: The weights of the mixture at each horizon at which experts are judged.
        network: What the network on top does there, and how much of the weights it moves, 0 to 1, from some experts to
            others; empty = there is none.
    """

    periods: npt.NDArray[np.int64]
    forecast: npt.NDArray[np.float32]
    by_step: tuple[Shares, ...]
    network: tuple[tuple[NetworkShare, float], ...]


def explain_experts(bundle: Bundle, series: Series, *, at: int | None = None, limit: int | None = None) -> Explained:
    """Return what the forecast after a stream's event is made of.

    Args:
        bundle: Bundle of experts.
        series: The stream.
        at: Period since the epoch of the last event to step, or before it; None = the newest event.
        limit: Most events to step, the newest; None = all.

    Raises:
        DataError: the bundle has no experts, or not those of this version.
        ParityError: the module of this version forecasts otherwise than the file.
    """
    forecaster = restore_experts(bundle)
    end = len(series.periods) if at is None else int(np.searchsorted(series.periods, at, side="right"))
    rows = slice(max(0, end - limit) if limit else 0, end)
    periods, y = series.periods[rows], series.y[rows]
    ds = bundle.metadata.frequency.start_of(periods)
    weights, quantiles, moved = _stepped(forecaster, ds, y)
    mixture = Mixture(bundle.metadata.training[MEMBER])
    served, figures = _served(bundle, mixture, series.unique_id, ds, y)
    size = np.abs(served).max() + np.finfo(np.float32).tiny
    if not np.abs(quantiles - served).max() <= _AGREES * size:
        raise ParityError(
            f"stream {series.unique_id!r}: the module of this version forecasts otherwise than the file; explain a "
            "bundle that this version exported"
        )
    network: tuple[tuple[NetworkShare, float], ...] = ()
    if figures is not None and moved is not None:
        said = network_shares(mixture, figures)
        network = tuple((one, one.share * part) for one, part in zip(said, moved.tolist(), strict=True))
    return Explained(periods, served[:, served.shape[1] // 2], tuple(mixture.shares(weights)), network)


def _stepped(
    forecaster: ExpertForecaster, ds: npt.NDArray[np.int64], y: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32] | None]:
    """Return the weights `[A, K]`, the quantiles `[H, Q]`, and the part of the weights that the network moves, `[A]`.

    The last is before it is judged; None = there is no network.
    """
    rows, outputs = forecaster.initial_rows(1), None
    said: list[Advice] = []

    def listen(_module: nn.Module, _arguments: object, advice: Advice) -> None:
        said[:] = [advice]

    network = forecaster.network
    hook = nullcontext() if network is None else network.telling.register_forward_hook(listen)
    with torch.no_grad(), hook:
        for time, value in zip(ds, y, strict=True):
            outputs, rows = forecaster.step(torch.tensor([int(time)]), torch.tensor([float(value)]), rows)
    assert outputs is not None  # a series has an event
    weights = forecaster.layout.at_anchors(rows.core)["weight"][:, :, 0]
    moved = [(advice.shares.abs().sum(dim=1)[:, 0] / 2).numpy() for advice in said]
    return weights.numpy(), outputs.forecast[0].numpy(), moved[0] if moved else None


def _served(
    bundle: Bundle, mixture: Mixture, unique_id: str, ds: npt.NDArray[np.int64], y: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float32], FloatArray | None]:
    """Return the quantiles `[H, Q]` of the file after the last event, and the figures `[A, 3]` of a network."""
    engine = StepEngine(bundle, Device("cpu"))
    forecast: npt.NDArray[np.float32] = engine.step(EventBatch.of([unique_id] * len(ds), ds, y)).forecast[-1]
    if not mixture.has_network:
        return forecast, None
    slots, residents = engine.residents.newest(0)[0], engine.residents
    figures = network_figures(mixture, residents.state.slab.gather(slots, STATES))
    return forecast, None if figures is None else figures[0]
