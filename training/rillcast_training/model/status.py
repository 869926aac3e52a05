"""The status of an event in the graph.

Owns: how it follows from the event. Does not know: state, clocks.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from rillcast.bundle.bundle import Status

_LATE, _GAP = -1.0, 2.0  # of the gap, as far as the status depends on it
_MISSING, _OBSERVED, _WARMING_UP = 0.0, 4.0, 8.0
_STATUS: Final = torch.tensor([
    *(Status.DUPLICATE, Status.MISSING, Status.GAP, Status.LATE),
    *(Status.DUPLICATE, Status.OK, Status.GAP, Status.LATE),
    *(Status.DUPLICATE, Status.WARMING_UP, Status.WARMING_UP, Status.LATE),
], dtype=torch.int8)  # fmt: skip
"""By the sum of both; -1 is the last one."""


def status_of(observed: Tensor, gap: Tensor, warming_up: Tensor) -> Tensor:
    """Return the status of events, `[B]` int8.

    Args:
        observed: `[B]` bool, whether the event has a value.
        gap: `[B]` int64, periods since the event before; 1 or more of a stream's first one.
        warming_up: `[B]` bool, whether its stream knows too few periods.
    """
    status = torch.where(warming_up, _WARMING_UP, torch.where(observed, _OBSERVED, _MISSING))
    # Not a clip of whole numbers, for which ONNX Runtime 1.31 has wrong results beyond 2 ** 31.
    status = status + gap.to(torch.float32).clamp(_LATE, _GAP)
    return _STATUS[status.to(torch.int64)]
