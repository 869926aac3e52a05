"""Operators of a finished graph that do nothing, or what another one does already, are left out."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from rillcast_training.model.merging import Shape, merged

B = "rows"
X = np.arange(60, dtype=np.float32).reshape(4, 5, 3)  # the last dimension is that of the batch
CONSTANTS = {
    **{str(number): np.array([number], np.int64) for number in range(-1, 6)},
    "one": np.array(1),
    "last": np.array(-1),
    "sizes": np.array([4, 4], np.int64),
    "as matrix": np.array([20, -1], np.int64),
    "as table": np.array([4, 5, -1], np.int64),
}


def node(kind: str, inputs: str, outputs: str, **attributes: int | list[int]) -> onnx.NodeProto:
    made = helper.make_node(kind, inputs.split(","), outputs.split(","))
    made.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
    return made


def computed(nodes: list[onnx.NodeProto], constants: Mapping[str, np.ndarray], outputs: list[str]) -> list[np.ndarray]:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, X.shape)],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        initializer=[numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(outputs, {"x": X}))


def left(nodes: list[onnx.NodeProto], *outputs: str) -> list[str]:
    """The operators that are left, once they are shown to compute the same."""
    constants = dict(CONSTANTS)
    names = [name for one in nodes for name in one.output]
    values = dict(zip(names, computed(nodes, constants, names), strict=True)) | {"x": X}
    shapes: dict[str, Shape] = {
        name: tuple(B if size == X.shape[2] else size for size in value.shape) for name, value in values.items()
    }
    whole = frozenset(name for name, value in values.items() if value.dtype == np.int64)
    found = merged(nodes, constants, shapes, whole, frozenset(outputs))
    for one, name in zip(computed(found, constants, list(outputs)), outputs, strict=True):
        np.testing.assert_array_equal(one, values[name])
    return [one.op_type for one in found]


def test_what_is_computed_twice_is_computed_once() -> None:
    nodes = [node("Abs", "x", "a"), node("Abs", "x", "b"), node("Neg", "x", "c"), node("Sum", "a,b,c", "out")]
    assert left(nodes, "out") == ["Abs", "Neg", "Sum"]


def test_an_output_of_the_graph_keeps_its_name() -> None:
    assert left([node("Abs", "x", "a"), node("Abs", "x", "b")], "a", "b") == ["Abs", "Abs"]
    assert left([node("Transpose", "x", "a", perm=[0, 1, 2])], "a") == ["Transpose"]


@pytest.mark.parametrize(("first", "second", "count"), [([2, 0, 1], [1, 2, 0], 0), ([2, 0, 1], [2, 0, 1], 1)])
def test_transpositions_in_a_row_are_one_or_none(first: list[int], second: list[int], count: int) -> None:
    nodes = [node("Transpose", "x", "a", perm=first), node("Transpose", "a", "b", perm=second), node("Abs", "b", "out")]
    assert left(nodes, "out") == ["Transpose"] * count + ["Abs"]


def test_a_cut_of_a_cut_or_of_a_joined_part_is_one_cut() -> None:
    nodes = [
        node("Slice", "x,1,5,1", "a"),
        node("Slice", "a,1,3,1", "b"),
        node("Abs", "x", "c"),
        node("Concat", "x,c", "joined", axis=0),
        node("Slice", "joined,5,-1,0", "d"),  # lies in the second part
        node("Slice", "joined,3,5,0", "e"),  # lies in both
        node("Slice", "joined,4,5,0", "f"),
        node("Abs", "b", "b_out"),
        *(node("Neg", name, f"{name}_out") for name in "def"),
    ]
    assert left(nodes, "b_out", "d_out", "e_out", "f_out").count("Slice") == 4


def test_a_cut_of_everything_is_none() -> None:
    assert left([node("Slice", "x,0,4,0", "a"), node("Neg", "a", "out")], "out") == ["Neg"]


def test_a_place_of_joined_parts_is_a_place_of_the_part() -> None:
    nodes = [
        node("Slice", "x,2,3,1", "one_place"),
        node("Concat", "x,one_place", "joined", axis=1),
        node("Gather", "joined,last", "a", axis=1),
        node("Gather", "joined,one", "b", axis=1),
        node("Neg", "a", "a_out"),
        node("Neg", "b", "b_out"),
    ]
    assert left(nodes, "a_out", "b_out") == ["Slice", "Squeeze", "Gather", "Neg", "Neg"]


def test_parts_that_are_joined_and_split_again_stay_parts() -> None:
    nodes = [
        node("Neg", "x", "other"),
        node("Concat", "x,other", "joined", axis=0),
        node("Split", "joined,sizes", "a,b", axis=0),
        node("Sub", "a,b", "out"),
    ]
    assert left(nodes, "out") == ["Neg", "Sub"]


def test_a_computed_shape_with_one_unknown_size_is_a_constant() -> None:
    nodes = [
        node("Reshape", "x,as matrix", "flat"),
        node("Abs", "flat", "a"),
        node("Shape", "x", "shape"),
        node("Reshape", "a,shape", "out_shape"),
        node("Neg", "out_shape", "out"),
    ]
    assert left(nodes, "out") == ["Reshape", "Abs", "Reshape", "Neg"]


def test_a_change_of_shape_and_back_is_none_but_behind_a_transposition() -> None:
    there_and_back = [node("Reshape", "x,as matrix", "a"), node("Reshape", "a,as table", "b"), node("Neg", "b", "out")]
    assert left(there_and_back, "out") == ["Neg"]
    turned = [
        node("Transpose", "x", "t", perm=[0, 1, 2]),
        node("Transpose", "x", "u", perm=[1, 0, 2]),
        node("Reshape", "u,as matrix", "flat"),
        node("Sum", "t,x", "a"),
        node("Sum", "flat", "b"),
    ]
    assert left(turned, "a", "b") == ["Transpose", "Reshape", "Sum", "Sum"]


def test_a_cast_to_the_type_that_a_value_has_is_none() -> None:
    nodes = [
        node("Cast", "x", "a", to=int(TensorProto.INT64)),
        node("Cast", "a", "b", to=int(TensorProto.INT64)),
        node("Cast", "b", "c", to=int(TensorProto.FLOAT)),
        node("Neg", "c", "out"),
    ]
    assert left(nodes, "out") == ["Cast", "Cast", "Neg"]
