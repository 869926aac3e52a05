"""Training by several processes, as `torchrun` starts them.

Owns: the group of processes, which rows of a batch each one takes, and the sums over all of them. Does not know: the
loop, the loss, files. Without a group everything here is the identity, so the loop has one form.

Every process draws the same windows and takes every n-th of them; losses, numbers of targets and gradients are summed
before the optimiser steps. So a step is that of one process on the whole batch, and every process ends with the same
weights (Li et al. 2020, PyTorch distributed: experiences on accelerating data parallel training).

Invariant: whatever decides how a run goes on (figures of validation, a checkpoint's content) is the same in all
processes: it is summed over them, or comes from the first one. The first one alone writes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from rillcast.errors import SettingsError

_VARIABLES: Final = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")  # torchrun sets them
_Content = TypeVar("_Content")


@contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Run as one process of the group that `torchrun` started; as the only one where none did.

    Args:
        device: Device that is trained on. On CUDA each process of a machine takes the GPU of its local rank.

    Raises:
        SettingsError: The variables of `torchrun` are incomplete, or a machine has more processes than GPUs.
    """
    if not are_several():
        yield
        return
    if lacking := [name for name in _VARIABLES if not os.environ.get(name)]:
        raise SettingsError(f"WORLD_SIZE is set, but {', '.join(lacking)} is not; start the processes with torchrun")
    if device.type == "cuda":
        local = int(os.environ["LOCAL_RANK"])
        if local >= torch.cuda.device_count():
            raise SettingsError(
                f"local process {local} has no GPU of its own: {torch.cuda.device_count()} found; "
                "lower --nproc-per-node, or train with --device cpu"
            )
        torch.cuda.set_device(local)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def is_first() -> bool:
    """Return whether this process writes files and prints; also before the group exists and after its end."""
    return os.environ.get("RANK", "0") == "0"


def are_several() -> bool:
    """Return whether `torchrun` started more than this process."""
    return os.environ.get("WORLD_SIZE", "1") != "1"


def rank() -> int:
    """Return the number of this process in the group, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """Return the number of processes in the group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def own_share() -> slice:
    """Return which rows of a batch this process takes."""
    return slice(rank(), None, size())


def summed(values: Tensor) -> Tensor:
    """Return the sum over all processes, detached where there are several; the same bits in each of them."""
    if size() == 1:
        return values
    total = values.detach().clone()
    dist.all_reduce(total)
    return total


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its sum over all processes, in one exchange."""
    if size() == 1:
        return
    held = [parameter for parameter in parameters if parameter.requires_grad]
    for parameter in held:
        if parameter.grad is None:  # no row of this process reached it
            parameter.grad = torch.zeros_like(parameter)
    gradients = [parameter.grad for parameter in held if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    at = 0
    for gradient in gradients:
        gradient.copy_(flat[at : at + gradient.numel()].view_as(gradient))
        at += gradient.numel()


def from_first(make: Callable[[], _Content]) -> _Content:
    """Return what `make` returns in the first process, in all of them; they wait for it."""
    if size() == 1:
        return make()
    box = [make() if rank() == 0 else None]
    dist.broadcast_object_list(box, src=0)
    return cast("_Content", box[0])
