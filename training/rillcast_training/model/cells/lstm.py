"""Long short-term memory with a forget gate.

    (1)  i_t = s(W_i x_t + b_i + U_i h_(t-1) + b'_i)         input gate
    (2)  f_t = s(W_f x_t + b_f + U_f h_(t-1) + b'_f)         forget gate
    (3)  g_t = tanh(W_g x_t + b_g + U_g h_(t-1) + b'_g)      candidate
    (4)  o_t = s(W_o x_t + b_o + U_o h_(t-1) + b'_o)         output gate
    (5)  c_t = f_t * c_(t-1) + i_t * g_t                     cell state
    (6)  h_t = o_t * tanh(c_t)

Sources: Hochreiter & Schmidhuber (1997), Long short-term memory. Neural Computation 9; the forget gate is of Gers,
Schmidhuber & Cummins (2000), Learning to forget. Neural Computation 12. In the form of `torch.nn.LSTM`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rillcast_training.model.cells.fused import FusedCell


class LstmCell(FusedCell):
    """Long short-term memory (Hochreiter & Schmidhuber 1997) with forget gate."""

    name = "lstm"
    states = ("hidden", "cell")

    @staticmethod
    def _fused(input_size: int, hidden_size: int, num_layers: int) -> nn.RNNBase:
        return nn.LSTM(input_size, hidden_size, num_layers, batch_first=True)

    def _equations(self, inputs: Tensor, state: tuple[Tensor, ...], layer: int) -> tuple[Tensor, ...]:
        h, c = state
        sums = self._sums(inputs, h, layer)
        i, f, g, o = torch.split(sums, self.hidden_size, dim=1)  # (1) to (4), before their activations
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)  # (5)
        return torch.sigmoid(o) * torch.tanh(c), c  # (6)
