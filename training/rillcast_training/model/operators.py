"""Functions that are one operator of ONNX, where PyTorch's exporter writes several.

Owns: their meaning in PyTorch and their operator. Does not know: what they are used for. Each rounds a number on its
own, independent of its position.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def ramp(x: Tensor, slope: float) -> Tensor:
    """Return 0 to 1: a line of a slope above zero that is 0.5 where `x` is 0."""
    found: Tensor = _Ramp.apply(x, slope)
    return found


def bent(x: Tensor, slope: Tensor) -> Tensor:
    """Return `x` where it is not negative, else `slope * x`; the shape of `slope` broadcasts to that of `x`."""
    found: Tensor = _Bent.apply(x, slope)
    return found


class _Ramp(torch.autograd.Function):
    """Never differentiated."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: float) -> Tensor:  # noqa: ARG004  the signature is PyTorch's
        return (x * slope + 0.5).clamp(0, 1)

    @staticmethod
    def symbolic(g: Any, x: Any, slope: float) -> Any:
        return g.op("HardSigmoid", x, alpha_f=slope, beta_f=0.5).setType(x.type())


class _Bent(torch.autograd.Function):
    """Never differentiated."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: Tensor) -> Tensor:  # noqa: ARG004  the signature is PyTorch's
        return torch.where(x < 0, slope * x, x)

    @staticmethod
    def symbolic(g: Any, x: Any, slope: Any) -> Any:
        return g.op("PRelu", x, slope).setType(x.type())
