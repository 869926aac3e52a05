"""The quantile head: every horizon and quantile at once.

Owns: how the cells' outputs become a forecast in units of the scale, and the forecast before any training. Does not
know: streams, state, units. Invariant: quantiles never cross, by construction and under float32 rounding.
"""

from __future__ import annotations

import itertools
import math
from statistics import NormalDist
from typing import Final

import torch
from torch import Tensor, nn

from rillcast_training.model.precision import widened

_MEAN_ABS_TO_SIGMA: Final = math.sqrt(math.pi / 2)  # of a normal distribution


class QuantileHead(nn.Module):
    """All horizons and quantiles at once, as a correction to the seasonal-naive forecast.

    The middle quantile is the base plus a free correction plus learned shares of the view's directions. Its neighbours
    lie steps >= 0 outwards. The head starts as the seasonal-naive forecast with the spread of normal errors whose mean
    absolute value is the scale.
    """

    def __init__(
        self,
        *,
        inputs: int,
        width: int,
        horizon: int,
        quantiles: tuple[float, ...],
        season: int,
        directions: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.horizon, self.steps, self.directions = horizon, len(quantiles) - 1, directions
        self.dropout = nn.Dropout(dropout)
        self.trunk = nn.Linear(inputs, width)
        self.out = nn.Linear(width, self.horizon * (1 + directions + self.steps))
        self.centre = anchor = min(range(len(quantiles)), key=lambda i: abs(quantiles[i] - 0.5))

        normal = [NormalDist().inv_cdf(q) * _MEAN_ABS_TO_SIGMA for q in quantiles]
        spread = torch.tensor([b - a for a, b in itertools.pairwise(normal)])
        growth = torch.arange(self.horizon).div(season, rounding_mode="floor").add(1).sqrt()
        bias = torch.zeros(self.horizon * (1 + directions))
        bias[: self.horizon] = normal[anchor] * growth
        step = spread.unsqueeze(1) * growth
        raw = step - 1 / step  # the inverse of squareplus
        nn.init.zeros_(self.out.weight)
        with torch.no_grad():
            self.out.bias.copy_(torch.cat([bias, raw.flatten()]))

    def forward(self, inputs: Tensor, directions: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Return `middle` and `distances` of a `rillcast_training.model.forecaster.Forecast`.

        Args:
            inputs: `[..., inputs]`, the cells' outputs and the features.
            directions: Corrections to take shares of, each `[..., H]` or `[..., 1]`.
        """
        hidden = torch.relu(self.trunk(self.dropout(inputs)))
        sizes = [self.horizon] * (1 + self.directions) + [self.horizon * self.steps]
        *shares, raw = torch.split(widened(self.out(hidden)), sizes, dim=-1)
        middle: Tensor = shares[0]
        for share, direction in zip(shares[1:], directions, strict=True):
            middle = middle + share * direction
        return middle, self._distances(_squareplus(raw))

    def _distances(self, steps: Tensor) -> Tensor:
        """Sum steps >= 0 between neighbouring quantiles, `[..., (Q - 1) H]`, outwards from the middle one.

        Sums of terms that are not negative do not decrease under rounding, so quantiles keep their order.
        """
        above = self.steps - self.centre
        if self.centre <= 1 and above <= 1:
            return steps
        rows = list(torch.split(steps, self.horizon, dim=-1))
        for q in reversed(range(self.centre - 1)):
            rows[q] = rows[q + 1] + rows[q]
        for q in range(self.centre + 1, self.steps):
            rows[q] = rows[q - 1] + rows[q]
        return torch.cat(rows, dim=-1)


def _squareplus(x: Tensor) -> Tensor:
    """Smooth rectifier, >= 0 (Barron 2021, Squareplus): a softplus without exponentials, which cost 5 us a step."""
    return 0.5 * (x + torch.sqrt(x * x + 4))
