"""Each cell against other implementations: PyTorch's cells, ONNX's fused operators, equations in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from rillcast_training.model.cells.fused import FusedCell
from tests.support.cells import INPUTS, cell_of, inputs_of, unroll

FUSED = ["elman", "gru", "lstm"]
# PyTorch's gates to ONNX's, in blocks of the hidden size: (r, z, n) to (z, r, h), (i, f, g, o) to (i, o, f, c).
ONNX_ORDER = {"elman": [0], "gru": [1, 0, 2], "lstm": [0, 3, 1, 2]}
ONNX_OPERATOR: dict[str, tuple[str, dict[str, Any]]] = {
    "elman": ("RNN", {}),
    "gru": ("GRU", {"linear_before_reset": 1}),
    "lstm": ("LSTM", {}),
}
TORCH_CELL = {"elman": torch.nn.RNNCell, "gru": torch.nn.GRUCell, "lstm": torch.nn.LSTMCell}


def fused_cell(name: str) -> FusedCell:
    cell = cell_of(name)
    assert isinstance(cell, FusedCell)
    return cell


@pytest.mark.parametrize("name", FUSED)
def test_steps_equal_the_cell_of_pytorch(name: str) -> None:
    cell, inputs = fused_cell(name), inputs_of(4)
    reference = TORCH_CELL[name](INPUTS, cell.hidden_size)
    reference.load_state_dict({key.removesuffix("_l0"): value for key, value in cell.fused.state_dict().items()})
    state: Any = None
    expected = []
    with torch.no_grad():
        for t in range(inputs.shape[1]):
            state = reference(inputs[:, t], state)
            expected.append(state[0] if name == "lstm" else state)
    torch.testing.assert_close(unroll(cell, inputs), torch.stack(expected, dim=1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", FUSED)
def test_steps_equal_the_fused_operator_of_onnx_runtime(name: str) -> None:
    cell, inputs = fused_cell(name), inputs_of(4)
    found = run_onnx_operator(cell, name, inputs.numpy())
    np.testing.assert_allclose(unroll(cell, inputs).numpy(), found, rtol=1e-5, atol=1e-6)


def test_mingru_equals_the_log_space_form_of_its_paper() -> None:
    cell, inputs = cell_of("mingru").double(), inputs_of(4, 40).double()
    weights = cell.state_dict()
    gate, candidate = F.linear(inputs, weights["layers.0.project.weight"], weights["layers.0.project.bias"]).chunk(2, 2)
    # Feng et al. (2024), appendix B.2 and B.3: log z, log (1 - z), log g, and Heinsen's scan, without h_0 (log 0).
    log_keep, log_replace = -F.softplus(gate), -F.softplus(-gate)
    log_candidate = torch.where(candidate >= 0, (F.relu(candidate) + 0.5).log(), -F.softplus(-candidate))
    kept = log_keep.cumsum(dim=1)
    expected = (kept + torch.logcumsumexp(log_replace + log_candidate - kept, dim=1)).exp()
    torch.testing.assert_close(unroll(cell, inputs), expected, rtol=1e-9, atol=1e-12)


def test_slstm_equals_the_equations_of_its_paper_without_the_stabiliser() -> None:
    cell, inputs = cell_of("slstm").double(), inputs_of(4, 40).double()
    w, r = (cell.state_dict()[f"layers.0.{name}.weight"] for name in ("project", "recur"))
    bias = cell.state_dict()["layers.0.project.bias"] + cell.state_dict()["layers.0.recur.bias"]
    h, c, n = (torch.zeros(4, 7, dtype=torch.float64) for _ in range(3))
    expected = []
    for t in range(inputs.shape[1]):  # Beck et al. (2024), equations 8 to 14
        z, i, f, o = (F.linear(inputs[:, t], w, bias) + F.linear(h, r)).chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.exp(i) * torch.tanh(z)
        n = torch.sigmoid(f) * n + torch.exp(i)
        h = torch.sigmoid(o) * c / n
        expected.append(h)
    torch.testing.assert_close(unroll(cell, inputs), torch.stack(expected, dim=1), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("size", [1.0, 300.0])
def test_the_normaliser_of_slstm_never_falls_below_one(size: float) -> None:
    cell = cell_of("slstm")
    state = cell.initial_state(4)
    with torch.no_grad():
        for inputs in (size * inputs_of(4, 200)).unbind(1):
            state = cell.step(inputs, state)
            _, c, n, _ = state
            assert (n >= 1).all()
            assert (c.abs() <= n * (1 + 1e-6)).all()


def test_lru_equals_the_sum_over_all_earlier_inputs() -> None:
    cell, inputs = cell_of("lru").double(), inputs_of(4, 40).double()
    weights: dict[str, Tensor] = {key.removeprefix("layers.0."): value for key, value in cell.state_dict().items()}
    a = torch.exp(-torch.exp(weights["nu"]) + 1j * torch.exp(weights["theta"]))
    drive = torch.complex(*F.linear(inputs, weights["drive.weight"], weights["drive.bias"]).chunk(2, dim=2))
    gain = torch.sqrt(1 - a.abs() ** 2)
    age = torch.arange(40).unsqueeze(1) - torch.arange(40)
    powers = torch.where(age.unsqueeze(2) >= 0, a ** age.clamp(min=0).unsqueeze(2), 0.0)  # [t, k, hidden]
    x = torch.einsum("tkh,bkh->bth", powers, gain * drive)
    read = F.linear(torch.cat([x.real, x.imag], dim=2), weights["read.weight"], weights["read.bias"])
    value, gate = read.chunk(2, dim=2)
    torch.testing.assert_close(unroll(cell, inputs), value * torch.sigmoid(gate), rtol=1e-9, atol=1e-12)


def test_lru_is_stable_for_any_parameters() -> None:
    cell = cell_of("lru")
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.normal_(std=3, generator=torch.Generator().manual_seed(1))
        state = cell.initial_state(2)
        sizes = []
        for t in range(600):
            state = cell.step(inputs_of(2, 50)[:, t % 50], state)
            sizes.append(max(float(part.abs().max()) for part in state))
    assert max(sizes[300:]) <= 2 * max(sizes[:300])


def run_onnx_operator(cell: FusedCell, name: str, inputs: np.ndarray) -> np.ndarray:
    """Run ONNX's own operator with the cell's weights; return h of every step, `[B, T, hidden]`."""
    weights = {key: value.numpy() for key, value in cell.fused.state_dict().items()}

    def reordered(key: str) -> np.ndarray:
        blocks = np.split(weights[key], len(ONNX_ORDER[name]))
        return np.concatenate([blocks[i] for i in ONNX_ORDER[name]])

    bias = np.concatenate([reordered("bias_ih_l0"), reordered("bias_hh_l0")])
    operator, attributes = ONNX_OPERATOR[name]
    graph = helper.make_graph(
        [helper.make_node(operator, ["X", "W", "R", "B"], ["Y"], hidden_size=cell.hidden_size, layout=0, **attributes)],
        name,
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["T", "B", INPUTS])],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, None)],
        initializer=[
            numpy_helper.from_array(reordered("weight_ih_l0")[None], "W"),
            numpy_helper.from_array(reordered("weight_hh_l0")[None], "R"),
            numpy_helper.from_array(bias[None], "B"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (outputs,) = session.run(None, {"X": inputs.transpose(1, 0, 2)})
    squeezed: np.ndarray = outputs[:, 0].transpose(1, 0, 2)
    return squeezed
