"""The quantile loss of a forecast, and the figures of a validation pass.

Owns: how a `Forecast` and its targets become a number. Does not know: batches, optimisers, files.

The loss of one target is twice its pinball loss (Koenker & Bassett 1978, Regression quantiles), averaged over the
levels, in units of the series' scale: an approximation of the scaled CRPS that is comparable with a MASE. It is taken
on errors relative to the causal scale, where nothing cancels in float32. A target without an observation (NaN) does not
count.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor

from rillcast_training.model.forecaster import Forecast

_MAX_WEIGHT: Final = 10.0
_MEASURES: Final = (
    "targets",
    "level",
    "loss",
    "scaled_loss",
    "mase",
    "seasonal_naive_mase",
    "seasonal_naive_loss",
    "coverage",
)


def pinball(levels: Tensor, error: Tensor) -> Tensor:
    """Return twice the pinball loss, elementwise.

    Args:
        levels: Quantile levels, broadcast against `error`.
        error: Observation minus forecast quantile.
    """
    return 2 * torch.maximum(levels * error, (levels - 1) * error)


def quantile_loss(
    levels: Tensor, forecast: Forecast, target: Tensor, scale: Tensor, importance: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the sum of the scaled losses, and the number of targets.

    Args:
        levels: `[Q]`.
        forecast: Forecasts with leading dimensions `[S, K]`.
        target: `[S, K, H]`, NaN = no observation.
        scale: `[S]` scale of each series. Where the causal scale is far above it (a stream whose past jumped), the
            weight is limited, so that no window dominates the others.
        importance: `[S]` weight of each series' losses; None = equal.
    """
    losses, known = losses_of(levels, forecast, target, scale, importance)
    return losses.sum(), known.sum()


def losses_of(
    levels: Tensor, forecast: Forecast, target: Tensor, scale: Tensor, importance: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the scaled loss of each target, `[S, K, H]`, 0 where there is none, and where there is one."""
    known = target.isfinite()
    error = torch.where(known, (target - forecast.base) / forecast.scale - forecast.middle, 0.0)
    losses = pinball(levels.unsqueeze(-1), error.unsqueeze(-2) - forecast.spread).mean(-2)
    weight = (forecast.scale / scale[:, None, None]).clamp(max=_MAX_WEIGHT)
    if importance is not None:
        weight = weight * importance[:, None, None]
    return losses * weight * known, known


@dataclass
class ValidationFigures:
    """Sums over a validation pass; `figures` turns them into the usual measures.

    Attributes:
        levels: Quantile levels.
    """

    levels: tuple[float, ...]
    _sums: dict[str, float] = field(default_factory=dict)

    def add(self, forecast: Forecast, target: Tensor, scale: Tensor) -> None:
        """Count one batch; arguments as for `quantile_loss`."""
        known = target.isfinite()
        truth = torch.where(known, target, 0.0)
        quantiles = forecast.quantiles()
        centre = min(range(len(self.levels)), key=lambda i: abs(self.levels[i] - 0.5))
        unit = scale[:, None, None]
        loss = pinball(torch.tensor(self.levels, device=truth.device), truth.unsqueeze(-1) - quantiles).mean(-1)
        inside = (truth >= quantiles[..., 0]) & (truth <= quantiles[..., -1])
        counted = (
            known.to(torch.float64),
            truth.abs(),
            loss,
            loss / unit,
            (truth - quantiles[..., centre]).abs() / unit,
            (truth - forecast.base).abs() / unit,
            (truth - forecast.base).abs(),
            inside.to(torch.float64),
        )
        for name, values in zip(_MEASURES, counted, strict=True):
            self._sums[name] = self._sums.get(name, 0.0) + float((values.double() * known).sum())

    def pool(self, summed: Callable[[Tensor], Tensor]) -> None:
        """Take the sums over all processes in place of this one's, which may have counted no batch.

        Args:
            summed: Returns the sum of a tensor over all processes.
        """
        own = torch.tensor([self._sums.get(name, 0.0) for name in _MEASURES], dtype=torch.float64)
        self._sums = dict(zip(_MEASURES, summed(own).tolist(), strict=True))

    def figures(self) -> dict[str, float]:
        """Return the figures by name; means over all targets.

        `scaled_loss` is the loss that training minimises. `mase` and `seasonal_naive_mase` have each series' in-sample
        seasonal error as unit. `wql` is the mean weighted quantile loss, pooled over series. `coverage` is that of the
        outermost quantiles, `nominal_coverage` its target.
        """
        targets, level = self._sums["targets"], self._sums["level"]
        return {
            "scaled_loss": self._sums["scaled_loss"] / targets,
            "mase": self._sums["mase"] / targets,
            "seasonal_naive_mase": self._sums["seasonal_naive_mase"] / targets,
            "wql": self._sums["loss"] / max(level, 1e-30),
            "seasonal_naive_wql": self._sums["seasonal_naive_loss"] / max(level, 1e-30),
            "coverage": self._sums["coverage"] / targets,
            "nominal_coverage": self.levels[-1] - self.levels[0],
        }
