"""LRU: a diagonal linear recurrence in the complex plane, read through a gate.

    (1)  x_t = a * x_(t-1) + g * (B u_t + d),   a = exp(-exp(nu) + i exp(theta)),   g = sqrt(1 - |a|^2)
    (2)  y_t = (V Re/Im(x_t) + b) * s(G Re/Im(x_t) + b')

u input, x complex state, kept as two real rows, y output. |a| < 1 for any nu, so the recurrence is stable by
construction, and g keeps the state's size independent of how near |a| is to 1. Every unit is a damped oscillation with
its own cycle, which suits seasonal series.

Source: Orvieto et al. (2023), Resurrecting recurrent neural networks for long sequences. ICML, arXiv:2303.06349: (1) is
their section 3.4 with lemma 3.2 for the parameters. They read with Re(C x_t) + D u_t and pass it to a gated linear
unit. Both maps are linear in x_t, so (2) merges them, and D is left to the residuals and the head, which see the input.
At the start |a|^2 is uniform in `_RADIUS`^2 (their lemma 3.2) and the cycle 2 pi / arg(a) is log-uniform in `_CYCLES`
steps.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor, nn

from rillcast_training.model.cells.residual import Layer, ResidualCell
from rillcast_training.model.cells.scan import linear_scan
from rillcast_training.model.precision import widened

_RADIUS: Final = (0.5, 0.999)
_CYCLES: Final = (2.0, 400.0)


class _LruLayer(Layer):
    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        low, high = (radius**2 for radius in _RADIUS)
        radius = torch.empty(hidden_size).uniform_(low, high).sqrt()
        cycle = torch.empty(hidden_size).uniform_(math.log(_CYCLES[0]), math.log(_CYCLES[1])).exp()
        self.nu = nn.Parameter((-radius.log()).log())
        self.theta = nn.Parameter((2 * math.pi / cycle).log())
        self.drive = nn.Linear(input_size, 2 * hidden_size)  # B and d, rows: real, imaginary
        nn.init.normal_(self.drive.weight, std=1 / math.sqrt(2 * input_size))
        self.read = nn.Linear(2 * hidden_size, 2 * hidden_size)  # rows: V, G; columns: real, imaginary

    def sequence(self, inputs: Tensor) -> Tensor:
        real, imaginary, gain = self._recurrence()
        drive_real, drive_imaginary = torch.split(widened(self.drive(inputs)), self.hidden_size, dim=-1)
        decay = torch.complex(real, imaginary).expand(1, inputs.shape[1], -1)
        x = linear_scan(decay, torch.complex(gain * drive_real, gain * drive_imaginary))
        return self.output((x.real, x.imag))

    def step(self, inputs: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x, y = state
        real, imaginary, gain = self._recurrence()
        drive_real, drive_imaginary = self.drive(inputs).split(self.hidden_size, dim=-1)
        # (1): the complex product in real numbers, as ONNX has no complex ones
        return real * x - imaginary * y + gain * drive_real, imaginary * x + real * y + gain * drive_imaginary

    def output(self, state: tuple[Tensor, ...]) -> Tensor:
        value, gate = self.read(torch.cat(state, dim=-1)).split(self.hidden_size, dim=-1)
        opened: Tensor = value * torch.sigmoid(gate)  # (2)
        return opened

    def _recurrence(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the real and imaginary parts of a, and g; each `[hidden]`."""
        rate, angle = torch.exp(self.nu), torch.exp(self.theta)
        radius = torch.exp(-rate)
        gain = torch.sqrt(torch.tanh(rate) * (1 + radius * radius))  # 1 - |a|^2, without cancellation near |a| = 1
        return radius * torch.cos(angle), radius * torch.sin(angle), gain


class LruCell(ResidualCell):
    """Linear recurrent unit (Orvieto et al. 2023)."""

    name = "lru"
    states = ("real", "imaginary")
    layer_type = _LruLayer
