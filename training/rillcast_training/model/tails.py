"""How rare an observation beyond the outermost quantiles is: a tail of each stream, learnt as it goes.

Owns: the tail probabilities beyond the outermost quantiles, and the state from which they follow. Does not know: the
model, the probabilities between the quantiles (`rillcast_training.model.scores`), or alarms.

Beyond an outermost quantile of tail probability p lie three knots: distances that are exceeded with probability .3 p,
.05 p and .005 p (for p = .1: .03, .005 and .0005 of each side). A knot grows where an observation lies beyond it and
shrinks a little where none does, so that in the long run the share beyond it is right whatever the distribution:
stochastic approximation of a quantile (Robbins & Monro 1951), the feedback of adaptive conformal inference (Gibbs &
Candes 2021). A step of a knot does not depend on how far beyond it an observation lies, so one anomaly moves it by at
most its rate. The first knots are those of a normal distribution, the same for all streams. A heavier tail is learnt
within some hundred observations, a lighter one within some thousand. Beyond a knot the tail falls with the
square of the distance, as a generalised Pareto tail of shape 1/2 does (SPOT: Siffer et al. 2017, Anomaly detection in
streams with extreme value theory), and the next knot bounds it. Distances are in units of the width of the forecast or
of the usual miss, whichever is larger: a forecast may be too narrow.

Figures are return periods, one over the tail probability: of how many observations one lies at least that far out on
that side. There are no logarithms and no powers, so a row's result does not depend on its place in the batch.

State `[7, B]`: three knots below, three above, nearest first, and the usual miss. Zeros: a stream never judged.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

WIDTH: Final = 7
MISS: Final = 4
LONGEST_PERIOD: Final = 1e7
_SHARES: Final = (0.3, 0.05, 0.005)  # tail probability at the knots, times that at the outermost quantile
_RATES: Final = (0.4, 0.6, 1.5)  # largest change of a knot's logarithm
_FIRST: Final = (0.45, 1.0, 1.8)
_LEAST_KNOT: Final = 1e-6
_MISS_RATE: Final = 0.02
_MISS_LIMIT: Final = 3.0  # largest miss that counts, in usual misses
_ROUNDING: Final = 1e-6  # of the size
_TINY: Final = 1e-30


class TailModel(nn.Module):
    """No parameters; see the module's docstring. The batch comes last everywhere.

    Args:
        levels: The forecast's quantile levels.
    """

    first: Tensor
    grows: Tensor
    shrinks: Tensor
    periods: Tensor
    room: Tensor
    nearest: Tensor
    rise: Tensor

    def __init__(self, levels: tuple[float, ...]) -> None:
        super().__init__()
        outermost = torch.tensor([levels[0], 1 - levels[-1]], dtype=torch.float64).reshape(2, 1, 1)
        at_knots = outermost * torch.tensor(_SHARES, dtype=torch.float64).reshape(1, 3, 1)
        periods, rates = 1 / at_knots, torch.tensor(_RATES, dtype=torch.float64).reshape(1, 3, 1)
        beyond = torch.cat([periods[:, 1:], torch.full((2, 1, 1), LONGEST_PERIOD, dtype=torch.float64)], dim=1)
        nearest = (1 / outermost)[:, 0]
        tables = {
            "first": torch.tensor(_FIRST).reshape(1, 3, 1).repeat(2, 1, 1),
            "grows": torch.exp(rates * (1 - at_knots)),
            "shrinks": torch.exp(-rates * at_knots),
            "periods": periods,
            "room": beyond / periods,
            "nearest": nearest,
            "rise": periods[:, 0] - nearest,
        }
        for name, table in tables.items():
            self.register_buffer(name, table.float(), persistent=False)

    def forward(self, state: Tensor, miss: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Judge the observations, and learn from them.

        Args:
            state: `[7, B]`.
            miss: `[4, B]`, see `miss_of`.
            valid: `[B]` bool, whether there are an observation and a forecast of it.

        Returns:
            The next state, and `[2, B]` return periods below and above: where an observation lies beyond the outermost
            quantile of that side, else that of the quantile.
        """
        knots, usual, ratio = self._ratios(state, miss)
        over = ratio > 1
        of_knots = torch.where(over, torch.minimum(ratio * ratio, self.room) * self.periods, 0.0)
        # Not `amax`: on CUDA, ONNX Runtime reduces with cuDNN, within a loop in any case.
        beyond = torch.maximum(torch.maximum(of_knots[:, 0], of_knots[:, 1]), of_knots[:, 2])
        near = self.nearest + self.rise * ratio[:, 0].clamp(max=1)
        moved = (knots * torch.where(over, self.grows, self.shrinks)).clamp(min=_LEAST_KNOT)
        usual = usual + _MISS_RATE * (torch.minimum(miss[3], _MISS_LIMIT * usual) - usual)
        following = torch.cat([moved.reshape(WIDTH - 1, -1), usual.unsqueeze(0)], dim=0)
        return torch.where(valid, following, state), torch.maximum(beyond, near)

    def _ratios(self, state: Tensor, miss: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the knots `[2, 3, B]`, the usual miss `[B]`, and the distances over the knots `[2, 3, B]`."""
        knots = state[: WIDTH - 1].reshape(2, 3, -1)
        knots = torch.where(knots > 0, knots, self.first)
        usual = torch.where(state[WIDTH - 1] > 0, state[WIDTH - 1], miss[3])
        distance = miss[:2].clamp(min=0) / torch.maximum(miss[2], usual)
        return knots, usual, distance.unsqueeze(1) / knots


def miss_of(y: Tensor, ends: Tensor) -> Tensor:
    """Return `[4, B]`: how far observations lie below the lowest and above the highest quantile, width, distance.

    Args:
        y: `[B]` observations.
        ends: `[3, B]` the lowest, middle and highest quantile of their forecasts.
    """
    y = y.unsqueeze(0)
    low, middle, high = torch.split(ends, 1)
    width = (high - low) + _ROUNDING * middle.abs() + _TINY
    return torch.cat([low - y, y - high, width, (y - middle).abs()])


def outside(miss: Tensor, periods: Tensor) -> Tensor:
    """Return `[B]`, the return period beyond the outermost quantile of an observation's side; 0 = it lies within them.

    Args:
        miss: `[4, B]`, `miss_of`.
        periods: `[2, B]` return periods below and above, of `TailModel`.
    """
    return torch.where(miss[:2] > 0, periods, 0.0).sum(dim=0)


def of_both_sides(outside: Tensor, valid: Tensor) -> Tensor:
    """Return `[B]`, the return period of an observation on either side; 0 = it lies within the quantiles.

    Args:
        outside: `[B]`, see there.
        valid: `[B]` bool, whether there are an observation and a forecast of it.
    """
    return torch.where(valid, outside / 2, 0.0)
