"""The interface of a recurrent cell: a step over state rows, and the same over a whole sequence.

Owns: the interface, and how the layers of a stack share a state row. Does not know: equations, features, heads, streams
or ONNX.

Invariants: a state of zeros is the state before the first step; the output is a function of the state alone, so an
event that leaves the state unchanged leaves the forecast unchanged; `sequence` from zeros gives the same as `step` by
`step`; rows do not affect each other. tests/conformance/test_cells.py holds every cell to them. Under autocast (mixed
precision in training) products are bfloat16, but sums over time in a cell's own code are float32: bfloat16 has no decay
of 0.999.

Notation in the cells' files: x_t input, h_t hidden state, * elementwise, s() logistic function.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn


class Cell(nn.Module, ABC):
    """A stack of recurrent layers.

    Attributes:
        name: Name for `--cell` and in the bundle's metadata.
        states: Names of the state tensors; each is `[B, layers * hidden]`, the layers next to each other, first layer
            first.
    """

    name: ClassVar[str]
    states: ClassVar[tuple[str, ...]] = ("hidden",)

    def __init__(self, input_size: int, hidden_size: int, num_layers: int) -> None:
        super().__init__()
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers

    @abstractmethod
    def sequence(self, inputs: Tensor) -> Tensor:
        """Run `[S, T, input]` from a state of zeros; return the outputs, `[S, T, hidden]`."""

    @abstractmethod
    def step(self, inputs: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Advance by one step.

        Args:
            inputs: `[B, input]`.
            state: one `[B, layers * hidden]` per name in `states`.

        Returns:
            The next state, shaped like `state`.
        """

    @abstractmethod
    def output(self, state: tuple[Tensor, ...]) -> Tensor:
        """Return the head's input from the state, `[B, hidden]`."""

    def initial_state(self, batch: int) -> tuple[Tensor, ...]:
        """Return the state before the first step, zeros."""
        return tuple(torch.zeros(batch, self.num_layers * self.hidden_size) for _ in self.states)

    def _layer(self, state: tuple[Tensor, ...], layer: int) -> tuple[Tensor, ...]:
        """Return one layer's share of a state, one `[B, hidden]` per name."""
        width = self.hidden_size
        return tuple(part[:, layer * width : (layer + 1) * width] for part in state)


def join_layers(layers: list[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """Join the states of the layers, each `[B, hidden]`, into rows `[B, layers * hidden]`."""
    return tuple(torch.cat(parts, dim=1) if len(parts) > 1 else parts[0] for parts in zip(*layers, strict=True))
