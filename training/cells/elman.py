"""The simple recurrent network.

    (1)  h_t = tanh(W x_t + b + U h_(t-1) + b')

Source: Elman (1990), Finding structure in time. Cognitive Science 14; in the form of `torch.nn.RNN`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.cells.fused import FusedCell


class ElmanCell(FusedCell):
    """Simple recurrent network (Elman 1990)."""

    name = "elman"

    @staticmethod
    def _fused(input_size: int, hidden_size: int, num_layers: int) -> nn.RNNBase:
        return nn.RNN(input_size, hidden_size, num_layers, nonlinearity="tanh", batch_first=True)

    def _equations(self, from_input: Tensor, from_hidden: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:  # noqa: ARG002
        return (torch.tanh(from_input + from_hidden),)  # (1)
