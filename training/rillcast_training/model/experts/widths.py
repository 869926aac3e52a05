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

_LARGEST: Final = 6.0  # width in units of what the trusted experts missed by
_TINY: Final = 1e-30
_FAR: Final = 1e6
UNITS: Final = 5
_PATIENCE: Final = 5.0  # misses until the units' losses count half
_SIZE_SHARE: Final = 0.1


class Misses(NamedTuple):
    """Sums of what forecasts missed by, with forgetting, and quantiles of the misses.

    Attributes:
        miss: `[A, 1, B]` absolute misses.
        unit: `[A, 3, B]` units of the forecasts: size, phase, and phase times what the trusted experts missed by.
        newest: `[A, 2, B]` the newest misses, and their number.
        loss: `[A, 5, B]` quantile loss of each unit.
        quantile: `[A, Q, B]` minus the quantiles of a normal distribution, in widths.
    """

    miss: Tensor
    unit: Tensor
    newest: Tensor
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
        self.register_buffer("normal", torch.tensor(normal).unsqueeze(1), persistent=False)
        self.register_buffer("levels", torch.tensor(config.quantiles).unsqueeze(1), persistent=False)
        self.sum_of_levels = math.fsum(config.quantiles)
        first_unit = torch.tensor([1.0] + [0.0] * (UNITS - 1)).unsqueeze(1)
        self.register_buffer("first_unit", first_unit, persistent=False)

    def units(self, point: Tensor, offset: Tensor, size: Tensor, width: Tensor) -> Tensor:
        """Return the units of size and phase, `[n, 2, B]`.

        Args:
            point: `[n, 1, B]` forecasts.
            offset: `[B]` to be added to them.
            size: `[B]` mean size of the stream's values.
            width: `[n, 1, B]` relative widths of their phases.
        """
        return torch.cat([(point + offset).abs() + _SIZE_SHARE * size, width], dim=1)

    def usual_size(self, last: Tensor, offset: Tensor, size: Tensor) -> Tensor:
        """Return the unit of size of the newest value, `[B]`."""
        return (last + offset).abs() + _SIZE_SHARE * size

    def ratios(self, misses: Misses, trusted: Tensor, size: Tensor) -> Tensor:
        """Return what a forecast misses by in each unit, `[A, 5, B]`.

        Args:
            misses: Misses so far.
            trusted: `[A, 1, B]` what the trusted experts missed by.
            size: `[B]` the unit of size of a usual value.
        """
        c = self.constants
        usual = torch.cat([size + 0 * trusted, torch.ones_like(trusted), trusted], dim=1)
        count = c.prior_misses
        by_unit = (misses.miss + count * trusted) / (misses.unit + count * usual).clamp(min=_TINY)
        newest = (misses.newest[:, :1] + count * trusted) / (misses.newest[:, 1:] + count)
        return torch.cat([trusted, newest, by_unit], dim=1)

    def learn(
        self, misses: Misses, miss: Tensor, unit: Tensor, trusted: Tensor, judged: Tensor, size: Tensor, valid: Tensor
    ) -> Misses:
        """Return the misses after a period has come.

        Args:
            misses: Misses before.
            miss: `[A, 1, B]` observation minus what the mixture said.
            unit: `[A, 2, B]` units of the forecast.
            trusted: `[A, 1, B]` what the trusted experts had missed by.
            judged: `[A, 1, B]` number of misses before.
            size: `[B]` the unit of size of a usual value.
            valid: `[A, 1, B]` bool, whether there was a forecast.
        """
        c = self.constants
        unit = torch.cat([unit, unit[:, 1:] * trusted], dim=1)
        ratio = self.ratios(misses, trusted, size)
        each = torch.cat([ratio[:, :2], ratio[:, 2:] * unit], dim=1)
        each = torch.minimum(each, _LARGEST * trusted)
        width = (self._shares(misses, judged) * each).sum(dim=1, keepdim=True)
        good = valid & (width > 0)
        quantile = misses.quantile + self.normal
        # Over the levels, the sum of max(l d, (l - 1) d) with d = miss - quantile each is that of l d plus max(-d, 0).
        beyond = torch.relu(quantile.unsqueeze(1) * each.unsqueeze(2) - miss.unsqueeze(2)).sum(dim=2)
        weighted = (self.levels * quantile).sum(dim=1, keepdim=True)
        pinball = beyond + self.sum_of_levels * miss - weighted * each
        above = quantile - (miss / width.clamp(min=_TINY)).clamp(-_FAR, _FAR)
        covered = (above * (1 / c.ramp) + 0.5).clamp(0, 1)
        rate = (torch.full((1,), 0.5) / (judged + 10)).clamp(min=c.quantile)
        moved = misses.quantile + rate * (self.levels - covered)
        size = miss.abs()
        newest = c.newest * misses.newest + torch.cat([size, torch.ones_like(size)], dim=1)
        return Misses(
            miss=torch.where(valid, c.forget * misses.miss + size, misses.miss),
            unit=torch.where(valid, c.forget * misses.unit + unit, misses.unit),
            newest=torch.where(valid, newest, misses.newest),
            loss=torch.where(good, c.forget * misses.loss + pinball, misses.loss),
            quantile=torch.where(good, moved, misses.quantile),
        )

    def at_anchors(
        self, misses: Misses, trusted: Tensor, judged: Tensor, size: Tensor, calibrate: Tensor | float
    ) -> tuple[Tensor, Tensor]:
        """Return what widths and quantiles at all horizons follow from: `[A, 4, B]` and `[A, Q, B]`.

        Args:
            misses: Misses so far.
            trusted: `[A, 1, B]` what the trusted experts missed by.
            judged: `[A, 1, B]` number of misses.
            size: `[B]` the unit of size of a usual value.
            calibrate: `[]`, share of the tracked quantiles; 0 = those of a normal distribution.

        Returns:
            The parts of the width that are constant, that grow with the size, and with the phase; the largest width;
            and quantiles in widths, not decreasing along Q.
        """
        part = self._shares(misses, judged) * self.ratios(misses, trusted, size)
        own, newest, by_size, by_phase, both = torch.split(part, 1, dim=1)
        quantile = calibrate * misses.quantile + self.normal
        quantile = quantile - self.constants.pin * quantile[:, self.middle : self.middle + 1]
        parts = torch.cat([own + newest, by_size, by_phase + both * trusted, _LARGEST * trusted], dim=1)
        return parts, self._in_order(quantile)

    def width(self, parts: Tensor, unit: Tensor) -> Tensor:
        """Return the width in the stream's unit, `[n, 1, B]`.

        Args:
            parts: `[n, 4, B]` of `at_anchors`.
            unit: `[n, 2, B]` the units of size and phase.
        """
        own, size, phase, largest = torch.split(parts, 1, dim=1)
        return torch.minimum(own + size * unit[:, :1] + phase * unit[:, 1:], largest)

    def _shares(self, misses: Misses, judged: Tensor) -> Tensor:
        """Return how much each unit counts, `[A, 5, B]`."""
        loss = misses.loss
        best = loss.amin(dim=1, keepdim=True)
        close = power((best + _TINY) / (loss + _TINY), self.constants.unit_power)
        trust = judged / (judged + _PATIENCE)
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
