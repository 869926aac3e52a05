"""How wide a forecast is: units of width, and the quantiles of the errors in those units.

Owns: the units, the trackers of the quantiles, and the quantiles at the anchors. Does not know: experts.

The width of a forecast is a unit times a mean ratio of miss and unit, at each anchor. Five units share it by their
quantile losses: what the trusted experts have missed by so far; the same times the relative width of the phase; the
mean of the newest misses; the size of the value; the relative width of the phase. Each starts from the first.
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
from rillcast_training.model.operators import ramp

_LARGEST: Final = 6.0  # width in units of what the trusted experts missed by
_TINY: Final = 1e-30
_NO_LOSS: Final = 2e-30
_FAR: Final = 1e6
UNITS: Final = 5
_PATIENCE: Final = 5.0  # misses until the units' losses count half
_SIZE_SHARE: Final = 0.1


class Misses(NamedTuple):
    """What forecasts missed by: sums with forgetting, and quantiles.

    Attributes:
        missed: `[A, 2, B]` absolute misses: of all forecasts, and of the newest ones.
        unit: `[A, 4, B]` number of the newest ones, and units of the forecasts: size, phase, and phase times what the
            trusted experts missed by.
        loss: `[A, 5, B]` quantile loss of each unit.
        quantile: `[A, Q, B]` minus the quantiles of a normal distribution, in widths.
    """

    missed: Tensor
    unit: Tensor
    loss: Tensor
    quantile: Tensor


class Learnt(NamedTuple):
    """What a forecast's miss brings.

    Attributes:
        added: What it adds to `Misses`.
        good: `[A, 1, B]` bool, whether it counts for loss and quantiles.
        relative: `[A, 1, B]` the miss in widths of the forecast; of any value where it does not count.
        trusted: `[A, 1, B]` what the trusted experts were expected to miss by.
    """

    added: list[Tensor]
    good: Tensor
    relative: Tensor
    trusted: Tensor


class Widths(nn.Module):
    """No parameters."""

    normal: Tensor
    levels: Tensor
    first_unit: Tensor
    misses: Tensor
    one: Tensor
    slowest: Tensor
    prior: Tensor
    prior_size: Tensor

    def __init__(self, config: ExpertsConfig) -> None:
        super().__init__()
        self.constants = c = config.constants
        self.count = len(config.quantiles)
        self.middle = min(range(self.count), key=lambda i: abs(config.quantiles[i] - 0.5))
        self.sum_of_levels = math.fsum(config.quantiles)
        normal = [NormalDist().inv_cdf(q) * math.sqrt(math.pi / 2) for q in config.quantiles]
        tables = {
            "normal": torch.tensor(normal).unsqueeze(1),
            "levels": torch.tensor(config.quantiles).unsqueeze(1),
            "first_unit": torch.tensor([1.0] + [0.0] * (UNITS - 1)).unsqueeze(1),
            "misses": torch.tensor([1, 0, 0, 0]),  # of the newest misses, and of all of them for the other units
            "one": torch.ones(len(config.anchors), 1, 1),
            "slowest": (c.quantile / torch.tensor(config.anchors).sqrt()).reshape(-1, 1, 1),
            "prior": c.prior_misses * torch.tensor([1.0, 0.0, 1.0]).reshape(1, 3, 1).repeat(len(config.anchors), 1, 1),
            "prior_size": c.prior_misses * torch.tensor([0.0, 1.0, 0.0]).unsqueeze(1),
        }
        for name, table in tables.items():
            self.register_buffer(name, table, persistent=False)

    def usual_size(self, last: Tensor, offset: Tensor, size: Tensor) -> Tensor:
        """Return the unit of size of the newest value, `[1, B]`."""
        return (last + offset).abs() + _SIZE_SHARE * size

    def learn(
        self, misses: Misses, ratio: Tensor, share: Tensor, judged: Tensor, size: Tensor, miss: Tensor, valid: Tensor,
        width: Tensor,
    ) -> Learnt:  # fmt: skip
        """Return what is learnt when a period has come.

        Args:
            misses: Misses before.
            ratio: `[A, 5, B]` what a forecast was expected to miss by in each unit, of `ratios`.
            share: `[A, 5, B]` how much each unit counted, of `shares`.
            judged: `[A, 1, B]` number of misses before.
            size: `[A, 1, B]` unit of size of the forecasts.
            miss: `[A, 1, B]` observation minus what the mixture said.
            valid: `[A, 1, B]` bool, whether there was a forecast.
            width: `[1, B]` relative width of the period's phase.
        """
        trusted, newest, by_unit = torch.split(ratio, [1, 1, 3], dim=1)
        phase = width * self.one
        unit = torch.cat([size, phase, phase * trusted], dim=1)
        each = torch.minimum(torch.cat([trusted, newest, by_unit * unit], dim=1), _LARGEST * trusted)
        spread = (share * each).sum(dim=1, keepdim=True)
        quantile = misses.quantile + self.normal
        # Over the levels, the sum of max(l d, (l - 1) d) with d = miss - quantile each is that of
        # max(quantile each, miss) less (1 - l) miss + l quantile each.
        beyond = torch.maximum(quantile.unsqueeze(1) * each.unsqueeze(2), miss.unsqueeze(2)).sum(dim=2)
        weighted = (self.levels * quantile).sum(dim=1, keepdim=True)
        pinball = beyond - (self.count - self.sum_of_levels) * miss - weighted * each
        relative = (miss / spread.clamp(min=_TINY)).clamp(-_FAR, _FAR)
        absolute = miss.abs()
        moved = self.moved(quantile, relative, judged)
        added = [absolute, absolute, valid.to(miss.dtype), unit, pinball, moved]
        return Learnt(added, valid & (spread > 0), relative, trusted)

    def moved(self, quantile: Tensor, relative: Tensor, judged: Tensor) -> Tensor:
        """Return by how much a miss moves the quantiles, `[A, Q, B]`.

        Args:
            quantile: `[A, Q, B]` in widths.
            relative: `[A, 1, B]` the miss, in widths.
            judged: `[A, 1, B]` number of misses before.
        """
        covered = ramp(quantile - relative, 1 / self.constants.ramp)
        rate = torch.maximum(torch.full((1,), 0.5) / (judged + 10), self.slowest)
        return rate * (self.levels - covered)

    def kept(self) -> list[tuple[int, float]]:
        """Return runs of columns of `Misses`, and the share of each that is kept at a miss."""
        c = self.constants
        return [(1, c.forget), (2, c.newest), (3 + UNITS, c.forget), (self.count, 1.0)]

    def ratios(self, misses: Misses, trusted: Tensor, size: Tensor) -> Tensor:
        """Return what a forecast misses by in each unit, `[A, 5, B]`.

        Args:
            misses: Misses so far.
            trusted: `[A, 1, B]` what the trusted experts missed by.
            size: `[1, B]` the unit of size of a usual value.
        """
        counted = self.constants.prior_misses * trusted
        missed = misses.missed[:, self.misses] + counted
        units = misses.unit + torch.cat([self.prior + self.prior_size * size, counted], dim=1)
        return torch.cat([trusted, missed / units.clamp(min=_TINY)], dim=1)

    def shares(self, misses: Misses, judged: Tensor) -> Tensor:
        """Return how much each unit counts, `[A, 5, B]`, after `judged` misses, `[A, 1, B]`."""
        loss = misses.loss + _TINY
        close = power(loss.amin(dim=1, keepdim=True) / loss, self.constants.unit_power)
        trust = torch.where(loss[:, :1] > _NO_LOSS, judged / (judged + _PATIENCE), 0.0)
        share = self.first_unit + trust * (close - self.first_unit)
        return share / share.sum(dim=1, keepdim=True)

    def at_anchors(self, ratio: Tensor, share: Tensor) -> Tensor:
        """Return what widths at all horizons follow from, `[A, 4, B]`.

        They are the parts of the width that are constant, that grow with the size, and with the phase; and the largest
        width.
        """
        trusted = ratio[:, :1]
        own, newest, by_size, by_phase, both = torch.split(share * ratio, 1, dim=1)
        return torch.cat([own + newest, by_size, by_phase + both * trusted, _LARGEST * trusted], dim=1)

    def quantiles(self, misses: Misses, calibrate: Tensor | float) -> Tensor:
        """Return quantiles in widths, `[A, Q, B]`, not decreasing along Q.

        Args:
            misses: Misses so far.
            calibrate: `[]`, share of the tracked quantiles; 0 = those of a normal distribution.
        """
        quantile = calibrate * misses.quantile + self.normal
        return self._in_order(quantile - self.constants.pin * quantile[:, self.middle : self.middle + 1])

    def width(self, parts: list[Tensor], point: Tensor, size: Tensor, phase: Tensor) -> Tensor:
        """Return the width in the stream's unit, `[n, 1, B]`.

        Args:
            parts: Four of `[n, 1, B]`, the columns of `at_anchors`.
            point: `[n, 1, B]` forecasts.
            size: `[1, B]` mean size of the stream's values.
            phase: `[n, 1, B]` relative widths.
        """
        own, by_size, by_phase, largest = parts
        return torch.minimum(own + by_size * (point.abs() + _SIZE_SHARE * size) + by_phase * phase, largest)

    def _in_order(self, quantile: Tensor) -> Tensor:
        """Keep each level at least as far from the middle as the level before it."""
        rows = list(torch.split(quantile, 1, dim=1))
        for q in range(self.middle + 1, self.count):
            rows[q] = torch.maximum(rows[q], rows[q - 1])
        for q in reversed(range(self.middle)):
            rows[q] = torch.minimum(rows[q], rows[q + 1])
        return torch.cat(rows, dim=1)
