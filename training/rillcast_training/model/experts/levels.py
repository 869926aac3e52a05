"""Levels and trends of a stream: figures that follow its values at constant rates.

Owns: which there are, and how a value moves them. Does not know: experts, errors.

All that move by `figure + rate * (target - figure)` are rows of one array, and move at once.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from rillcast_training.model.experts.config import Constants

LEVELS: Final = (
    "spread", "size", "level", "slow", "drift", "season_drift", "phase_anomaly", "median", "holt", "trend",
)  # fmt: skip
_RATES: Final = LEVELS[:-3]  # the figures that move at a rate
_OF_SEASON: Final = ("season_drift", "phase_anomaly")
_NO_VALUE: Final = 1e-9  # in place of an age of zero: of a new stream all targets but the size are zero as well
_ONCE: Final = 1e9  # times an age, so that it counts at the first value alone


class Levels(nn.Module):
    """No parameters. Figures are `[10, B]`, in the order of `LEVELS`."""

    least: Tensor
    of_season: Tensor
    gains: Tensor
    factor: Tensor
    start: Tensor
    mask: Tensor

    def __init__(self, constants: Constants) -> None:
        super().__init__()
        self.constants = c = constants
        least = {"phase_anomaly": c.anomaly}
        factor = {"size": _ONCE, "phase_anomaly": 0.0}
        start = {"spread": _NO_VALUE, "drift": _NO_VALUE, "season_drift": 0.0, "phase_anomaly": _ONCE}
        tables = {
            "least": torch.tensor([[least.get(name, getattr(c, name, 0.0))] for name in _RATES]),
            "of_season": torch.tensor([[name == "season_drift"] for name in _RATES]),
            "gains": torch.tensor([[c.holt], [c.trend * c.holt]]),
            "factor": torch.tensor([[factor.get(name, 1.0)] for name in _RATES]),
            "start": torch.tensor([[start.get(name, 1.0)] for name in _RATES]),
            "mask": torch.tensor([int(name in _OF_SEASON) for name in LEVELS]),
        }
        for name, table in tables.items():
            self.register_buffer(name, table, persistent=False)

    def forward(
        self, levels: Tensor, y: Tensor, value: Tensor, last: Tensor, count: Tensor, cycles: Tensor, before: Tensor,
        on: Tensor, known: Tensor,
    ) -> Tensor:  # fmt: skip
        """Return the figures after a value.

        Args:
            levels: Figures before.
            y: `[1, B]` value.
            value: `[1, B]`, minus the offset.
            last: `[1, B]` the value before.
            count: `[1, B]` number of values before.
            cycles: `[1, B]` periods for which the value a season ago can be known, at least 1.
            before: `[2, B]` value a season ago, and running mean of the phase before.
            on: `[1, B]` bool, whether there is a value.
            known: `[1, B]` bool, whether the phase has a value.
        """
        c = self.constants
        rated, median, holt, trend = torch.split(levels, [len(_RATES), 1, 1, 1])
        apart = value - median
        sizes, changes = torch.cat([apart, y]).abs(), value - torch.cat([last, before])
        age = torch.where(self.of_season, cycles, count * self.factor + self.start)
        rate = torch.maximum(torch.ones(1) / age, self.least)
        rated = rated + rate * (torch.cat([sizes, value, value, changes]) - rated)
        limit = c.median * rated[:1]
        median = median + torch.maximum(torch.minimum(apart, limit), -limit)
        # A level with a trend that is damped: both follow from what the level missed by.
        damped = c.damping * trend
        level = holt + damped
        followed = torch.cat([level, damped]) + self.gains * (value - level)
        moved = torch.cat([rated, median, followed])
        return torch.where(torch.cat([on, on & known])[self.mask], moved, levels)


def row_of(name: str) -> int:
    """Return the row of a figure."""
    return LEVELS.index(name)
