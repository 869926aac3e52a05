"""How well earlier forecasts met an observation.

Owns: the score and anomaly outputs of a step. Does not know: the model, or which forecasts are remembered. Everything
is elementwise over the batch and finite wherever it is defined.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

_KINDS: Final = ("pinball", "covered", "bias")
NAIVE: Final = "naive"
_MIN_WIDTH: Final = 1e-30
_LEAST_TAIL: Final = 0.1  # of the mean width


class ForecastScores(nn.Module):
    """Scores quantiles against the observations that settle them. No parameters.

    Attributes:
        names: of the columns: `pinball`, `covered`, `bias` one slot ahead, `pinball_6` six slots, ..., then `naive`.
    """

    quantiles: Tensor
    mass: Tensor

    def __init__(self, levels: tuple[float, ...], horizons: tuple[int, ...]) -> None:
        super().__init__()
        self.names = (*(kind if h == 1 else f"{kind}_{h}" for h in horizons for kind in _KINDS), NAIVE)
        self.levels = levels
        self.middle = min(range(len(levels)), key=lambda i: abs(levels[i] - 0.5))
        quantiles = torch.tensor(levels)
        self.register_buffer("quantiles", quantiles, persistent=False)
        self.register_buffer("mass", quantiles.diff(), persistent=False)

    def forward(
        self, y: Tensor, published: Tensor, scale: Tensor, settled: Tensor, naive: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Score the observations.

        Args:
            y: `[B]` observations.
            published: `[B, K, Q]` quantiles forecast for this slot at K horizons, the next slot first, in the stream's
                own unit.
            scale: `[B]` scale of the stream.
            settled: `[B, K]` bool: whether such a forecast was made and `y` was observed.
            naive: `[B]` the seasonal-naive forecast for this slot: the window's value of a season ago.

        Returns:
            `[B, 3 K + 1]` scores, horizon by horizon: `pinball`, twice the mean pinball loss in units of the scale (an
            approximation of the CRPS); `covered`, whether `y` lies within the outermost quantiles (1 or 0); `bias`, the
            middle quantile minus `y` in units of the scale; then `naive`, the distance of `y` from the seasonal-naive
            forecast, one slot ahead, in units of the scale. And `[B]` anomaly, 1 - 2 min(F, 1 - F) where F is the
            predictive distribution function of the next slot at `y`: 0 at the median, 1 far outside. All NaN where not
            `settled`.
        """
        error = y[:, None, None] - published
        unit = scale.unsqueeze(1)
        pinball = 2 * torch.maximum(self.quantiles * error, (self.quantiles - 1) * error).mean(2) / unit
        covered = ((error[..., 0] >= 0) & (error[..., -1] <= 0)).to(torch.float32)
        bias = -error[..., self.middle] / unit
        scores = torch.where(settled.unsqueeze(2), torch.stack([pinball, covered, bias], dim=2), torch.nan)
        beside = torch.where(settled[:, :1], (y - naive).abs().unsqueeze(1) / unit, torch.nan)
        below = self.distribution(y, published[:, 0], scale)
        anomaly = 1 - 2 * torch.minimum(below, 1 - below)
        columns = torch.cat([scores.reshape(-1, len(self.names) - 1), beside], dim=1)
        return columns, torch.where(settled[:, 0], anomaly, torch.nan)

    def distribution(self, y: Tensor, quantiles: Tensor, scale: Tensor) -> Tensor:
        """Return `[B]`, the distribution function at `y`: linear between quantiles, exponential beyond them.

        The tails continue the density of the outermost interval (or, where a correction has closed it, that of a tenth
        of the mean one); a single quantile has tails of one scale each.
        """
        first, last = self.levels[0], self.levels[-1]
        low, high = (quantiles[:, 0] - y).clamp(min=0), (y - quantiles[:, -1]).clamp(min=0)
        if len(self.levels) == 1:
            between = torch.zeros_like(y)
            below, above = low / scale, high / scale
        else:
            width = (quantiles[:, 1:] - quantiles[:, :-1]).clamp(min=_MIN_WIDTH)
            between = (self.mass * ((y.unsqueeze(1) - quantiles[:, :-1]) / width).clamp(0, 1)).sum(1)
            least = (quantiles[:, -1] - quantiles[:, 0]) * (_LEAST_TAIL / len(self.levels))
            below = low / torch.maximum(width[:, 0], least) * ((self.levels[1] - first) / first)
            above = high / torch.maximum(width[:, -1], least) * ((last - self.levels[-2]) / (1 - last))
        total = first * torch.exp(-below) + between + (1 - last) * (1 - torch.exp(-above))
        return total.clamp(0, 1)
