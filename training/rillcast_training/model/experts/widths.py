"""How wide a forecast is: units of width, and the quantiles of the errors in those units.

Owns: the units, the trackers of the quantiles, and the quantiles at the anchors. Does not know: experts.

The width of a forecast is a unit times a mean ratio of miss and unit, at each anchor. Three units share it by their
quantile losses: what the trusted experts have missed by so far; the size of the value; the relative width of its phase.
Quantiles of the misses are tracked in units of the width (the quantile tracker of Angelopoulos, Candes &
Tibshirani 2023, Conformal PID control for time series prediction). Its step is a ramp, so that two machines whose
results differ in the last bit stay together.

Shapes: `[A, C, B]`, anchors, units, batch; `[A, Q, B]`, levels.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from rillcast_training.model.experts.config import ExpertsConfig
from rillcast_training.model.experts.weights import power

_LARGEST: Final = 6.0  # width in units of what the trusted experts missed by
_TINY: Final = 1e-30
_FAR: Final = 1e6
_PATIENCE: Final = 5.0  # misses until the units' losses count half
_SIZE_SHARE: Final = 0.1


class Misses(NamedTuple):
    """Sums of what forecasts missed by, with forgetting, and quantiles of the misses.

    Attributes:
        miss: `[A, 1, B]` absolute misses.
        missed: `[A, 1, B]` their number.
        unit: `[A, 2, B]` the second and third unit of the forecasts.
        loss: `[A, 3, B]` quantile loss of each unit.
        quantile: `[A, Q, B]` minus the quantiles of a normal distribution, in widths.
    """

    miss: Tensor
    missed: Tensor
    unit: Tensor
    loss: Tensor
    quantile: Tensor


class Widths(nn.Module):
    """No parameters."""

    normal: Tensor
    levels: Tensor
    first_unit: Tensor

    def __init__(self, config: ExpertsConfig) -> None:
        super().__init__()
        self.constants = config.constants
        self.count = len(config.quantiles)
        self.middle = min(range(self.count), key=lambda i: abs(config.quantiles[i] - 0.5))
        normal = [NormalDist().inv_cdf(q) * math.sqrt(math.pi / 2) for q in config.quantiles]
        before = (1, *config.anchors[:-1])
        self.growth = [math.sqrt(anchor / b) for anchor, b in zip(config.anchors, before, strict=True)]
        self.register_buffer("normal", torch.tensor(normal).unsqueeze(1), persistent=False)
        self.register_buffer("levels", torch.tensor(config.quantiles).unsqueeze(1), persistent=False)
        self.register_buffer("first_unit", torch.tensor([1.0, 0.0, 0.0]).unsqueeze(1), persistent=False)

    def units(self, point: Tensor, offset: Tensor, size: Tensor, width: Tensor) -> Tensor:
        """Return the second and third unit, `[n, 2, B]`.

        Args:
            point: `[n, 1, B]` forecasts.
            offset: `[B]` to be added to them.
            size: `[B]` mean size of the stream's values.
            width: `[n, 1, B]` relative widths of their phases.
        """
        return torch.cat([(point + offset).abs() + _SIZE_SHARE * size, width], dim=1)

    def learn(self, misses: Misses, miss: Tensor, unit: Tensor, trusted: Tensor, valid: Tensor) -> Misses:
        """Return the misses after a period has come.

        Args:
            misses: Misses before.
            miss: `[A, 1, B]` observation minus what the mixture said.
            unit: `[A, 2, B]` units of the forecast.
            trusted: `[A, 1, B]` what the trusted experts had missed by.
            valid: `[A, 1, B]` bool, whether there was a forecast.
        """
        c = self.constants
        ratio = misses.miss / misses.unit.clamp(min=_TINY)
        each = torch.cat([trusted, torch.minimum(ratio * unit, _LARGEST * trusted)], dim=1)
        width = (self._shares(misses) * each).sum(dim=1, keepdim=True)
        good = valid & (misses.missed > 0) & (width > 0)
        quantile = misses.quantile + self.normal
        distance = miss.unsqueeze(2) - quantile.unsqueeze(1) * each.unsqueeze(2)
        pinball = torch.maximum(self.levels * distance, (self.levels - 1) * distance).sum(dim=2)
        above = quantile - (miss / width.clamp(min=_TINY)).clamp(-_FAR, _FAR)
        covered = (above * (1 / c.ramp) + 0.5).clamp(0, 1)
        rate = (torch.full((1,), 0.5) / (misses.missed + 10)).clamp(min=c.quantile)
        moved = misses.quantile + rate * (self.levels - covered)
        size = miss.abs()
        return Misses(
            miss=torch.where(valid, c.unit_forget * misses.miss + size, misses.miss),
            missed=torch.where(valid, c.unit_forget * misses.missed + 1, misses.missed),
            unit=torch.where(valid, c.unit_forget * misses.unit + unit, misses.unit),
            loss=torch.where(good, c.unit_forget * misses.loss + pinball, misses.loss),
            quantile=torch.where(good, moved, misses.quantile),
        )

    def at_anchors(
        self, misses: Misses, trusted: Tensor, prior: Tensor, calibrate: Tensor | float
    ) -> tuple[Tensor, Tensor]:
        """Return what widths and quantiles at all horizons follow from: `[A, 3, B]` and `[A, Q, B]`.

        Args:
            misses: Misses so far.
            trusted: `[A, 1, B]` what the trusted experts missed by.
            prior: `[B]` width one period ahead before anything is known.
            calibrate: `[]`, share of the tracked quantiles; 0 = those of a normal distribution.

        Returns:
            Widths per unit times the units' shares, whose sum is the width; and quantiles in widths, not decreasing
            along Q. An anchor that was not judged yet takes the width of the one before, growing with the root of the
            horizon.
        """
        ratio = torch.cat([trusted, misses.miss / misses.unit.clamp(min=_TINY)], dim=1)
        known, widths = misses.missed > 0, []
        before = prior * self.first_unit
        for anchor, growth in enumerate(self.growth):
            before = torch.where(known[anchor], ratio[anchor], before * growth)
            widths.append(before)
        quantile = calibrate * misses.quantile + self.normal
        quantile = quantile - self.constants.pin * quantile[:, self.middle : self.middle + 1]
        return torch.stack(widths), self._in_order(quantile)

    def shared(self, misses: Misses, width: Tensor) -> Tensor:
        """Return the units' parts of the width, `[A, 3, B]`."""
        return self._shares(misses) * width

    def width(self, parts: Tensor, trusted: Tensor, unit: Tensor) -> Tensor:
        """Return the width in the stream's unit, `[n, 1, B]`.

        Args:
            parts: `[n, 3, B]` the units' parts.
            trusted: `[n, 1, B]` what the trusted experts missed by.
            unit: `[n, 2, B]` the second and third unit.
        """
        own, size, phase = torch.split(parts, 1, dim=1)
        return torch.minimum(own + size * unit[:, :1] + phase * unit[:, 1:], _LARGEST * trusted)

    def _shares(self, misses: Misses) -> Tensor:
        """Return how much each unit counts, `[A, 3, B]`."""
        loss = misses.loss
        best = loss.amin(dim=1, keepdim=True)
        close = power((best + _TINY) / (loss + _TINY), self.constants.unit_power)
        trust = misses.missed / (misses.missed + _PATIENCE)
        share = torch.where(loss[:, :1] > 0, trust * close + (1 - trust) * self.first_unit, self.first_unit)
        return share / share.sum(dim=1, keepdim=True)

    def _in_order(self, quantile: Tensor) -> Tensor:
        """Keep each level at least as far from the middle as the level before it."""
        rows = list(torch.split(quantile, 1, dim=1))
        for q in range(self.middle + 1, self.count):
            rows[q] = torch.maximum(rows[q], rows[q - 1])
        for q in reversed(range(self.middle)):
            rows[q] = torch.minimum(rows[q], rows[q + 1])
        return torch.cat(rows, dim=1)
