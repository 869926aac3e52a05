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
the logistic one of its two forget gates and one head; each b is kept in two parts, as in PyTorch's cells.

m cancels in (8): it only keeps the exponentials within range. One exponent of (6) is 0 and the other is not positive,
so n_t >= 1 after any step. The division is safe, |c_t / n_t| <= 1, and n = 0 marks a state before its first step.

W_f's bias starts as log(u), u uniform in 1 to `_LONGEST` - 1, which spreads the units' memory over that range (Tallec &
Ollivier 2018, Can recurrent neural networks warp time?). The input of a step depends on the output of the step before,
so a sequence needs a loop over time. `_Unroll` makes the loop cheap: it builds no graph, and its gradient is written
out. There m counts as a constant, because h does not depend on it.
"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F  # noqa: N812 - PyTorch's own name for it

from rillcast_training.model.cells.residual import Layer, ResidualCell
from rillcast_training.model.precision import mixed, widened

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
        from_input = widened(self.project(inputs))
        with mixed(from_input.device, torch.float32):
            outputs: Tensor = _Unroll.apply(from_input, self.recur.weight, self.recur.bias)
        return outputs

    def step(self, inputs: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return self._equations(self.project(inputs), state)

    def output(self, state: tuple[Tensor, ...]) -> Tensor:
        return state[0]

    def _equations(self, from_input: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        gates = (from_input + self.recur(state[0])).split(self.hidden_size, dim=-1)
        return _step(gates, state).state


class _Step(NamedTuple):
    """Results of a step: the next (h, c, n, m), and the values that its gradient needs."""

    state: tuple[Tensor, ...]
    candidate: Tensor
    old: Tensor
    new: Tensor
    forget: Tensor
    opened: Tensor


def _step(gates: tuple[Tensor, ...], state: tuple[Tensor, ...]) -> _Step:
    """Take one step from (1) to (8); the gates z, i, f, o are before their activations, each `[B, hidden]`."""
    z, i, f, o = gates
    _, c, n, m = state
    kept = m - F.softplus(-f)  # (3): log s(f), also far below 0, where some logistic functions are cut off
    m = torch.where(n > 0, torch.maximum(kept, i), i)  # (5)
    old, new = torch.exp((kept - m).clamp(max=0)), torch.exp(i - m)
    candidate, opened = torch.tanh(z), torch.sigmoid(o)
    c = old * c + new * candidate  # (6)
    n = old * n + new  # (7)
    return _Step((opened * c / n, c, n, m), candidate, old, new, f, opened)  # (8)


class _Unroll(torch.autograd.Function):
    """The layer over a whole sequence: `[S, T, 4 * hidden]` gates from the inputs to `[S, T, hidden]` outputs."""

    @staticmethod
    def forward(ctx: Any, from_input: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        zero = from_input.new_zeros(len(from_input), weight.shape[1])
        state: tuple[Tensor, ...] = (zero, zero, zero, zero)
        recurrent = weight.t().contiguous()
        outputs, steps = [zero], []
        for gates in (from_input + bias).unbind(1):
            steps.append(_step(torch.addmm(gates, state[0], recurrent).chunk(4, dim=1), state))
            state = steps[-1].state
            outputs.append(state[0])
        ctx.steps = steps
        ctx.save_for_backward(weight, hidden := torch.stack(outputs, dim=1))
        return hidden[:, 1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        weight, hidden = ctx.saved_tensors
        steps: list[_Step] = ctx.steps
        to_h, to_c, to_n = (torch.zeros_like(hidden[:, 0]) for _ in range(3))
        to_gates = []
        for t in range(len(steps) - 1, -1, -1):
            (_, c, n, _), z, old, new, f, o = steps[t]
            to_h = to_h + gradient[:, t]
            ratio, through = c / n, to_h * o / n
            to_c, to_n = to_c + through, to_n - through * ratio
            to_old = torch.zeros_like(c)
            if t:  # before the first step there is nothing to keep
                to_old = (to_c * steps[t - 1].state[1] + to_n * steps[t - 1].state[2]) * old
            to_gates.append(
                torch.cat(
                    [
                        to_c * new * (1 - z * z),
                        (to_c * z + to_n) * new,
                        to_old * torch.sigmoid(-f),
                        to_h * ratio * o * (1 - o),
                    ],
                    dim=1,
                )
            )
            to_h, to_c, to_n = to_gates[-1] @ weight, to_c * old, to_n * old
        stacked = torch.stack(to_gates[::-1], dim=1)
        to_weight = torch.einsum("stg,sth->gh", stacked, hidden[:, :-1])
        return stacked, to_weight, stacked.sum((0, 1))


class SlstmCell(ResidualCell):
    """sLSTM of xLSTM (Beck et al. 2024)."""

    name = "slstm"
    states = ("hidden", "cell", "normalizer", "stabilizer")
    layer_type = _SlstmLayer
