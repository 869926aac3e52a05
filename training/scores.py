"""How well the forecast of the slot before met an observation.

Owns: the score and anomaly outputs of a step. Does not know: the model. Everything is elementwise over the batch
and finite wherever it is defined.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

SCORES: Final = ("pinball", "covered")
_MIN_WIDTH: Final = 1e-30


class PendingScore(nn.Module):
    """Scores pending one-step quantiles against the observations that settle them. No parameters."""

    quantiles: Tensor
    mass: Tensor

    def __init__(self, levels: tuple[float, ...]) -> None:
        super().__init__()
        self.levels = levels
        quantiles = torch.tensor(levels)
        self.register_buffer("quantiles", quantiles, persistent=False)
        self.register_buffer("mass", quantiles.diff(), persistent=False)

    def forward(self, y: Tensor, pending: Tensor, scale: Tensor, settled: Tensor) -> tuple[Tensor, Tensor]:
        """Score the observations.

        Args:
            y: `[B]` observations.
            pending: `[B, Q]` quantiles forecast for this slot, in the stream's own unit.
            scale: `[B]` scale of the stream.
            settled: `[B]` bool: whether `pending` is about this slot and `y` was observed.

        Returns:
            `[B, 2]` scores, by name: `pinball`, twice the mean pinball loss in units of the scale (an approximation of
            the CRPS), and `covered`, whether `y` lies within the outermost quantiles (1 or 0); and `[B]` anomaly,
            1 - 2 min(F, 1 - F) where F is the predictive distribution function at `y`: 0 at the median, 1 far
            outside. All NaN where not `settled`.
        """
        error = y.unsqueeze(1) - pending
        pinball = 2 * torch.maximum(self.quantiles * error, (self.quantiles - 1) * error).mean(1) / scale
        covered = ((error[:, 0] >= 0) & (error[:, -1] <= 0)).to(torch.float32)
        score = torch.where(settled.unsqueeze(1), torch.stack([pinball, covered], dim=1), torch.nan)
        below = self.distribution(y, pending, scale)
        anomaly = 1 - 2 * torch.minimum(below, 1 - below)
        return score, torch.where(settled, anomaly, torch.nan)

    def distribution(self, y: Tensor, quantiles: Tensor, scale: Tensor) -> Tensor:
        """Return `[B]`, the distribution function at `y`: linear between quantiles, exponential beyond them.

        The tails continue the density of the outermost interval; a single quantile has tails of one scale each.
        """
        first, last = self.levels[0], self.levels[-1]
        low, high = (quantiles[:, 0] - y).clamp(min=0), (y - quantiles[:, -1]).clamp(min=0)
        if len(self.levels) == 1:
            between = torch.zeros_like(y)
            below, above = low / scale, high / scale
        else:
            width = (quantiles[:, 1:] - quantiles[:, :-1]).clamp(min=_MIN_WIDTH)
            between = (self.mass * ((y.unsqueeze(1) - quantiles[:, :-1]) / width).clamp(0, 1)).sum(1)
            below = low / width[:, 0] * ((self.levels[1] - first) / first)
            above = high / width[:, -1] * ((last - self.levels[-2]) / (1 - last))
        total = first * torch.exp(-below) + between + (1 - last) * (1 - torch.exp(-above))
        return total.clamp(0, 1)
