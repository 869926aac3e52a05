"""Scores of earlier forecasts against an observation.

Owns: the score and anomaly outputs of a step. Does not know: the model, or which forecasts are pending. Everything is
elementwise over the batch and finite wherever it is defined.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

_KINDS: Final = ("pinball", "covered", "bias")
NAIVE: Final = "naive"
_MIN_WIDTH: Final = 1e-30
_LEAST_ANOMALY: Final = 1e-7


class ForecastScores(nn.Module):
    """Scores quantiles against the observations that resolve them. No parameters.

    Attributes:
        names: Names of the columns: `pinball` one period ahead, `pinball_6` six periods, ..., the same of `covered` and
            `bias`, then `naive`.
    """

    quantiles: Tensor
    mass: Tensor
    means: Tensor

    def __init__(self, levels: tuple[float, ...], horizons: tuple[int, ...]) -> None:
        super().__init__()
        self.names = (*(kind if h == 1 else f"{kind}_{h}" for kind in _KINDS for h in horizons), NAIVE)
        self.num_horizons = len(horizons)
        self.levels = levels
        self.middle = min(range(len(levels)), key=lambda i: abs(levels[i] - 0.5))
        quantiles = torch.tensor(levels)
        self.register_buffer("quantiles", quantiles.repeat_interleave(len(horizons)), persistent=False)
        means = torch.eye(len(horizons)).repeat(len(levels), 1) * (2 / len(levels))
        self.register_buffer("means", means, persistent=False)
        # Four columns: a product with one would be a reduction, whose last bits depend on the position in the batch.
        self.register_buffer("mass", quantiles.diff().unsqueeze(1).repeat(1, 4), persistent=False)

    def forward(
        self, y: Tensor, published: Tensor, scale: Tensor, resolved: Tensor, naive: Tensor, periods: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Score the observations.

        Args:
            y: `[B]` observations.
            published: `[B, Q K]` quantiles forecast for this period at K horizons, the next period first, in the
                stream's own unit. The horizons of a level stand next to each other.
            scale: `[B]` scale of the stream.
            resolved: `[B, K]` bool: whether such a forecast was made and `y` was observed.
            naive: `[B]` the seasonal-naive forecast for this period, the value of a season ago.
            periods: `[2, B]` return periods below and above (`rillcast_training.model.tails`).

        Returns:
            `[B, 3 K + 1]` scores, each for all horizons. `pinball` is twice the mean pinball loss in units of the
            scale, an approximation of the CRPS. `covered` is 1 if `y` lies within the outermost quantiles, else 0.
            `bias` is the middle quantile minus `y` in units of the scale. Last, `naive` is the distance of `y` from the
            seasonal-naive forecast one period ahead, in units of the scale. And `[B]` anomaly, 1 - 2 min(F, 1 - F) with
            F the predictive distribution function of the next period at `y`: 0 at the median, 1 far outside. All are
            NaN where not `resolved`.
        """
        count = self.num_horizons
        error = y.unsqueeze(1) - published
        unit = scale.unsqueeze(1)
        pinball = torch.matmul(torch.maximum(self.quantiles * error, (self.quantiles - 1) * error), self.means) / unit
        covered = ((error[:, :count] >= 0) & (error[:, -count:] <= 0)).to(torch.float32)
        bias = -error[:, self.middle * count : (self.middle + 1) * count] / unit
        naive_error = (y - naive).abs().unsqueeze(1) / unit
        valid = torch.cat([resolved, resolved, resolved, resolved[:, :1]], dim=1)
        columns = torch.where(valid, torch.cat([pinball, covered, bias, naive_error], dim=1), torch.nan)
        anomaly = 1 - 2 * self.tail(y, published[:, ::count], periods)
        anomaly = anomaly.clamp(min=_LEAST_ANOMALY)
        return columns, torch.where(resolved[:, 0], anomaly, torch.nan)

    def tail(self, y: Tensor, quantiles: Tensor, periods: Tensor) -> Tensor:
        """Return `[B]`, min(F, 1 - F) with F the distribution function at `y`.

        It is linear between the quantiles `[B, Q]`; beyond them it follows from the return periods.
        """
        if len(self.levels) == 1:
            between = torch.zeros_like(y)
        else:
            width = (quantiles[:, 1:] - quantiles[:, :-1]).clamp(min=_MIN_WIDTH)
            between = torch.matmul(((y.unsqueeze(1) - quantiles[:, :-1]) / width).clamp(0, 1), self.mass)[:, 0]
        below = (self.levels[0] + between).clamp(max=1)
        inside = torch.minimum(below, 1 - below)
        above = torch.where(y > quantiles[:, -1], 1 / periods[1], inside)
        return torch.where(y < quantiles[:, 0], 1 / periods[0], above)
