"""Cells with a fused sequence kernel in PyTorch.

Owns: the agreement of a cell's equations with that kernel, whose parameters they read. Weights are PyTorch's: rows of
`weight_ih`, `weight_hh` are stacked by gate, and every gate has two biases, b (input) and b' (recurrent). Where weights
cross to ONNX's fused operators the gates are reordered: (r, z, n) to (z, r, h) and (i, f, g, o) to (i, o, f, c). A
stack feeds each layer's h to the next, without residuals, as PyTorch's kernels do.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - PyTorch's own name for it

from rillcast_training.model.cells.base import Cell, join_layers
from rillcast_training.model.precision import supported_kernels


class FusedCell(Cell):
    """A cell by its gates: a subclass names PyTorch's module and writes one step's equations."""

    def __init__(self, input_size: int, hidden_size: int, num_layers: int) -> None:
        super().__init__(input_size, hidden_size, num_layers)
        self.fused = self._fused(input_size, hidden_size, num_layers)

    @staticmethod
    @abstractmethod
    def _fused(input_size: int, hidden_size: int, num_layers: int) -> nn.RNNBase:
        """Return PyTorch's module for whole sequences, batch first; it holds the weights."""

    @abstractmethod
    def _equations(self, inputs: Tensor, state: tuple[Tensor, ...], layer: int) -> tuple[Tensor, ...]:
        """Advance one layer by one step.

        Args:
            inputs: `[B, input]`, x_t of the layer.
            state: One `[B, hidden]` per name in `states`, before the step; the first is h.
            layer: Number of the layer.
        """

    def sequence(self, inputs: Tensor) -> Tensor:
        """Run `[S, T, input]` from a state of zeros; return the last layer's h, `[S, T, hidden]`."""
        with supported_kernels(self.fused, inputs.device):
            outputs: Tensor = self.fused(inputs)[0]
        return outputs

    def step(self, inputs: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Advance by one step; see `Cell.step`."""
        following: list[tuple[Tensor, ...]] = []
        for layer in range(self.num_layers):
            following.append(self._equations(inputs, self._layer(state, layer), layer))
            inputs = following[-1][0]
        return join_layers(following)

    def output(self, state: tuple[Tensor, ...]) -> Tensor:
        """Return the last layer's h, `[B, hidden]`."""
        return state[0][:, -self.hidden_size :]

    def _sums(self, inputs: Tensor, h: Tensor, layer: int, gates: slice | None = None) -> Tensor:
        """Return `[B, gates * hidden]`, W x_t + b + U h_(t-1) + b' of some gates, rows `gates` of the weights."""
        rows = gates or slice(None)
        bias = self._weight("bias_ih", layer)[rows] + self._weight("bias_hh", layer)[rows]
        from_input = F.linear(inputs, self._weight("weight_ih", layer)[rows], bias)
        return torch.addmm(from_input, h, self._weight("weight_hh", layer)[rows].t())

    def _from_input(self, inputs: Tensor, layer: int, gates: slice) -> Tensor:
        """Return `[B, gates * hidden]`, W x_t + b of the gates in rows `gates`."""
        return F.linear(inputs, self._weight("weight_ih", layer)[gates], self._weight("bias_ih", layer)[gates])

    def _from_hidden(self, h: Tensor, layer: int, gates: slice) -> Tensor:
        """Return `[B, gates * hidden]`, U h_(t-1) + b' of the gates in rows `gates`."""
        return F.linear(h, self._weight("weight_hh", layer)[gates], self._weight("bias_hh", layer)[gates])

    def _weight(self, kind: str, layer: int) -> Tensor:
        weight: Tensor = getattr(self.fused, f"{kind}_l{layer}")
        return weight
