"""Mixed precision: where matrix products may be taken in bfloat16, and where that ends.

Owns: entering and leaving mixed precision. Does not know: modules, devices, training.

bfloat16 has the range of float32 with 8 significant bits, so gradients need no loss scaling. A sum or difference of
unlike sizes is lost in it: a daily change at a level 300 times as large, or a step of a slowly forgetting recurrence.
So only products, inside `mixed`, use it. Values that are summed over time, over horizons or in a loss are `widened`
first. Outside of `mixed` both functions do nothing.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def mixed(device: torch.device, products: torch.dtype) -> AbstractContextManager[object]:
    """Return a context in which modules on `device` multiply matrices in `products`. Contexts may be nested."""
    if products is torch.float32 and not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, products, enabled=products is not torch.float32)


def widened(tensor: Tensor) -> Tensor:
    """Return a bfloat16 tensor as float32, and any other tensor unchanged."""
    return tensor.float() if tensor.dtype is torch.bfloat16 else tensor
