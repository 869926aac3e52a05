"""Recurrent cells: one interface, two views of one set of weights.

Owns: the equations of a step, and their agreement with PyTorch's fused sequence kernels, whose parameters they
read. Does not know: features, heads, streams or ONNX. A new cell is one subclass with its equations; one that
PyTorch has no fused kernel for overrides `sequence` as well.

Notation: x_t input, h_t hidden state, c_t LSTM cell state, * elementwise, s() logistic function. Weights are
PyTorch's: rows of `weight_ih`, `weight_hh` are stacked by gate, and every gate has two biases, b (input) and
b' (recurrent). Where weights cross to ONNX's fused operators the gates are reordered: (r, z, n) to (z, r, h) and
(i, f, g, o) to (i, o, f, c).

References:
    Elman (1990), Finding structure in time. Cognitive Science 14.
    Hochreiter & Schmidhuber (1997), Long short-term memory. Neural Computation 9; forget gate of Gers,
        Schmidhuber & Cummins (2000), Learning to forget. Neural Computation 12.
    Cho et al. (2014), Learning phrase representations using RNN encoder-decoder. EMNLP; in the form of PyTorch and
        cuDNN, with the reset gate after the recurrent product.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - PyTorch's own name for it


class Cell(nn.Module, ABC):
    """A stack of recurrent layers.

    Attributes:
        name: what `--cell` and the bundle's metadata call it.
        states: names of the state tensors of one layer; the first is the output, h.
    """

    name: ClassVar[str]
    states: ClassVar[tuple[str, ...]] = ("hidden",)

    def __init__(self, input_size: int, hidden_size: int, num_layers: int) -> None:
        super().__init__()
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.fused = self._fused(input_size, hidden_size, num_layers)

    @staticmethod
    @abstractmethod
    def _fused(input_size: int, hidden_size: int, num_layers: int) -> nn.RNNBase:
        """Return PyTorch's module that runs whole sequences, batch first; it holds the weights."""

    @abstractmethod
    def _equations(self, from_input: Tensor, from_hidden: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Advance one layer by one step.

        Args:
            from_input: `[B, gates * hidden]`, W x_t + b.
            from_hidden: `[B, gates * hidden]`, U h_(t-1) + b'.
            state: one `[B, hidden]` per name in `states`, before the step.
        """

    def sequence(self, inputs: Tensor) -> Tensor:
        """Run `[S, T, input]` from a state of zeros; return the last layer's h, `[S, T, hidden]`."""
        outputs: Tensor = self.fused(inputs)[0]
        return outputs

    def step(self, inputs: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Advance by one step.

        Args:
            inputs: `[B, input]`.
            state: one `[B, layers * hidden]` per name in `states`; the layers lie side by side, first layer first.

        Returns:
            The next state, shaped like `state`.
        """
        width = self.hidden_size
        following: list[tuple[Tensor, ...]] = []
        for layer in range(self.num_layers):
            own = tuple(part[:, layer * width : (layer + 1) * width] for part in state)
            from_input = F.linear(inputs, self._weight("weight_ih", layer), self._weight("bias_ih", layer))
            from_hidden = F.linear(own[0], self._weight("weight_hh", layer), self._weight("bias_hh", layer))
            following.append(self._equations(from_input, from_hidden, own))
            inputs = following[-1][0]
        return tuple(torch.cat(parts, dim=1) if len(parts) > 1 else parts[0] for parts in zip(*following, strict=True))

    def output(self, state: tuple[Tensor, ...]) -> Tensor:
        """Return the last layer's h, `[B, hidden]`."""
        return state[0][:, -self.hidden_size :]

    def _weight(self, kind: str, layer: int) -> Tensor:
        weight: Tensor = getattr(self.fused, f"{kind}_l{layer}")
        return weight


class ElmanCell(Cell):
    """Simple recurrent network (Elman 1990)."""

    name = "elman"

    @staticmethod
    def _fused(input_size: int, hidden_size: int, num_layers: int) -> nn.RNNBase:
        return nn.RNN(input_size, hidden_size, num_layers, nonlinearity="tanh", batch_first=True)

    def _equations(self, from_input: Tensor, from_hidden: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:  # noqa: ARG002
        return (torch.tanh(from_input + from_hidden),)  # (1) h_t = tanh(W x_t + b + U h_(t-1) + b')


class GruCell(Cell):
    """Gated recurrent unit (Cho et al. 2014), reset gate after the recurrent product."""

    name = "gru"

    @staticmethod
    def _fused(input_size: int, hidden_size: int, num_layers: int) -> nn.RNNBase:
        return nn.GRU(input_size, hidden_size, num_layers, batch_first=True)

    def _equations(self, from_input: Tensor, from_hidden: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        (h,) = state
        width = self.hidden_size
        gates = torch.sigmoid(from_input[:, : 2 * width] + from_hidden[:, : 2 * width])
        r, z = gates[:, :width], gates[:, width:]  # (1) r_t, (2) z_t = s(W x_t + b + U h_(t-1) + b')
        n = torch.tanh(from_input[:, 2 * width :] + r * from_hidden[:, 2 * width :])  # (3) n_t, candidate
        return (n + z * (h - n),)  # (4) h_t = (1 - z_t) * n_t + z_t * h_(t-1)


class LstmCell(Cell):
    """Long short-term memory (Hochreiter & Schmidhuber 1997) with forget gate."""

    name = "lstm"
    states = ("hidden", "cell")

    @staticmethod
    def _fused(input_size: int, hidden_size: int, num_layers: int) -> nn.RNNBase:
        return nn.LSTM(input_size, hidden_size, num_layers, batch_first=True)

    def _equations(self, from_input: Tensor, from_hidden: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        _, c = state
        i, f, g, o = (from_input + from_hidden).chunk(4, dim=1)  # (1) to (4), before their activations
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)  # (5) c_t = f_t * c_(t-1) + i_t * g_t
        return torch.sigmoid(o) * torch.tanh(c), c  # (6) h_t = o_t * tanh(c_t)


CELLS: dict[str, type[Cell]] = {cell.name: cell for cell in (ElmanCell, GruCell, LstmCell)}


def make_cell(name: str, input_size: int, hidden_size: int, num_layers: int) -> Cell:
    """Return a cell by name.

    Raises:
        ValueError: no cell has that name.
    """
    if name not in CELLS:
        raise ValueError(f"cell {name!r} is not one of {sorted(CELLS)}")
    return CELLS[name](input_size, hidden_size, num_layers)
