"""Periods of times in the graph: the arithmetic of `rillcast.bundle.frequency` on tensors, in int64 alone.

Owns: the two divisions as the exporter keeps them in whole numbers (docs/adr/0001). Does not know: frequencies.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from rillcast.bundle.frequency import Frequency

_floor = partial(torch.div, rounding_mode="floor")
_whole = partial(torch.div, rounding_mode="trunc")  # one operator in ONNX; rounding down takes nine more


def periods_of(ds: Tensor, frequency: Frequency) -> Tensor:
    """Return the periods in which times lie.

    Args:
        ds: `[...]` int64, milliseconds since the epoch.
        frequency: Frequency of the periods.
    """
    return frequency.period_of(ds, _floor, _whole)
