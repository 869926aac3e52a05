"""The simple recurrent network.

    (1)  h_t = tanh(W x_t + b + U h_(t-1) + b')

Source: Elman (1990), Finding structure in time. Cognitive Science 14; in the form of `torch.nn.RNN`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rillcast_training.model.cells.fused import FusedCell


class ElmanCell(FusedCell):
    """Simple recurrent network (Elman 1990)."""

    name = "elman"

    @staticmethod
    def _fused(input_size: int, hidden_size: int, num_layers: int) -> nn.RNNBase:
        return nn.RNN(input_size, hidden_size, num_layers, nonlinearity="tanh", batch_first=True)

    def _equations(self, inputs: Tensor, state: tuple[Tensor, ...], layer: int) -> tuple[Tensor, ...]:
        return (torch.tanh(self._sums(inputs, state[0], layer)),)  # (1)
