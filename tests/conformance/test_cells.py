"""Every cell: our equations, PyTorch's fused sequence, PyTorch's cell and ONNX Runtime agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from training.cells import CELLS, Cell, make_cell

STEPS, INPUTS = 12, 5
# PyTorch's gates to ONNX's, in blocks of the hidden size: (r, z, n) to (z, r, h), (i, f, g, o) to (i, o, f, c).
ONNX_ORDER = {"elman": [0], "gru": [1, 0, 2], "lstm": [0, 3, 1, 2]}
ONNX_OPERATOR: dict[str, tuple[str, dict[str, Any]]] = {
    "elman": ("RNN", {}),
    "gru": ("GRU", {"linear_before_reset": 1}),
    "lstm": ("LSTM", {}),
}
TORCH_CELL = {"elman": torch.nn.RNNCell, "gru": torch.nn.GRUCell, "lstm": torch.nn.LSTMCell}


def cell_of(name: str, *, hidden: int = 7, layers: int = 1) -> Cell:
    torch.manual_seed(3)
    return make_cell(name, INPUTS, hidden, layers).eval()


def inputs_of(batch: int) -> torch.Tensor:
    return torch.randn(batch, STEPS, INPUTS, generator=torch.Generator().manual_seed(5))


def unroll(cell: Cell, inputs: torch.Tensor) -> torch.Tensor:
    width = cell.num_layers * cell.hidden_size
    state = tuple(torch.zeros(len(inputs), width) for _ in cell.states)
    outputs = []
    with torch.no_grad():
        for t in range(inputs.shape[1]):
            state = cell.step(inputs[:, t], state)
            outputs.append(cell.output(state))
    return torch.stack(outputs, dim=1)


@pytest.mark.parametrize("name", sorted(CELLS))
@pytest.mark.parametrize(("batch", "hidden", "layers"), [(4, 7, 1), (1, 7, 1), (4, 1, 1), (4, 7, 3), (33, 64, 2)])
def test_steps_equal_the_fused_sequence(name: str, batch: int, hidden: int, layers: int) -> None:
    cell, inputs = cell_of(name, hidden=hidden, layers=layers), inputs_of(batch)
    with torch.no_grad():
        torch.testing.assert_close(unroll(cell, inputs), cell.sequence(inputs), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", sorted(CELLS))
def test_steps_equal_the_cell_of_pytorch(name: str) -> None:
    cell, inputs = cell_of(name), inputs_of(4)
    reference = TORCH_CELL[name](INPUTS, cell.hidden_size)
    reference.load_state_dict({key.removesuffix("_l0"): value for key, value in cell.fused.state_dict().items()})
    state: Any = None
    expected = []
    with torch.no_grad():
        for t in range(STEPS):
            state = reference(inputs[:, t], state)
            expected.append(state[0] if name == "lstm" else state)
    torch.testing.assert_close(unroll(cell, inputs), torch.stack(expected, dim=1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", sorted(CELLS))
def test_steps_equal_the_fused_operator_of_onnx_runtime(name: str, tmp_path: Path) -> None:
    cell, inputs = cell_of(name), inputs_of(4)
    found = run_onnx_operator(cell, name, inputs.numpy())
    np.testing.assert_allclose(unroll(cell, inputs).numpy(), found, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", sorted(CELLS))
def test_rows_of_a_batch_do_not_meet(name: str) -> None:
    cell, inputs = cell_of(name, layers=2), inputs_of(5)
    changed = inputs.clone()
    changed[1:] *= 1e6
    torch.testing.assert_close(unroll(cell, inputs)[0], unroll(cell, changed)[0], rtol=0, atol=0)


def test_an_unknown_cell_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'transformer' is not one of \['elman', 'gru', 'lstm'\]"):
        make_cell("transformer", 1, 1, 1)


def run_onnx_operator(cell: Cell, name: str, inputs: np.ndarray) -> np.ndarray:
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
