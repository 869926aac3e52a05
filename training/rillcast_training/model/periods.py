"""Periods of times in the graph: the arithmetic of `rillcast.bundle.frequency` on tensors, in int64 alone.

Owns: the two divisions as the exporter keeps them in whole numbers (docs/adr/0001). Does not know: frequencies.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from rillcast.bundle.frequency import Frequency

_whole = partial(torch.div, rounding_mode="trunc")  # one operator in ONNX


def floor_div(numbers: Tensor, divisor: int) -> Tensor:
    """Return int64 numbers by a divisor above zero, rounded down."""
    divided: Tensor = _FloorDiv.apply(numbers, divisor)
    return divided


class _FloorDiv(torch.autograd.Function):
    """Rounds down with ONNX's division, which drops the fraction. Never differentiated.

    The exporter's own way takes nine operators. A clip to -1 and 0 would be one operator less, but in ONNX Runtime
    1.31 it has wrong results for int64 from -2 ** 32 to -2 ** 31.
    """

    @staticmethod
    def forward(ctx: Any, numbers: Tensor, divisor: int) -> Tensor:  # noqa: ARG004  the signature is PyTorch's
        return torch.div(numbers, divisor, rounding_mode="floor")

    @staticmethod
    def symbolic(g: Any, numbers: Any, divisor: int) -> Any:
        minus, zero, by = (g.op("Constant", value_t=torch.tensor(value)) for value in (-1, 0, divisor))
        negative = g.op("Where", g.op("Less", numbers, zero), minus, zero)
        divided = g.op("Div", g.op("Sub", numbers, negative), by)  # no difference leaves int64
        return g.op("Add", divided, negative).setType(numbers.type())


def periods_of(ds: Tensor, frequency: Frequency) -> Tensor:
    """Return the periods in which times lie.

    Args:
        ds: `[...]` int64, milliseconds since the epoch.
        frequency: Frequency of the periods.
    """
    return frequency.period_of(ds, floor_div, _whole)
