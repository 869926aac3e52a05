"""Scores of earlier forecasts against an observation.

Owns: the score and anomaly outputs of a step. Does not know: the model, or which forecasts are pending. Everything is
elementwise over the batch and finite wherever it is defined.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from rillcast_training.model.operators import bent

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

    slopes: Tensor
    mass: Tensor
    means: Tensor

    def __init__(self, levels: tuple[float, ...], horizons: tuple[int, ...]) -> None:
        super().__init__()
        self.names = (*(kind if h == 1 else f"{kind}_{h}" for kind in _KINDS for h in horizons), NAIVE)
        self.num_horizons = len(horizons)
        self.levels = levels
        self.middle = min(range(len(levels)), key=lambda i: abs(levels[i] - 0.5))
        quantiles = torch.tensor(levels)
        # The pinball loss max(l e, (l - 1) e) is l times a line that is bent at 0.
        each = quantiles.repeat_interleave(len(horizons))
        self.register_buffer("slopes", (each - 1) / each, persistent=False)
        means = each.unsqueeze(1) * torch.eye(len(horizons)).repeat(len(levels), 1) * (2 / len(levels))
        self.register_buffer("means", means, persistent=False)
        # Four columns: a product with one would be a reduction, whose last bits depend on the position in the batch.
        self.register_buffer("mass", 2 * quantiles.diff().unsqueeze(1).repeat(1, 4), persistent=False)

    def forward(
        self, y: Tensor, published: Tensor, scale: Tensor, resolved: Tensor, naive: Tensor, outside: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Score the observations.

        Args:
            y: `[B]` observations.
            published: `[B, Q K]` quantiles forecast for this period at K horizons, the next period first, in the
                stream's own unit. The horizons of a level stand next to each other.
            scale: `[B]` scale of the stream.
            resolved: `[B, K]` bool: whether such a forecast was made and `y` was observed.
            naive: `[B]` the seasonal-naive forecast for this period, the value of a season ago.
            outside: `[B]` return period of an observation beyond the outermost quantiles, 0 = it lies within them
                (`rillcast_training.model.tails`).

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
        pinball = torch.matmul(bent(error, self.slopes), self.means) / unit
        of_levels = torch.split(error, count, dim=1)
        covered = ((of_levels[0] >= 0) & (of_levels[-1] <= 0)).to(torch.float32)
        bias = -of_levels[self.middle] / unit
        naive_error = (y - naive).abs().unsqueeze(1) / unit
        valid = torch.cat([resolved, resolved, resolved, resolved[:, :1]], dim=1)
        columns = torch.where(valid, torch.cat([pinball, covered, bias, naive_error], dim=1), torch.nan)
        anomaly = torch.maximum(self.within(error[:, ::count]), 1 - 2 / outside.clamp(min=2))
        anomaly = anomaly.clamp(min=_LEAST_ANOMALY)
        return columns, torch.where(resolved[:, 0], anomaly, torch.nan)

    def within(self, error: Tensor) -> Tensor:
        """Return `[B]`, |2 F - 1| with F the distribution function at `y`; linear between the quantiles.

        Beyond an outermost quantile it is that of the quantile.

        Args:
            error: `[B, Q]`, `y` less each quantile.
        """
        if len(self.levels) == 1:
            return abs(2 * self.levels[0] - 1) + torch.zeros_like(error[:, 0])
        over, next_over = error[:, :-1], error[:, 1:]
        width = (over - next_over).clamp(min=_MIN_WIDTH)
        between = torch.matmul((over / width).clamp(0, 1), self.mass)[:, 0]
        return (between + (2 * self.levels[0] - 1)).abs()
