"""Linear recurrences over a whole sequence without a loop over time.

Owns: `linear_scan`, h_t = a_t * h_(t-1) + b_t from h_0 = 0, and its gradient. Does not know: cells.

Method: two neighbouring steps are one step of the same kind, (a_2 a_1, a_2 b_1 + b_2). So pairs are merged, the
sequence of half the length is scanned, and the steps left out are filled in: work O(T), depth 2 log2 T (Blelloch 1990,
Prefix sums and their applications; odd-even form as in Ladner & Fischer 1980). The gradient of a linear recurrence is a
linear recurrence that runs backwards (Martin & Cundy 2018, Parallelizing linear recurrent neural nets over sequence
length), so the intermediate levels need not be kept for it.

Feng et al. (2024) scan in log space with a cumulative sum and a log-cumulative-sum-exp (Heinsen 2023, Efficient
parallelization of a ubiquitous sequential computation). That subtracts sums of log a that grow with T, and its error in
float32 grows with them. Here nothing is subtracted, and for |a| <= 1 no factor grows. tests/conformance/test_scan.py
measures both.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def linear_scan(decay: Tensor, drive: Tensor) -> Tensor:
    """Return h of h_t = a_t * h_(t-1) + b_t, h_0 = 0.

    Args:
        decay: a, `[S, T, hidden]` or `[1, T, hidden]`, real or complex, |a| <= 1.
        drive: b, `[S, T, hidden]`, of the same type.

    Returns:
        `[S, T, hidden]`.
    """
    states: Tensor = _LinearScan.apply(decay, drive)
    return states


class _LinearScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, decay: Tensor, drive: Tensor) -> Tensor:
        states = _scan(decay, drive)
        ctx.save_for_backward(decay, states)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        decay, states = ctx.saved_tensors
        # The gradient at h_t: its own and, through h_(t+1), a_(t+1) times the gradient there.
        later = torch.cat([decay[:, 1:], torch.zeros_like(decay[:, :1])], dim=1).conj()
        to_drive = _scan(later.flip(1), gradient.flip(1)).flip(1)
        earlier = torch.cat([torch.zeros_like(states[:, :1]), states[:, :-1]], dim=1).conj()
        return (to_drive * earlier).sum_to_size(decay.shape), to_drive


def _scan(decay: Tensor, drive: Tensor) -> Tensor:
    steps = drive.shape[1]
    if steps == 1:
        return drive
    paired = steps // 2 * 2
    first, second = decay[:, 0:paired:2], decay[:, 1:paired:2]
    merged = torch.addcmul(drive[:, 1:paired:2], second, drive[:, 0:paired:2])
    states = torch.empty_like(drive)
    states[:, 1::2] = odd = _scan(second * first, merged)
    states[:, :1] = drive[:, :1]
    states[:, 2::2] = torch.addcmul(drive[:, 2::2], decay[:, 2::2], odd[:, : (steps - 1) // 2])
    return states
