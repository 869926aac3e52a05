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
    counted_prior: Tensor
    growth: Tensor
    neighbours: Tensor
    evidence: Tensor

    def __init__(self, config: ExpertsConfig, group_of: tuple[int, ...]) -> None:
        super().__init__()
        self.constants = config.constants
        self.levels = [number for number, (base, _) in enumerate(config.experts) if base == "level"]
        growth, prior = torch.tensor(config.prior.growth), torch.tensor(config.prior.relative)
        c = config.constants
        tables = {
            "own": torch.tensor(group_of),
            "prior": prior.unsqueeze(2),
            "counted_prior": c.prior_errors * prior.unsqueeze(2),
            "growth": c.prior_growth * torch.cat([growth[:1], growth[1:] / growth[:-1]]).reshape(-1, 1, 1),
            "neighbours": _with_neighbours(len(config.anchors), c.neighbour),
            "evidence": c.evidence * torch.tensor(config.anchors, dtype=torch.float32).reshape(-1, 1, 1),
        }
        for name, table in tables.items():
            self.register_buffer(name, table, persistent=False)

    def scale(self, errors: Errors, first: Tensor, least: Tensor) -> Tensor:
        """Return the plain experts' mean error at each anchor, `[A, 1, B]`.

        Where few errors are known, it is that of the anchor before, grown as it usually does.

        Args:
            errors: Errors so far.
            first: `[1, B]`, one period ahead before anything is known.
            least: `[1, B]`, its smallest value.
        """
        known = torch.ones(1) / (errors.judged + self.constants.prior_growth)
        own, grown = torch.split(errors.plain * known, 1), torch.split(self.growth * known, 1)
        judged = errors.judged[0]
        scales = [torch.where(judged > 0, errors.plain[0] / judged.clamp(min=_TINY), first).unsqueeze(0)]
        for anchor in range(1, len(own)):
            scales.append(own[anchor] + grown[anchor] * scales[-1])
        return torch.maximum(torch.cat(scales), least.clamp(min=_TINY))

    def relative(self, errors: Errors, scale: Tensor) -> Tensor:
        """Return the experts' errors over those of the plain ones, `[A, K, B]`, the prior included.

        What an expert missed by near ahead moves its prior far ahead.
        """
        c = self.constants
        unit = torch.ones(1) / scale
        error, reference = errors.error * unit, self._each(errors.reference * unit)
        # Not a product of matrices: with a batch of one it adds in another order.
        usual = (self.prior * reference).sum(dim=0)
        shift = (error.sum(dim=0) + c.prior_shift) / (usual + c.prior_shift)
        return (error + self.counted_prior * shift) / (reference + c.prior_errors)

    def forward(self, relative: Tensor, awake: Tensor, count: Tensor) -> Tensor:
        """Return weights `[A, K, B]` that sum to 1 over the experts that are awake, or are 0 where none is.

        The power of the errors grows with what is known: a stream has as many independent errors as it has stretches
        of the horizon.

        Args:
            relative: `[A, K, B]` relative errors.
            awake: `[A, G, B]` bool, the groups that say something.
            count: `[1, B]` number of values.
        """
        c = self.constants
        followed = count + c.evidence_start
        exponent = (-2 * c.power) * followed / (followed + self.evidence)
        asleep = self._each(torch.where(awake, 0.0, _NEVER))
        smooth = torch.matmul(self.neighbours, relative.flatten(1)).reshape(relative.shape) + asleep
        best = smooth.amin(dim=1, keepdim=True)
        # The first term of log(x / y) = 2 artanh((x - y) / (x + y)): a logarithm's last bits may depend on the batch.
        weight = torch.exp(exponent * ((smooth - best) / (smooth + best)) - asleep)
        return weight / weight.sum(dim=1, keepdim=True).clamp(min=_TINY)

    def learn(self, errors: Errors, missed: Tensor) -> tuple[Tensor, Tensor]:
        """Return what a period that has come adds to `plain`, and to `reference`, `[A, 1, B]` each.

        Args:
            errors: Errors before.
            missed: `[A, K, B]` absolute errors of what the experts said of it; of any value where they slept.
        """
        c = self.constants
        levels = missed[:, self.levels[0] : self.levels[-1] + 1].sum(dim=1, keepdim=True) / len(self.levels)
        plain, judged = c.forget * errors.plain + levels, c.forget * errors.judged + 1
        return levels, levels + c.reference * plain / judged

    def _each(self, of_groups: Tensor) -> Tensor:
        """Repeat a figure of the groups for their experts."""
        return of_groups[:, self.own]


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
