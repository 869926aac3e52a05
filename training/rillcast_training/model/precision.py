"""Mixed precision: where matrix products may be taken in bfloat16, and where that ends.

Owns: entering and leaving mixed precision. Does not know: modules, devices, training.

bfloat16 has the range of float32 with 8 significant bits, so gradients need no loss scaling. A sum or difference of
unlike sizes is lost in it: a daily change at a level 300 times as large, or a step of a slowly forgetting recurrence.
So only products, inside `mixed`, use it. Values that are summed over time, over horizons or in a loss are `widened`
first. Outside of `mixed` both functions do nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache

import torch
from torch import Tensor, nn


def mixed(device: torch.device, products: torch.dtype) -> AbstractContextManager[object]:
    """Return a context in which modules on `device` multiply matrices in `products`. Contexts may be nested."""
    if products is torch.float32 and not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, products, enabled=products is not torch.float32)


def widened(tensor: Tensor) -> Tensor:
    """Return a bfloat16 tensor as float32, and any other tensor unchanged."""
    return tensor.float() if tensor.dtype is torch.bfloat16 else tensor


def supported_kernels(module: nn.RNNBase, device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which PyTorch can run a recurrent module in the precision in force.

    oneDNN has no bfloat16 LSTM for CPUs without AVX-512, and PyTorch 2.15 raises where it could use its own kernel.
    Such a module runs without oneDNN. Everything else is left as it is.
    """
    if device.type != "cpu" or not torch.is_autocast_enabled("cpu") or _onednn_runs(module.mode):
        return nullcontext()
    return _without_onednn()


@cache
def _onednn_runs(mode: str) -> bool:
    """Try a module of a mode (PyTorch's name: `LSTM`, `GRU`, `RNN_TANH`) in bfloat16."""
    try:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            {"LSTM": nn.LSTM, "GRU": nn.GRU}.get(mode, nn.RNN)(2, 2, batch_first=True)(torch.ones(1, 2, 2))
    except RuntimeError:
        return False
    return True


@contextmanager
def _without_onednn() -> Iterator[None]:
    with warnings.catch_warnings():
        # `flags` sets every flag again, and PyTorch warns of one that is for Intel's GPUs.
        warnings.filterwarnings("ignore", message="TF32 acceleration on top of oneDNN", category=UserWarning)
        with torch.backends.mkldnn.flags(enabled=False):
            yield
