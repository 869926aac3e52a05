"""What a forecast of a bundle of experts is made of, by a run of a stream's history through the module.

Owns: that run, and the proof that the file agrees. Does not know: the words (`rillcast.bundle.mixture`), attribution,
files of pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from rillcast.bundle.bundle import Bundle
from rillcast.bundle.mixture import MEMBER, Mixture, Shares
from rillcast.engine.device import Device
from rillcast.engine.step_engine import StepEngine
from rillcast.errors import ParityError
from rillcast.events import EventBatch
from rillcast_training.data.series import Series
from rillcast_training.export.experts import restore_experts
from rillcast_training.model.experts.forecaster import ExpertForecaster

_AGREES: Final = 1e-3  # largest |module - file| in units of the forecast's size


@dataclass(frozen=True, slots=True)
class Explained:
    """What the newest forecast of a stream is made of.

    Attributes:
        periods: Periods of the stream's events that were stepped.
        forecast: `[H]` its middle quantile.
        by_step: The weights at each horizon at which experts are judged.
    """

    periods: npt.NDArray[np.int64]
    forecast: npt.NDArray[np.float32]
    by_step: tuple[Shares, ...]


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
    weights, quantiles = _stepped(forecaster, ds, y)
    served = _served(bundle, series.unique_id, ds, y)
    size = np.abs(served).max() + np.finfo(np.float32).tiny
    if not np.abs(quantiles - served).max() <= _AGREES * size:
        raise ParityError(
            f"stream {series.unique_id!r}: the module of this version forecasts otherwise than the file; explain a "
            "bundle that this version exported"
        )
    by_step = Mixture(bundle.metadata.training[MEMBER]).shares(weights)
    return Explained(periods, served[:, served.shape[1] // 2], tuple(by_step))


def _stepped(
    forecaster: ExpertForecaster, ds: npt.NDArray[np.int64], y: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return the weights `[A, K]` and the quantiles `[H, Q]` after the last event."""
    rows, outputs = forecaster.initial_rows(1), None
    with torch.no_grad():
        for time, value in zip(ds, y, strict=True):
            outputs, rows = forecaster.step(torch.tensor([int(time)]), torch.tensor([float(value)]), rows)
    assert outputs is not None  # a series has an event
    weights = forecaster.layout.at_anchors(rows.core)["weight"][:, :, 0]
    return weights.numpy(), outputs.forecast[0].numpy()


def _served(
    bundle: Bundle, unique_id: str, ds: npt.NDArray[np.int64], y: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Return the quantiles `[H, Q]` of the file after the last event."""
    engine = StepEngine(bundle, Device("cpu"))
    forecast: npt.NDArray[np.float32] = engine.step(EventBatch.of([unique_id] * len(ds), ds, y)).forecast[-1]
    return forecast
