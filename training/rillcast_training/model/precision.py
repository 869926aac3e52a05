"""Mixed precision: where matrix products may be taken in bfloat16, and where that ends.

Owns: entering it and leaving it. Does not know: modules, devices, training.

bfloat16 has float32's range with 8 significant bits, so gradients need no loss scaling, but a sum or a difference of
unlike sizes is lost in it: a daily change where the level is three hundred times as large, or a step of a recurrence
that forgets slowly. So it is for products alone, inside `mixed`; what is added up over time, over horizons or in a
loss is `widened` first. Outside of `mixed` both do nothing.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def mixed(device: torch.device, products: torch.dtype) -> AbstractContextManager[object]:
    """Return a context in which modules on `device` multiply matrices in `products`; within another one, too."""
    if products is torch.float32 and not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, products, enabled=products is not torch.float32)


def widened(tensor: Tensor) -> Tensor:
    """Return a bfloat16 tensor as float32, and any other as it is."""
    return tensor.float() if tensor.dtype is torch.bfloat16 else tensor
