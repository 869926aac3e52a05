"""Cells with fixed weights, inputs for them, and their unrolls."""

from __future__ import annotations

import torch

from rillcast_training.model.cells import Cell, make_cell

INPUTS = 5


def cell_of(name: str, *, hidden: int = 7, layers: int = 1) -> Cell:
    """Return a cell in evaluation mode whose weights are the same at every call."""
    torch.manual_seed(3)
    return make_cell(name, INPUTS, hidden, layers).eval()


def inputs_of(batch: int, steps: int = 12) -> torch.Tensor:
    """Return `[batch, steps, INPUTS]`, the same at every call."""
    return torch.randn(batch, steps, INPUTS, generator=torch.Generator().manual_seed(5))


def unroll(cell: Cell, inputs: torch.Tensor) -> torch.Tensor:
    """Return the outputs of a step-by-step run from zeros, `[batch, steps, hidden]`."""
    state = tuple(part.to(inputs.dtype) for part in cell.initial_state(len(inputs)))
    outputs = []
    with torch.no_grad():
        for t in range(inputs.shape[1]):
            state = cell.step(inputs[:, t], state)
            outputs.append(cell.output(state))
    return torch.stack(outputs, dim=1)
