"""Functions that are one operator of ONNX compute the same there, whatever the batch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from rillcast.bundle.bundle import Status
from rillcast_training.export.tracing import trace
from rillcast_training.model.operators import bent, ramp
from rillcast_training.model.periods import floor_div
from rillcast_training.model.status import status_of


class _Module(nn.Module):
    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *given: Tensor) -> Tensor:
        return self.function(*given)


def exported(function: Callable[..., Tensor], *given: Tensor) -> tuple[list[str], Callable[..., np.ndarray]]:
    """Return the operators of a function and how ONNX Runtime computes it."""
    names = [f"x{number}" for number in range(len(given))]
    model = trace(_Module(function), given, names, ["y"], {name: {0: "B"} for name in (*names, "y")})
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])

    def run(*values: Tensor) -> np.ndarray:
        return np.asarray(session.run(None, {name: one.numpy() for name, one in zip(names, values, strict=True)})[0])

    return [node.op_type for node in model.graph.node if node.op_type != "Constant"], run


SLOPES = torch.tensor([-9.0, -1.0, 0.0, 0.5])


@pytest.mark.parametrize(
    ("function", "operator"), [(lambda x: ramp(x, 10.0), "HardSigmoid"), (lambda x: bent(x, SLOPES), "PRelu")]
)
def test_a_function_is_one_operator_whose_results_do_not_depend_on_the_batch(
    function: Callable[[Tensor], Tensor], operator: str
) -> None:
    x = torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, (37, 4)).astype(np.float32))
    operators, run = exported(function, x)
    assert operators == [operator]
    together = run(x)
    np.testing.assert_allclose(together, function(x), rtol=1e-6, atol=1e-7)
    for row in (0, 5, 36):
        np.testing.assert_array_equal(run(x[row : row + 1])[0], together[row])


def test_ramp_and_bent_are_what_they_say() -> None:
    assert ramp(torch.tensor([-1.0, -0.04, 0.0, 0.04, 1.0]), 10.0).tolist() == pytest.approx([0, 0.1, 0.5, 0.9, 1])
    assert bent(torch.tensor([-2.0, 0.0, 3.0]), torch.tensor(-4.0)).tolist() == [8, 0, 3]


def test_a_division_rounds_down_for_all_whole_numbers_in_five_operators() -> None:
    near = [2**31, 2**32, 2**62, 10**12]
    numbers = torch.tensor([sign * value + more for sign in (-1, 1) for value in (0, *near) for more in (-1, 0, 1)])
    numbers = torch.cat([numbers, torch.tensor([-(2**63), 2**63 - 1])])
    operators, run = exported(lambda x: floor_div(x, 3_600_000), numbers)
    assert len(operators) == 5
    assert run(numbers).tolist() == [number // 3_600_000 for number in numbers.tolist()]


def test_the_status_of_an_event_follows_from_its_gap_first() -> None:
    cases = [
        (observed, gap, warming_up)
        for observed in (False, True)
        for gap in (-(2**31) - 9, -3, -1, 0, 1, 2, 3, 2**31 + 9)
        for warming_up in (False, True)
    ]
    observed, gap, warming_up = (torch.tensor(part) for part in zip(*cases, strict=True))

    def expected(observed: bool, gap: int, warming_up: bool) -> Status:
        if gap <= 0:
            return Status.LATE if gap else Status.DUPLICATE
        if warming_up:
            return Status.WARMING_UP
        return Status.GAP if gap > 1 else Status.OK if observed else Status.MISSING

    wanted = [expected(*case) for case in cases]
    _, run = exported(status_of, observed, gap, warming_up)
    assert status_of(observed, gap, warming_up).tolist() == wanted
    assert run(observed, gap, warming_up).tolist() == wanted
