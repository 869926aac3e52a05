"""sLSTM: an LSTM with an exponential input gate, a normaliser and a stabiliser.

    (1)  z_t = tanh(W_z x_t + R_z h_(t-1) + b_z)         candidate
    (2)  i~_t = W_i x_t + R_i h_(t-1) + b_i              input gate, as a logarithm
    (3)  f~_t = log s(W_f x_t + R_f h_(t-1) + b_f)       forget gate, as a logarithm
    (4)  o_t = s(W_o x_t + R_o h_(t-1) + b_o)            output gate
    (5)  m_t = max(f~_t + m_(t-1), i~_t)                 stabiliser; before the first step m_t = i~_t
    (6)  c_t = exp(f~_t + m_(t-1) - m_t) * c_(t-1) + exp(i~_t - m_t) * z_t
    (7)  n_t = exp(f~_t + m_(t-1) - m_t) * n_(t-1) + exp(i~_t - m_t)
    (8)  h_t = o_t * c_t / n_t

Source: Beck et al. (2024), xLSTM: Extended long short-term memory. NeurIPS, arXiv:2405.04517, equations 8 to 17, with
the logistic one of its two forget gates and one head; each b is kept in two parts, as PyTorch's cells do.

m cancels in (8): it only keeps the exponentials within range. One exponent of (6) is 0 and the other is not positive,
so n_t >= 1 after any step: the division is safe, |c_t / n_t| <= 1, and n = 0 marks a state before its first step.

W_f's bias starts as log(u), u uniform in 1 to `_LONGEST` - 1, which spreads the times that the units remember over that
range (Tallec & Ollivier 2018, Can recurrent neural networks warp time?). The input of a step depends on the output of
the one before, so `sequence` is a loop over time: that is the cell's nature, not a shortcut.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - PyTorch's own name for it

from training.cells.residual import Layer, ResidualCell

_LONGEST: Final = 168.0


class _SlstmLayer(Layer):
    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.project = nn.Linear(input_size, 4 * hidden_size)  # rows: z, i, f, o
        self.recur = nn.Linear(hidden_size, 4 * hidden_size)
        bound = 1 / math.sqrt(hidden_size)
        nn.init.uniform_(self.recur.weight, -bound, bound)
        with torch.no_grad():
            forget = self.project.bias[2 * hidden_size : 3 * hidden_size]
            forget.copy_(torch.empty(hidden_size).uniform_(1, _LONGEST - 1).log())

    def sequence(self, inputs: Tensor) -> Tensor:
        zero = inputs.new_zeros(len(inputs), self.hidden_size)
        state: tuple[Tensor, ...] = (zero, zero, zero, zero)
        outputs = []
        for from_input in self.project(inputs).unbind(1):
            state = self._equations(from_input, state)
            outputs.append(state[0])
        return torch.stack(outputs, dim=1)

    def step(self, inputs: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return self._equations(self.project(inputs), state)

    def output(self, state: tuple[Tensor, ...]) -> Tensor:
        return state[0]

    def _equations(self, from_input: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        h, c, n, m = state
        z, i, f, o = (from_input + self.recur(h)).split(
            self.hidden_size, dim=-1
        )  # (1) to (4), before their activations
        kept = m - F.softplus(-f)  # (3): log s(f), also far below 0, where some logistic functions are cut off
        m = torch.where(n > 0, torch.maximum(kept, i), i)  # (5)
        old, new = torch.exp((kept - m).clamp(max=0)), torch.exp(i - m)
        c = old * c + new * torch.tanh(z)  # (6)
        n = old * n + new  # (7)
        return torch.sigmoid(o) * c / n, c, n, m  # (8)


class SlstmCell(ResidualCell):
    """sLSTM of xLSTM (Beck et al. 2024)."""

    name = "slstm"
    states = ("hidden", "cell", "normalizer", "stabilizer")
    layer_type = _SlstmLayer
