"""Stacks of layers with residual connections, for cells without a fused kernel in PyTorch.

Owns: how such layers are stacked. Does not know: their equations.

With u_l the input of layer l and y_l its output:

    (1)  u_1 = x_t,  u_l = LayerNorm(y_1 + ... + y_(l-1)) for l > 1
    (2)  output = y_1 + ... + y_L

This is a pre-norm residual stack (Xiong et al. 2020, On layer normalization in the transformer architecture; He et al.
2016, Deep residual learning) without a skip around the first layer, whose input has another width and reaches the head
anyway. So the output is a function of the layers' states, as the interface asks. One layer has no norm.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, cast

from torch import Tensor, nn

from rillcast_training.model.cells.base import Cell, join_layers


class Layer(nn.Module, ABC):
    """One recurrent layer; a state is a tuple of `[B, hidden]`, in the order of the cell's `states`."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.input_size, self.hidden_size = input_size, hidden_size

    @abstractmethod
    def sequence(self, inputs: Tensor) -> Tensor:
        """Run `[S, T, input]` from a state of zeros; return the layer's outputs, `[S, T, hidden]`."""

    @abstractmethod
    def step(self, inputs: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the state after the input `[B, input]`."""

    @abstractmethod
    def output(self, state: tuple[Tensor, ...]) -> Tensor:
        """Return the layer's output from its state, `[B, hidden]`."""


class ResidualCell(Cell):
    """A cell by its layer: a subclass names it, its states and the type of its layers."""

    layer_type: ClassVar[type[Layer]]

    def __init__(self, input_size: int, hidden_size: int, num_layers: int) -> None:
        super().__init__(input_size, hidden_size, num_layers)
        self.layers = nn.ModuleList(
            self.layer_type(hidden_size if number else input_size, hidden_size) for number in range(num_layers)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(hidden_size) for _ in range(num_layers - 1))

    def sequence(self, inputs: Tensor) -> Tensor:
        """Run `[S, T, input]` from a state of zeros; see `Cell.sequence`."""
        first, *others = self._stack()
        outputs = first.sequence(inputs)
        for norm, layer in zip(self.norms, others, strict=True):
            outputs = outputs + layer.sequence(norm(outputs))  # (1), (2)
        return outputs

    def step(self, inputs: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Advance by one step; see `Cell.step`."""
        first, *others = self._stack()
        following = [first.step(inputs, self._layer(state, 0))]
        if others:
            outputs = first.output(following[0])
            for number, (norm, layer) in enumerate(zip(self.norms, others, strict=True), start=1):
                following.append(layer.step(norm(outputs), self._layer(state, number)))
                outputs = outputs + layer.output(following[-1])
        return join_layers(following)

    def output(self, state: tuple[Tensor, ...]) -> Tensor:
        """Return the sum of the layers' outputs, `[B, hidden]`."""
        first, *others = self._stack()
        outputs = first.output(self._layer(state, 0))
        for number, layer in enumerate(others, start=1):
            outputs = outputs + layer.output(self._layer(state, number))
        return outputs

    def _stack(self) -> list[Layer]:
        return cast("list[Layer]", list(self.layers))  # a ModuleList has no element type
