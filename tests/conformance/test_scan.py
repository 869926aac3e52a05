"""The parallel scan is the loop, and so is its gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rillcast_training.model.cells.scan import linear_scan


def problem(steps: int, dtype: torch.dtype, *, shared: bool = False) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(steps)
    decay = torch.rand(1 if shared else 3, steps, 4, dtype=torch.float64, generator=generator)
    drive = torch.randn(3, steps, 4, dtype=torch.float64, generator=generator)
    if dtype.is_complex:
        return torch.polar(decay, 6 * torch.rand_like(decay)).to(dtype), torch.complex(drive, drive.flip(0)).to(dtype)
    return decay.to(dtype), drive.to(dtype)


def loop(decay: Tensor, drive: Tensor) -> Tensor:
    state, states = torch.zeros_like(drive[:, 0]), []
    for t in range(drive.shape[1]):
        state = decay[:, t] * state + drive[:, t]
        states.append(state)
    return torch.stack(states, dim=1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 7, 8, 31, 64, 337])
def test_the_scan_equals_the_loop(steps: int, shared: bool, dtype: torch.dtype) -> None:
    decay, drive = problem(steps, dtype, shared=shared)
    torch.testing.assert_close(linear_scan(decay, drive), loop(decay, drive), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 5, 9])
def test_its_gradient_is_that_of_finite_differences(steps: int, shared: bool, dtype: torch.dtype) -> None:
    decay, drive = problem(steps, dtype, shared=shared)
    assert torch.autograd.gradcheck(linear_scan, (decay.requires_grad_(), drive.requires_grad_()))


def test_inputs_are_left_alone() -> None:
    decay, drive = problem(33, torch.float32)
    before = decay.clone(), drive.clone()
    linear_scan(decay, drive)
    assert torch.equal(decay, before[0])
    assert torch.equal(drive, before[1])


def test_in_float32_it_is_nearer_the_truth_than_the_scan_in_log_space() -> None:
    gate, value = torch.randn(2, 4, 512, 8, generator=torch.Generator().manual_seed(0)).mul(3).unbind(0)
    value = value.abs() + 0.1
    truth = loop(torch.sigmoid(-gate.double()), torch.sigmoid(gate.double()) * value.double())
    found = linear_scan(torch.sigmoid(-gate), torch.sigmoid(gate) * value)
    kept = torch.nn.functional.logsigmoid(-gate).cumsum(dim=1)  # Heinsen (2023), as Feng et al. (2024) use it
    in_logs = (kept + torch.logcumsumexp(torch.nn.functional.logsigmoid(gate) + value.log() - kept, dim=1)).exp()
    ours, theirs = (float(((one.double() - truth) / truth).abs().max()) for one in (found, in_logs))
    assert ours < 1e-6
    assert theirs > 20 * ours
