"""minGRU: a GRU whose gate and candidate see the input alone, so that a sequence is one parallel scan.

    (1)  z_t = s(W_z x_t + b_z)                          update gate: share replaced (a GRU's z is the share kept)
    (2)  v_t = g(W_v x_t + b_v),  g(v) = v + 1/2 for v >= 0, else s(v)      candidate, positive
    (3)  h_t = (1 - z_t) * h_(t-1) + z_t * v_t

Source: Feng, Tung, Ahmed, Bengio & Hajimirsadeghi (2024), Were RNNs all we needed? arXiv:2410.01201, section 3.1 and
appendix B.2, which defines g. They scan (3) in log space, which needs v > 0; `rillcast_training.model.cells.scan` says
why this code does not.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rillcast_training.model.cells.residual import Layer, ResidualCell
from rillcast_training.model.cells.scan import linear_scan
from rillcast_training.model.precision import widened


class _MinGruLayer(Layer):
    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.project = nn.Linear(input_size, 2 * hidden_size)

    def sequence(self, inputs: Tensor) -> Tensor:
        gate, candidate = torch.split(widened(self.project(inputs)), self.hidden_size, dim=-1)
        return linear_scan(torch.sigmoid(-gate), torch.sigmoid(gate) * _positive(candidate))  # 1 - s(x) = s(-x)

    def step(self, inputs: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        (h,) = state
        gate, candidate = self.project(inputs).split(self.hidden_size, dim=-1)
        return (h + torch.sigmoid(gate) * (_positive(candidate) - h),)  # (3)

    def output(self, state: tuple[Tensor, ...]) -> Tensor:
        return state[0]


class MinGruCell(ResidualCell):
    """minGRU (Feng et al. 2024)."""

    name = "mingru"
    layer_type = _MinGruLayer


def _positive(x: Tensor) -> Tensor:
    """Return g of (2): continuous, monotone and > 0."""
    return torch.where(x >= 0, x + 0.5, torch.sigmoid(x))
