"""Reductions without cuDNN give what the reductions gave."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from rillcast.arrays import AnyArray
from rillcast.bundle.bundle import Bundle
from rillcast.engine import reductions
from rillcast.engine.device import IR_VERSION, OPSET

SHAPE = (3, 25, "B")
GIVEN = np.random.default_rng(0).integers(-9, 9, (3, 25, 7)).astype(np.float32)  # whole: sums are exact, maxima tie


def model(op: str, axis: int, shape: tuple[Any, ...] = SHAPE, **attributes: Any) -> bytes:
    inputs, initializers = ["x"], []
    if op == "ArgMax":
        attributes["axis"] = axis
    elif op in ("ReduceMin", "ReduceMax"):
        attributes["axes"] = [axis]  # an attribute until opset 18
    else:
        inputs.append("axes")
        initializers.append(numpy_helper.from_array(np.array([axis], np.int64), "axes"))
    element = TensorProto.INT64 if op == "ArgMax" else TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node(op, inputs, ["y"], **attributes)],
        "reduction",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", element, None)],
        initializers,
    )
    opset = 17 if "axes" in attributes else OPSET
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=IR_VERSION)
    return bytes(made.SerializeToString())


def computed(data: bytes, given: AnyArray = GIVEN) -> AnyArray:
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": given})[0])


def operators(data: bytes) -> list[str]:
    return [node.op_type for node in onnx.load_model_from_string(data).graph.node]


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("axis", [1, -2])
@pytest.mark.parametrize("op", ["ReduceSum", "ReduceMin", "ReduceMax", "ArgMax"])
def test_results_are_those_of_the_reduction(op: str, axis: int, keepdims: int) -> None:
    plain = model(op, axis, keepdims=keepdims)
    rewritten = reductions.without_cudnn(plain)
    assert op not in operators(rewritten)
    np.testing.assert_array_equal(computed(rewritten), computed(plain))


@pytest.mark.parametrize(
    ("op", "axis", "shape"),
    [
        ("ReduceSum", 0, SHAPE),  # ONNX Runtime has kernels of its own for these two
        ("ReduceSum", 2, (3, 25, 7)),
        ("ReduceMax", 2, SHAPE),  # a length that varies
        ("ReduceMax", 1, (3, 33, "B")),  # more parts than one launch splits
    ],
)
def test_other_reductions_stay(op: str, axis: int, shape: tuple[Any, ...]) -> None:
    assert operators(reductions.without_cudnn(model(op, axis, shape))) == [op]


def test_a_sum_of_rows_is_one_product() -> None:
    """Of as many rows of ones as there are matrices: of a single row, addresses would be copied from the host."""
    made = reductions.without_cudnn(model("ReduceSum", 1))
    assert operators(made) == ["MatMul"]
    (ones,) = (one for one in onnx.load_model_from_string(made).graph.initializer if one.name.endswith("ones"))
    assert list(ones.dims) == [3, 1, 25]


def test_an_index_of_the_last_maximum_stays() -> None:
    assert operators(reductions.without_cudnn(model("ArgMax", 1, select_last_index=1))) == ["ArgMax"]


def test_a_shipped_bundle_steps_as_before() -> None:
    bundle = Bundle.load("universal:1h")
    plain, rewritten = bundle.step.served, reductions.without_cudnn(bundle.step.served)
    assert {"ReduceMin", "ReduceMax", "ArgMax"} & set(operators(plain))
    assert not {"ReduceMin", "ReduceMax", "ArgMax"} & set(operators(rewritten))
    sessions = [ort.InferenceSession(data, providers=["CPUExecutionProvider"]) for data in (plain, rewritten)]
    rows = {spec.name: np.zeros((4, *spec.row_shape), spec.numpy_dtype) for spec in bundle.metadata.states}
    states = [{f"state.{name}": row.copy() for name, row in rows.items()} for _ in sessions]
    draw = np.random.default_rng(1)
    for period in range(30):
        y = draw.normal(100, 10, 3).astype(np.float32)
        given = {"slots": np.arange(1, 4), "ds": np.full(3, period * 3_600_000), "y": y}
        given |= {name: np.array(1, np.float32) for name in ("calibrate", "bounds")}
        given |= {"alarm_interval": np.full(3, 168, np.float32)}
        found = []
        for number, session in enumerate(sessions):
            names = [output.name for output in session.get_outputs()]
            outputs = dict(zip(names, session.run(None, given | states[number]), strict=True))
            states[number] = {f"state.{name}": outputs[f"state.{name}.next"] for name in rows}
            found.append(outputs["forecast"])
        np.testing.assert_allclose(found[1], found[0], rtol=1e-3, atol=1e-3)
