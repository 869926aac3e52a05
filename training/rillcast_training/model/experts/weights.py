"""Weights of the experts from the errors that each has made.

Owns: the errors, what they are compared with, and the power that turns them into weights. Does not know: what an
expert says, or how wide a forecast is.

Source: 'sleeping experts' (Freund, Schapire, Singer & Warmuth 1997; Blum 1997). An expert that has nothing to say of a
period sleeps. Its errors are compared with those of the plain experts on the periods at which it was awake, so that one
that wakes late, or on easy periods only, is neither punished nor favoured. Experts that wake together form a group.

A stream begins with a prior: errors that the experts usually make at each anchor, relative to the plain ones', which
count as a few errors of its own.

Shapes: `[A, K, B]`, anchors, experts, batch; `[A, G, B]` by group. `own` maps K to G.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from rillcast_training.model.experts.config import ExpertsConfig

_NEVER: Final = 1e15  # the relative error of an expert that sleeps
_TINY: Final = 1e-30


class Errors(NamedTuple):
    """Sums of errors, with forgetting.

    Attributes:
        error: `[A, K, B]` absolute errors.
        reference: `[A, G, B]` reference errors on the same periods.
        plain: `[A, 1, B]` mean errors of the level and the last value.
        judged: `[A, 1, B]` number of those.
    """

    error: Tensor
    reference: Tensor
    plain: Tensor
    judged: Tensor


class ExpertWeights(nn.Module):
    """No parameters."""

    own: Tensor
    prior: Tensor
    growth: Tensor
    neighbours: Tensor
    anchors: Tensor

    def __init__(self, config: ExpertsConfig, group_of: tuple[int, ...]) -> None:
        super().__init__()
        self.constants = config.constants
        self.later = len(config.anchors) - 1
        self.levels = [number for number, (base, _) in enumerate(config.experts) if base == "level"]
        growth, prior = torch.tensor(config.prior.growth), torch.tensor(config.prior.relative)
        tables = {
            "own": torch.tensor(group_of),
            "prior": prior.unsqueeze(2),
            "growth": (growth[1:] / growth[:-1]).reshape(-1, 1, 1),
            "neighbours": _with_neighbours(len(config.anchors), config.constants.neighbour),
            "anchors": torch.tensor(config.anchors, dtype=torch.float32).reshape(-1, 1, 1),
        }
        for name, table in tables.items():
            self.register_buffer(name, table, persistent=False)

    def scale(self, errors: Errors, first: Tensor, least: Tensor) -> Tensor:
        """Return the plain experts' error at each anchor, `[A, 1, B]`.

        Where few errors are known, it is that of the anchor before, grown as it usually does.

        Args:
            errors: Errors so far.
            first: `[B]`, one period ahead before anything is known.
            least: `[B]`, its smallest value.
        """
        c = self.constants
        known = torch.ones(1) / (errors.judged[1:] + c.prior_growth)
        own, grown = errors.plain[1:] * known, (c.prior_growth * self.growth) * known
        before = torch.where(errors.judged[0] > 0, errors.plain[0] / errors.judged[0].clamp(min=_TINY), first)
        scales = [before]
        for anchor in range(self.later):
            before = own[anchor] + grown[anchor] * before
            scales.append(before)
        return ((1 + c.reference) * torch.maximum(torch.stack(scales), least)).clamp(min=_TINY)

    def relative(self, errors: Errors, scale: Tensor) -> Tensor:
        """Return the experts' errors over those of the plain ones, `[A, K, B]`, the prior included.

        What an expert missed by near ahead moves its prior far ahead.
        """
        c = self.constants
        unit = torch.ones(1) / scale
        error, reference = errors.error * unit, errors.reference * unit
        # Not a product of matrices: with a batch of one it adds in another order.
        usual = (self.prior * self._each(reference)).sum(dim=0)
        shift = (error.sum(dim=0) + c.prior_shift) / (usual + c.prior_shift)
        share = self._each(torch.ones(1) / (reference + c.prior_errors))
        return (error + (c.prior_errors * self.prior) * shift) * share

    def forward(self, relative: Tensor, awake: Tensor, count: Tensor) -> Tensor:
        """Return weights `[A, K, B]` that sum to 1 over the experts that are awake, or are 0 where none is.

        The power of the errors grows with what is known: a stream has as many independent errors as it has stretches
        of the horizon.

        Args:
            relative: `[A, K, B]` relative errors.
            awake: `[A, G, B]` bool, the groups that say something.
            count: `[B]` number of values.
        """
        c = self.constants
        followed = count + c.evidence_start
        exponent = c.power * followed / (followed + c.evidence * self.anchors)
        asleep = self._each(torch.where(awake, 0.0, _NEVER))
        smooth = torch.matmul(self.neighbours, relative.flatten(1)).reshape(relative.shape) + asleep
        best = smooth.amin(dim=1, keepdim=True)
        weight = torch.exp(-exponent * log_ratio(smooth, best) - asleep)
        return weight / weight.sum(dim=1, keepdim=True).clamp(min=_TINY)

    def learn(self, errors: Errors, missed: Tensor, awake: Tensor, valid: Tensor) -> Errors:
        """Return the errors after a period has come.

        Args:
            errors: Errors before.
            missed: `[A, K, B]` absolute errors of what the experts said of it; of any value where they slept.
            awake: `[A, G, B]` bool, which groups had said something.
            valid: `[A, 1, B]` bool, whether there was a forecast at all.
        """
        c = self.constants
        levels = missed[:, self.levels[0] : self.levels[-1] + 1].sum(dim=1, keepdim=True) / len(self.levels)
        judged = torch.where(valid, c.forget * errors.judged + 1, errors.judged)
        plain = torch.where(valid, c.forget * errors.plain + levels, errors.plain)
        reference = levels + c.reference * plain / judged.clamp(min=1e-9)
        return Errors(
            error=torch.where(self._each(awake), c.forget * errors.error + missed, errors.error),
            reference=torch.where(awake, c.forget * errors.reference + reference, errors.reference),
            plain=plain,
            judged=judged,
        )

    def _each(self, of_groups: Tensor) -> Tensor:
        """Repeat a figure of the groups for their experts."""
        return of_groups[:, self.own]


def log_ratio(x: Tensor, y: Tensor) -> Tensor:
    """Return about log(x / y), less than it for large ratios.

    The first term of 2 artanh((x - y) / (x + y)): a logarithm's last bits may depend on the place in the batch.
    """
    return 2 * (x - y) / (x + y)


def power(x: Tensor, exponent: int) -> Tensor:
    """Return `x ** exponent` by squaring: no logarithm, whose last bits may depend on the place in the batch."""
    result, square = None, x
    while exponent:
        if exponent % 2:
            result = square if result is None else result * square
        exponent //= 2
        if exponent:
            square = square * square
    assert result is not None  # the exponent is positive
    return result


def _with_neighbours(anchors: int, share: float) -> Tensor:
    """Return `[A, A]`: means of each anchor and a share of its neighbours."""
    near = torch.eye(anchors)
    for number in range(anchors - 1):
        near[number, number + 1] = near[number + 1, number] = share
    return near / near.sum(dim=1, keepdim=True)
