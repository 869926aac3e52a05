"""What values a stream can have: none below zero, none between whole numbers, zero again and again.

Owns: the evidence for that, and how quantiles keep to it. Does not know: experts, widths.

- A stream that never was negative has no quantile below zero. By the rule of succession (Laplace) its next value is
  negative with probability 1 / (n + 2) after n values, so a quantile of level l is held back once l exceeds that.
- A stream whose values all were whole numbers, none of them negative, has whole quantiles, from its ninth value on.
- Where some values are zero whatever is forecast, as of rare sales, levels up to their share have the quantile zero,
  from the ninth value on too. The share is counted apart for low and for high forecasts of the next period, and the
  smaller one counts: the zeros of each night are no such share, for by day there are none.

Nothing else that is learnt depends on this: the errors and widths are those of the mixture as it is.

State `[7, B]`: zeros after low and after high forecasts, number of low and of high forecasts, all with forgetting, the
mean forecast, lowest value below zero, largest distance from a whole number (with a minus sign).
"""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

WIDTH: Final = 7
_FORGET: Final = 0.99
_MEAN_RATE: Final = 0.02
_POOLED: Final = 5.0  # forecasts of either side that the share of both counts as
_PRIOR: Final = 2.0  # forecasts without a zero that a stream starts with
_FEW: Final = 8  # values after which the next one breaks a rule that none broke with a probability below 0.1
_LEAST: Final = -3e38
_FAR: Final = -1e6  # widths below the median, where a quantile is zero in any case


class Bounds(NamedTuple):
    """What the quantiles of a stream keep to.

    Attributes:
        zero: `[Q, B]` bool, which quantiles are zero.
        least: `[Q, B]` smallest value of each.
        whole: `[1, B]` bool, whether all are whole numbers.
    """

    zero: Tensor
    least: Tensor
    whole: Tensor

    def at_anchors(self, quantiles: Tensor) -> Tensor:
        """Return quantiles in widths, `[A, Q, B]`, those that are zero far below all others."""
        return torch.where(self.zero, _FAR, quantiles)

    def keep(self, quantiles: Tensor) -> Tensor:
        """Return quantiles in the stream's unit, `[H, Q, B]`, within the bounds."""
        held = torch.maximum(quantiles, self.least)
        return torch.where(self.whole, held.round(), held)


class ValueBounds(nn.Module):
    """No parameters; see the module's docstring."""

    levels: Tensor
    least_count: Tensor
    low: Tensor
    high: Tensor
    kept: Tensor

    def __init__(self, levels: tuple[float, ...]) -> None:
        super().__init__()
        column = torch.tensor(levels).unsqueeze(1)
        self.register_buffer("levels", column, persistent=False)
        self.register_buffer("least_count", 1 / column - 2, persistent=False)
        self.register_buffer("low", torch.tensor([[1.0], [0.0]]), persistent=False)
        self.register_buffer("high", torch.tensor([[0.0], [1.0]]), persistent=False)
        kept = torch.tensor([[_FORGET]] * 4 + [[1 - _MEAN_RATE]])
        self.register_buffer("kept", kept, persistent=False)

    def learn(self, state: Tensor, y: Tensor, point: Tensor, valid: Tensor) -> Tensor:
        """Take in a value of each stream.

        Args:
            state: `[7, B]`.
            y: `[1, B]` observation; 0 where there is none.
            point: `[1, B]` what was forecast for it in the period before, in any unit of the stream.
            valid: `[1, B]` bool, whether something was, and there is an observation.
        """
        seen, extremes = torch.split(state, [5, 2])
        side = torch.where(point > seen[4:], self.high, self.low)
        zero = torch.where(y == 0, side, 0.0)
        moved = self.kept * seen + torch.cat([zero, side, _MEAN_RATE * point])
        extremes = torch.minimum(extremes, torch.cat([y, -(y - y.round()).abs()]))
        return torch.cat([torch.where(valid, moved, seen), extremes])

    def forward(self, state: Tensor, count: Tensor, bounds: Tensor | float) -> Bounds:
        """Return what the quantiles keep to.

        Args:
            state: `[7, B]`.
            count: `[1, B]` number of values.
            bounds: `[]`, 0 = they keep to nothing.
        """
        zeros, numbers, _, lowest, fraction = torch.split(state, [2, 2, 1, 1, 1])
        share = zeros.sum(dim=0, keepdim=True) / (numbers.sum(dim=0, keepdim=True) + _PRIOR)
        shares = (zeros + _POOLED * share) / (numbers + _POOLED)
        share = torch.minimum(shares[:1], shares[1:])
        never = lowest >= 1 - bounds  # it is never above zero
        count = torch.where(never, count, -1.0)
        known = count > _FEW
        zero, whole = self.levels <= torch.where(known, share, -1.0), known & (fraction >= 0)
        held = zero | (count > self.least_count)
        return Bounds(zero, torch.where(held, 0.0, _LEAST), whole)
