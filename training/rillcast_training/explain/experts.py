"""What a forecast of a bundle of experts is made of: the weight of each base, in words.

Owns: the words, and the run of a stream's history through the module. Does not know: attribution, files of pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from rillcast.bundle.bundle import Bundle
from rillcast.bundle.frequency import Frequency, parse
from rillcast.engine.device import Device
from rillcast.engine.step_engine import StepEngine
from rillcast.errors import ParityError
from rillcast.events import EventBatch
from rillcast_training.data.series import Series
from rillcast_training.export.experts import restore_experts
from rillcast_training.model.experts.forecaster import ExpertForecaster

_AGREES: Final = 1e-3  # largest |module - file| in units of the forecast's size
_CYCLES: Final = {"minute": 60_000, "hour": 3_600_000, "day": 86_400_000, "week": 604_800_000, "year": 31_556_952_000}
_MONTHS_A_YEAR: Final = 12
_PLAIN: Final = {
    "level": "level, and the last value",
    "holt": "level with a damped trend",
    "drift": "last value with the mean change",
    "median": "running median",
    "double": "level with the parts of both seasons",
    "naive_drift": "value a {season} ago with the mean change over a {season}",
    "phase_anomaly": "mean of the same time of the {season}, with its mean distance",
    "naive": "value a {season} ago",
    "phase": "mean of the same time of the {season}",
}


@dataclass(frozen=True, slots=True)
class Shares:
    """Weights at one horizon.

    Attributes:
        step: Periods ahead.
        shares: Weight of each base in words, the largest first; they sum to 1, or are empty without any value yet.
    """

    step: int
    shares: dict[str, float]

    def sentence(self, least: float = 0.05) -> str:
        """Return the shares of at least `least`, as in `62 % value a day ago, 20 % running median`."""
        shown = [f"{share:.0%} {what}" for what, share in self.shares.items() if share >= least]
        rest = 1 - sum(share for share in self.shares.values() if share >= least)
        listed = [*shown, *([f"{rest:.0%} others"] if shown and rest >= 0.005 else [])]
        return ", ".join(listed).replace("%", " %") if listed else "no value is known yet"


@dataclass(frozen=True, slots=True)
class Mixture:
    """What the newest forecast of a stream is made of.

    Attributes:
        periods: Periods of the stream's events that were stepped.
        forecast: `[H]` its middle quantile.
        by_step: The weights at each horizon at which experts are judged.
    """

    periods: npt.NDArray[np.int64]
    forecast: npt.NDArray[np.float32]
    by_step: tuple[Shares, ...]


def explain_experts(bundle: Bundle, series: Series, *, at: int | None = None, limit: int | None = None) -> Mixture:
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
    names = [base for base, _ in forecaster.config.experts]
    words = {base: in_words(base, forecaster.config.freq, forecaster.config.seasons) for base in dict.fromkeys(names)}
    by_step = []
    for anchor, row in zip(forecaster.config.anchors, weights, strict=True):
        shares: dict[str, float] = {}
        for base, weight in zip(names, row.tolist(), strict=True):
            shares[words[base]] = shares.get(words[base], 0.0) + weight
        shares = {what: share for what, share in sorted(shares.items(), key=lambda one: -one[1]) if share > 0}
        by_step.append(Shares(anchor, shares))
    return Mixture(periods, served[:, served.shape[1] // 2], tuple(by_step))


def in_words(base: str, freq: str, seasons: tuple[int, ...]) -> str:
    """Return what a base says, in words."""
    name = base.rstrip("01")
    season = seasons[int(base[-1])] if base != name else seasons[0]
    return _PLAIN.get(name, base).format(season=_season(season, parse(freq)))


def _season(periods: int, frequency: Frequency) -> str:
    """Return the name of a season, or its length in periods."""
    if frequency.in_months:
        return "year" if periods * frequency.step == _MONTHS_A_YEAR else f"cycle of {periods} periods"
    for name, length in _CYCLES.items():
        if periods == round(length / frequency.step):
            return name
    return f"cycle of {periods} periods"


def _stepped(
    forecaster: ExpertForecaster, ds: npt.NDArray[np.int64], y: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return the weights `[A, K]` and the quantiles `[H, Q]` after the last event."""
    rows, outputs = forecaster.initial_rows(1), None
    with torch.no_grad():
        for time, value in zip(ds, y, strict=True):
            outputs, rows = forecaster.step(torch.tensor([int(time)]), torch.tensor([float(value)]), rows)
    assert outputs is not None  # a series has an event
    weights = forecaster.layout.core.unpack(rows.core)["weight"][:, :, 0]
    return weights.numpy(), outputs.forecast[0].numpy()


def _served(
    bundle: Bundle, unique_id: str, ds: npt.NDArray[np.int64], y: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Return the quantiles `[H, Q]` of the file after the last event."""
    engine = StepEngine(bundle, Device("cpu"))
    forecast: npt.NDArray[np.float32] = engine.step(EventBatch.of([unique_id] * len(ds), ds, y)).forecast[-1]
    return forecast
