"""Device and precision of a training run.

Owns: the choice of both, how a batch gets to the device, which kernels are allowed there. Does not know: the model, the
loss, the loop.

Invariants: weights, observations, features, scales and losses are float32 on every device. bfloat16 is for the matrix
products of cells and head alone (`rillcast_training.model.precision` says why). The bundle is exported from the CPU in
float32 on any device. On the CPU in float32, which is `auto` without CUDA, nothing here changes any number.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal

import torch
from torch import Tensor, nn

from rillcast.errors import DeviceError
from rillcast_training.data.windows import Batch
from rillcast_training.fit.options import DeviceName, PrecisionName
from rillcast_training.model.precision import mixed

_TYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_CUBLAS_WORKSPACE: Final = ":4096:8"  # one of the two sizes with which cuBLAS is deterministic


@dataclass(frozen=True, slots=True)
class Compute:
    """A device and a precision.

    Attributes:
        device: Device of module, batches and losses.
        precision: Precision of the matrix products of cells and head in training.
    """

    device: torch.device
    precision: Literal["float32", "bfloat16"]

    @property
    def products(self) -> torch.dtype:
        """The precision as PyTorch's type."""
        return _TYPES[self.precision]

    def put(self, batch: Batch) -> Batch:
        """Return a batch on the device.

        To a GPU it goes from pinned memory without waiting, so the next batch is made while this one is computed.
        """
        if self.device.type == "cpu":
            return batch

        def moved(tensor: Tensor) -> Tensor:
            return tensor.pin_memory().to(self.device, non_blocking=True)

        sequences, *others = batch
        there = (None if part is None else moved(part) for part in sequences)
        return Batch(type(sequences)(*there), *map(moved, others))

    @contextmanager
    def repeatable(self) -> Iterator[None]:
        """Ask a GPU for kernels that give the same bits each time, and for full float32 products.

        An operator without such a kernel warns. On the CPU all kernels repeat themselves, and nothing is changed.
        """
        if self.device.type == "cpu":
            yield
            return
        before = torch.are_deterministic_algorithms_enabled()
        warned = torch.is_deterministic_algorithms_warn_only_enabled()
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
                yield
        finally:
            torch.use_deterministic_algorithms(before, warn_only=warned)


def choose(device: DeviceName, precision: PrecisionName) -> Compute:
    """Return device and precision.

    Args:
        device: `auto` takes CUDA where PyTorch can use it, else the CPU.
        precision: `auto` takes bfloat16 on CUDA where the GPU and PyTorch's kernels have it, else float32.

    Raises:
        DeviceError: `cuda` was asked for and does not work here, or bfloat16 was and the device has none.
    """
    missing = _cuda_missing() if device != "cpu" else None
    if device == "cuda" and missing is not None:
        raise DeviceError(
            f"--device cuda, but {missing}; install PyTorch for CUDA (https://pytorch.org/get-started/locally) and an "
            "NVIDIA driver, or train with --device cpu or auto"
        )
    chosen = torch.device("cpu" if device == "cpu" or missing is not None else "cuda")
    if precision == "float32" or (precision == "auto" and chosen.type == "cpu"):
        return Compute(chosen, "float32")
    lacking = _without_bfloat16(chosen)
    if lacking is None:
        return Compute(chosen, "bfloat16")
    if precision == "bfloat16":
        raise DeviceError(f"--precision bfloat16, but {lacking}; train with --precision float32 or auto")
    return Compute(chosen, "float32")


def _cuda_missing() -> str | None:
    """Return why CUDA cannot be used; None where it can."""
    if not torch.backends.cuda.is_built():  # type: ignore[no-untyped-call]  # PyTorch has no annotation here
        return f"this PyTorch ({torch.__version__}) is built without CUDA"
    if not torch.cuda.is_available():
        return f"PyTorch {torch.__version__} finds no GPU and driver that it can use"
    os.environ.setdefault(
        "CUBLAS_WORKSPACE_CONFIG", _CUBLAS_WORKSPACE
    )  # cuBLAS reads it once, before its first product
    return _refusal(torch.device("cuda"), torch.float32)


def _without_bfloat16(device: torch.device) -> str | None:
    """Return why the device cannot train in bfloat16; None where it can."""
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return f"{torch.cuda.get_device_name(device)} has none (NVIDIA GPUs have it from compute capability 8.0)"
    return _refusal(device, torch.bfloat16)


def _refusal(device: torch.device, products: torch.dtype) -> str | None:
    """Return PyTorch's error for a step of training; None if it takes one.

    A device or a type that PyTorch lists need not have kernels: cuDNN's recurrent ones take bfloat16 from some version
    on, and a build has kernels for some generations of GPUs.
    """
    cell = nn.GRU(2, 2, batch_first=True)
    try:
        with mixed(device, products):
            outputs = cell.to(device)(torch.ones(1, 2, 2, device=device))[0]
        outputs.float().sum().backward()
        float(outputs.detach().float().sum())  # a GPU's kernels report a failure only when their result is read
    except RuntimeError as error:
        return f"a step of training on it fails: {str(error).strip().splitlines()[0]}"
    return None
