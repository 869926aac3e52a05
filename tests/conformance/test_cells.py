"""The contract of every cell: one suite, all cells by name."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from rillcast import cli
from rillcast.bundle.bundle import Bundle
from rillcast_training.export import parity
from rillcast_training.model.cells import CELLS, Cell, make_cell
from tests.support.cells import INPUTS, cell_of, inputs_of, unroll

ALL = sorted(CELLS)
EXPORTED_STEPS = 8


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    ("batch", "hidden", "layers", "steps"),
    [(4, 7, 1, 12), (1, 7, 1, 12), (4, 1, 1, 12), (4, 7, 3, 13), (33, 64, 2, 12), (3, 7, 1, 1), (2, 7, 2, 301)],
)
def test_steps_equal_the_sequence(name: str, batch: int, hidden: int, layers: int, steps: int) -> None:
    cell, inputs = cell_of(name, hidden=hidden, layers=layers), inputs_of(batch, steps)
    with torch.no_grad():
        torch.testing.assert_close(unroll(cell, inputs), cell.sequence(inputs), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("name", ALL)
def test_rows_of_a_batch_do_not_meet(name: str) -> None:
    cell, inputs = cell_of(name, layers=2), inputs_of(5)
    changed = inputs.clone()
    changed[1:] *= 1e6
    torch.testing.assert_close(unroll(cell, inputs)[0], unroll(cell, changed)[0], rtol=0, atol=0)


@pytest.mark.parametrize("name", ALL)
def test_the_state_alone_says_the_output(name: str) -> None:
    cell = cell_of(name, layers=2)
    state = cell.step(inputs_of(3)[:, 0], cell.initial_state(3))
    assert [part.shape for part in state] == [(3, 14)] * len(cell.states)
    assert torch.equal(cell.output(state), cell.output(tuple(part.clone() for part in state)))
    assert cell.output(state).shape == (3, 7)


@pytest.mark.parametrize("name", ALL)
def test_earlier_events_matter_and_later_ones_do_not(name: str) -> None:
    cell, inputs = cell_of(name, layers=2), inputs_of(2)
    changed = inputs.clone()
    changed[:, 5] += 1.0
    with torch.no_grad():
        before, after = cell.sequence(inputs), cell.sequence(changed)
    torch.testing.assert_close(before[:, :5], after[:, :5], rtol=0, atol=1e-7)
    assert ((before - after)[:, 5:].abs().amax(dim=(0, 2)) > 1e-6).all()


@pytest.mark.parametrize("name", ALL)
def test_gradients_reach_every_weight_and_the_first_input(name: str) -> None:
    cell, inputs = cell_of(name, layers=2), inputs_of(4).requires_grad_()
    (gradient, *to_weights) = torch.autograd.grad(
        cell.sequence(inputs)[:, -1].square().sum(), [inputs, *cell.parameters()]
    )
    assert gradient.isfinite().all()
    assert (gradient[:, 0].abs().amax(dim=1) > 0).all()
    for (parameter, _), to_weight in zip(cell.named_parameters(), to_weights, strict=True):
        assert to_weight.isfinite().all(), parameter
        assert to_weight.abs().max() > 0, parameter


@pytest.mark.parametrize("name", ALL)
def test_gradients_of_the_two_views_are_equal(name: str) -> None:
    cell, inputs = cell_of(name, layers=2).double(), inputs_of(2).double()
    state = tuple(part.double() for part in cell.initial_state(2))
    for t in range(inputs.shape[1]):
        state = cell.step(inputs[:, t], state)
    weights = dict(cell.named_parameters())
    by_step, by_sequence = (
        torch.autograd.grad(last.square().sum(), list(weights.values()))
        for last in (cell.output(state), cell.sequence(inputs)[:, -1])
    )
    for key, one, other in zip(weights, by_step, by_sequence, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10, msg=key)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("size", [0.0, 8.0, 1e4])
def test_no_input_drives_the_state_out_of_range(name: str, size: float) -> None:
    cell = cell_of(name, layers=2)
    state = cell.initial_state(2)
    inputs = size * inputs_of(2, 50)
    with torch.no_grad():
        for t in range(600):
            state = cell.step(inputs[:, t % 50], state)
            assert all(part.isfinite().all() for part in state)
    assert cell.output(state).isfinite().all()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("layers", [1, 2])
def test_the_exported_step_equals_the_module_in_onnx_runtime_and_in_onnxs_own_reference(name: str, layers: int) -> None:
    cell, inputs = cell_of(name, layers=layers), inputs_of(3, EXPORTED_STEPS)
    model = exported_step(cell)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    reference = ReferenceEvaluator(model)
    expected = unroll(cell, inputs).numpy()
    for runtime in (session, reference):
        state: list[Any] = [part.numpy() for part in cell.initial_state(3)]
        for t in range(EXPORTED_STEPS):
            feed = {"x": inputs[:, t].numpy(), **dict(zip(cell.states, state, strict=True))}
            found: list[Any] = list(runtime.run(None, feed))
            np.testing.assert_allclose(found[0], expected[:, t], rtol=1e-5, atol=2e-6)
            state = found[1:]


@pytest.mark.usefixtures("brief_parity")
@pytest.mark.parametrize("name", ALL)
def test_the_command_line_trains_and_exports_it(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, model = tmp_path / "waves.csv", tmp_path / "m.onnx"
    rng = np.random.default_rng(2)
    rows = [
        f"{name},{hour * 3_600_000},{level + np.sin(hour * np.pi / 4) + 0.1 * rng.normal():.4f}"
        for name, level in (("a", 0), ("b", 100))
        for hour in range(160)
    ]
    data.write_text("\n".join(["unique_id,ds,y", *rows]) + "\n")
    flags = (
        "--freq 1h --horizon 4 --season 8 --hidden 8 --layers 2 --epochs 3 --batches 8 --batch 8 --window 40 --lr 0.02"
    )
    arguments = [
        "train",
        str(data),
        "--out",
        str(model),
        "--cell",
        name,
        *flags.split(),
        "--no-experts",
        "--quiet",
        "--json",
    ]
    assert cli.main(arguments) == 0
    report = json.loads(capsys.readouterr().out)
    assert 0 < report["parity"] <= parity.TOLERANCE
    assert report["figures"]["mase"] < report["figures"]["seasonal_naive_mase"]
    metadata = Bundle.load(model).metadata
    assert metadata.cell == name
    assert {spec.name for spec in metadata.states} >= set(CELLS[name].states)


def test_an_unknown_cell_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    known = r"\['elman', 'gru', 'lru', 'lstm', 'mingru', 'slstm'\]"
    with pytest.raises(ValueError, match=rf"'transformer' is not one of {known}"):
        make_cell("transformer", 1, 1, 1)
    with pytest.raises(SystemExit):
        cli.main(["train", "d.csv", "--freq", "1h", "--horizon", "2", "--out", "m.onnx", "--cell", "transformer"])
    refused = capsys.readouterr().err
    assert all(name in refused for name in CELLS)


class Step(torch.nn.Module):
    def __init__(self, cell: Cell) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: torch.Tensor, *state: torch.Tensor) -> tuple[torch.Tensor, ...]:
        following = self.cell.step(x, state)
        return (self.cell.output(following), *following)


def exported_step(cell: Cell) -> onnx.ModelProto:
    """Return `(x, state...) -> (output, next state...)`, made by the exporter that bundles are made by."""
    names = ["x", *cell.states]
    outputs = ["output", *(f"{state}.next" for state in cell.states)]
    buffer: Any = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        torch.onnx.export(
            Step(cell).eval(),
            (torch.zeros(2, INPUTS), *cell.initial_state(2)),
            buffer,
            dynamo=False,
            input_names=names,
            output_names=outputs,
            dynamic_axes={name: {0: "B"} for name in (*names, *outputs)},
            opset_version=18,
        )
    return onnx.load_model_from_string(buffer.getvalue())
