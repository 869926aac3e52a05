"""Weights of the experts from the errors that each has made.

Owns: the errors, what they are compared with, and the power that turns them into weights. Does not know: what an
expert says, or how wide a forecast is.

Source: 'sleeping experts' (Freund, Schapire, Singer & Warmuth 1997; Blum 1997). An expert that has nothing to say of a
period sleeps. Its errors are compared with those of the plain experts on the periods at which it was awake, so that one
that wakes late, or on easy periods only, is neither punished nor favoured. Experts that wake together form a group.

Shapes: `[A, K, B]`, anchors, experts, batch; `[A, G, B]` by group. `own` maps K to G.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from rillcast_training.model.experts.config import ExpertsConfig

_FLOOR: Final = 1e-6  # of a relative error, below which experts are equal
_NEVER: Final = 1e30
_TINY: Final = 1e-30
_LAST_VALUE: Final = 1e-3  # weight before any error is known
_ANY: Final = 1e-6


class Errors(NamedTuple):
    """Sums of errors, with forgetting.

    Attributes:
        error: `[A, K, B]` absolute errors.
        reference: `[A, G, B]` reference errors on the same periods.
        judged: `[A, G, B]` number of those periods.
        plain: `[A, 1, B]` mean errors of the level and the last value.
    """

    error: Tensor
    reference: Tensor
    judged: Tensor
    plain: Tensor


class ExpertWeights(nn.Module):
    """No parameters."""

    own: Tensor
    patience: Tensor
    first: Tensor

    def __init__(self, config: ExpertsConfig, groups: tuple[str, ...], group_of: tuple[int, ...]) -> None:
        super().__init__()
        self.constants = config.constants
        self.anchors = len(config.anchors)
        self.levels = [number for number, (base, _) in enumerate(config.experts) if base == "level"]
        cycles = torch.tensor([2.0 * _season(group, config) for group in groups])
        patience = config.constants.patience + torch.tensor(config.anchors).unsqueeze(1) + cycles
        first = [_LAST_VALUE if expert == ("level", 1.0) else _ANY for expert in config.experts]
        self.register_buffer("own", torch.tensor(group_of), persistent=False)
        self.register_buffer("patience", 1 / patience.unsqueeze(2), persistent=False)
        self.register_buffer("first", torch.tensor(first).reshape(1, -1, 1), persistent=False)

    def forward(self, errors: Errors, awake: Tensor) -> Tensor:
        """Return weights `[A, K, B]` that sum to 1 over the experts that are awake, or are 0 where none is.

        Args:
            errors: Errors so far.
            awake: `[A, G, B]` bool, the groups that say something.
        """
        c = self.constants
        scored = awake & (errors.judged > 0)
        counts = scored.to(torch.float32)
        share = counts / errors.reference.clamp(min=_TINY)
        relative = _with_neighbours(errors.error * self._each(share), c.neighbour, self.anchors)
        number = _with_neighbours(counts, c.neighbour, self.anchors).clamp(min=_TINY)
        asleep = torch.where(scored, 0.0, _NEVER)
        relative = relative / self._each(number) + self._each(asleep)
        best = relative.amin(dim=1, keepdim=True)
        trust = (errors.judged * self.patience).clamp(max=1)
        weight = power((best + _FLOOR) / (relative + _FLOOR), c.power) * self._each(trust)
        unknown = torch.where(awake & ~scored, 1.0, 0.0)
        weight = weight + self._each(unknown) * self.first
        return weight / weight.sum(dim=1, keepdim=True).clamp(min=_TINY)

    def missed(self, errors: Errors, weights: Tensor) -> Tensor:
        """Return `[A, 1, B]`, the mean error of the experts by today's weights."""
        share = torch.where(errors.judged > 0, 1.0, 0.0) / errors.judged.clamp(min=_TINY)
        return (weights * errors.error * self._each(share)).sum(dim=1, keepdim=True)

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
        judged = torch.where(awake, c.forget * errors.judged + 1, errors.judged)
        plain = torch.where(valid, c.forget * errors.plain + levels, errors.plain)
        reference = levels + c.reference * plain / judged[:, :1].clamp(min=1e-9)
        return Errors(
            error=torch.where(self._each(awake), c.forget * errors.error + missed, errors.error),
            reference=torch.where(awake, c.forget * errors.reference + reference, errors.reference),
            judged=judged,
            plain=plain,
        )

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


def _with_neighbours(values: Tensor, share: float, anchors: int) -> Tensor:
    """Return `[A, ...]` plus a share of the values of the neighbouring anchors."""
    if anchors == 1:
        return values
    nothing = values[:1] * 0
    shared = share * values
    return values + torch.cat([shared[1:], nothing]) + torch.cat([nothing, shared[:-1]])


def _season(group: str, config: ExpertsConfig) -> int:
    """Return the season that a group's experts need, 0 for none."""
    if group == "plain":
        return 0
    return config.seasons[0 if group == "double" else int(group[-1])]
