"""Attributions where the answer is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rillcast_training.explain.integrated import Inputs, integrated_gradients

X, BASELINE = torch.tensor([1.0, -2.0, 3.0]), torch.tensor([0.5, 0.0, -1.0])


def test_of_a_linear_function_they_are_weight_times_distance() -> None:
    weight = torch.tensor([2.0, -1.0, 0.0])
    found = integrated_gradients(lambda inputs: inputs[0] @ weight + 7, (X,), (BASELINE,), unit=1e-6)
    torch.testing.assert_close(found.parts[0], weight * (X - BASELINE))
    assert found.complete
    assert found.value - found.baseline == pytest.approx(float(found.parts[0].sum()))


def test_of_a_product_the_factors_share_equally() -> None:
    def product(inputs: Inputs) -> Tensor:
        return inputs[0][:, 0] * inputs[1][:, 0]

    three, four, zero = torch.tensor([3.0]), torch.tensor([4.0]), torch.tensor([0.0])
    found = integrated_gradients(product, (three, four), (zero, zero), unit=1e-6)
    assert [float(part) for part in found.parts] == pytest.approx([6.0, 6.0])


def test_an_input_that_is_not_read_gets_nothing() -> None:
    found = integrated_gradients(lambda inputs: inputs[0].sum(1), (X, X), (BASELINE, BASELINE), unit=1e-6)
    assert torch.equal(found.parts[1], torch.zeros(3))


def test_points_are_added_until_the_attributions_are_complete() -> None:
    def steep(inputs: Inputs) -> Tensor:
        return torch.sigmoid(400 * (inputs[0].sum(1) - 0.123))

    one, zero = torch.tensor([1.0]), torch.tensor([0.0])
    found = integrated_gradients(steep, (one,), (zero,), unit=1e-6)
    assert found.complete
    assert found.points > 32


def test_a_jump_is_said_to_be_incomplete() -> None:
    def jump(inputs: Inputs) -> Tensor:
        return (inputs[0].sum(1) > 0.3).to(torch.float32) + 0 * inputs[0].sum(1)

    found = integrated_gradients(jump, (torch.tensor([1.0]),), (torch.tensor([0.0]),), unit=1e-6)
    assert not found.complete
    assert found.gap == pytest.approx(1.0)
