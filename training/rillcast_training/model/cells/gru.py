"""The gated recurrent unit, reset gate after the recurrent product.

    (1)  r_t = s(W_r x_t + b_r + U_r h_(t-1) + b'_r)                  reset gate
    (2)  z_t = s(W_z x_t + b_z + U_z h_(t-1) + b'_z)                  update gate: share kept
    (3)  n_t = tanh(W_n x_t + b_n + r_t * (U_n h_(t-1) + b'_n))       candidate
    (4)  h_t = (1 - z_t) * n_t + z_t * h_(t-1)

Source: Cho et al. (2014), Learning phrase representations using RNN encoder-decoder for statistical machine
translation, EMNLP; in the form of `torch.nn.GRU` and cuDNN, which applies r_t after the recurrent product (the paper:
before it).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rillcast_training.model.cells.fused import FusedCell


class GruCell(FusedCell):
    """Gated recurrent unit (Cho et al. 2014)."""

    name = "gru"

    @staticmethod
    def _fused(input_size: int, hidden_size: int, num_layers: int) -> nn.RNNBase:
        return nn.GRU(input_size, hidden_size, num_layers, batch_first=True)

    def _equations(self, inputs: Tensor, state: tuple[Tensor, ...], layer: int) -> tuple[Tensor, ...]:
        (h,) = state
        width = self.hidden_size
        # A product per gate: cutting a common one up costs ONNX Runtime more than the wider product saves.
        r = torch.sigmoid(self._sums(inputs, h, layer, slice(0, width)))  # (1)
        z = torch.sigmoid(self._sums(inputs, h, layer, slice(width, 2 * width)))  # (2)
        candidate = slice(2 * width, 3 * width)
        n = torch.tanh(self._from_input(inputs, layer, candidate) + r * self._from_hidden(h, layer, candidate))  # (3)
        return (n + z * (h - n),)  # (4)
