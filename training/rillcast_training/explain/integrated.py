"""Integrated gradients of any differentiable function (Sundararajan, Taly & Yan 2017, Axiomatic attribution for deep
networks, ICML).

    (1)  attribution_i = (x_i - b_i) * integral over a in [0, 1] of dF(b + a (x - b)) / dx_i

x the input, b the baseline. Completeness: the attributions sum to F(x) - F(b). The integral is taken by the midpoint
rule; the number of points is doubled until completeness holds. Owns: the integration. Does not know: F.
"""  # noqa: D205 - the method's source is the summary

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

Inputs = tuple[Tensor, ...]
Function = Callable[[Inputs], Tensor]

TOLERANCE: Final = 0.01  # share of |F(x) - F(b)|, or of `unit` where that is larger
_FIRST_POINTS: Final = 32
_MOST_POINTS: Final = 1_024
_AT_ONCE: Final = 16


@dataclass(frozen=True, slots=True)
class Attribution:
    """Result of an integration.

    Attributes:
        parts: Attributions, one per input, shaped like it.
        value: F(x).
        baseline: F(b).
        points: Points of the midpoint rule.
        gap: |sum of attributions - (F(x) - F(b))| relative to the larger of |F(x) - F(b)| and the unit.
    """

    parts: Inputs
    value: float
    baseline: float
    points: int
    gap: float

    @property
    def complete(self) -> bool:
        """Whether the attributions add up to what they explain."""
        return self.gap <= TOLERANCE


def integrated_gradients(function: Function, inputs: Inputs, baseline: Inputs, *, unit: float) -> Attribution:
    """Attribute F(x) - F(b) to the elements of the inputs.

    Args:
        function: F, from inputs with a leading dimension `[S]` to `[S]`; rows must not affect each other.
        inputs: x, without that dimension.
        baseline: b, without that dimension.
        unit: A negligible difference of F; the gap is not measured against less.
    """
    with torch.no_grad():
        value, start = (float(function(tuple(part.unsqueeze(0) for part in at))) for at in (inputs, baseline))
    points = _FIRST_POINTS
    while True:
        parts = _integrate(function, inputs, baseline, points)
        total = sum(float(part.double().sum()) for part in parts)
        gap = abs(total - (value - start)) / max(abs(value - start), unit)
        if gap <= TOLERANCE or points >= _MOST_POINTS:
            return Attribution(parts, value, start, points, gap)
        points *= 2


def _integrate(function: Function, inputs: Inputs, baseline: Inputs, points: int) -> Inputs:
    sums = [torch.zeros_like(part) for part in inputs]
    for shares in torch.split((torch.arange(points) + 0.5) / points, _AT_ONCE):
        along = tuple(
            (b + shares.reshape(-1, *[1] * x.dim()) * (x - b)).requires_grad_()
            for x, b in zip(inputs, baseline, strict=True)
        )
        gradients = torch.autograd.grad(function(along).sum(), along, materialize_grads=True)
        for total, gradient in zip(sums, gradients, strict=True):
            total += gradient.sum(0)
    return tuple(total / points * (x - b) for total, x, b in zip(sums, inputs, baseline, strict=True))
