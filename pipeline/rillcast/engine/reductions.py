"""Reductions of a small axis as products and elementwise operators, so that a graph needs no cuDNN on CUDA.

ONNX Runtime's CUDA provider reduces sums over leading or trailing axes by kernels of its own, and all else by cuDNN:
sums over an axis in the middle, minima, maxima and their positions. cuDNN is another library of 0.8 GB, and ONNX
Runtime opens it only when such an operator runs.

Owns: this rewriting, which a CUDA executor does when it loads a graph.
Does not know: what is reduced. The CPU keeps its reductions, so its results stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

_OF_PARTS: Final = {"ReduceSum": "Sum", "ReduceMin": "Min", "ReduceMax": "Max"}
_MOST_PARTS: Final = 32
"""Parts into which ONNX Runtime splits an axis in one launch; for more it copies their addresses from the host."""
_MATRIX: Final = 2  # axes of a matrix, the last ones
_OWN: Final = "rillcast.reductions."


def without_cudnn(data: bytes) -> bytes:
    """Return a model in which reductions that would take cuDNN are other operators.

    A sum over the axis before the last one is a product with ones, in one launch; the others combine slices. Reductions
    over several axes, or over an axis whose length is unknown or above 32, stay as they are. A sum may be
    added in another order than before.
    """
    model = onnx.load_model_from_string(data)
    inferred = _inferred(model)
    shapes = {name: [dim.dim_value for dim in kind.shape.dim] for name, kind in inferred.items()}
    floats = {name for name, kind in inferred.items() if kind.elem_type == onnx.TensorProto.FLOAT}
    constants = {value.name: value for value in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        shape, axis = shapes.get(node.input[0]) if node.input else None, _axis(node, constants)
        if shape is None or axis is None or not shape[axis] or shape[axis] > _MOST_PARTS:
            nodes.append(node)
        elif node.op_type == "ArgMax":
            nodes.extend(_position(model.graph, node, axis))
        elif node.input[0] in floats and _is_sum_of_rows(node, axis, shape):
            nodes.extend(_product(model.graph, node, axis, shape[:-1]))
        elif node.op_type != "ReduceSum" or 0 < axis % len(shape) < len(shape) - 1:
            nodes.extend(_over_parts(model.graph, node, axis, shape[axis]))
        else:
            nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return bytes(model.SerializeToString())


def _inferred(model: onnx.ModelProto) -> dict[str, onnx.TypeProto.Tensor]:
    """Return the types that are known; a dimension that varies has the value 0."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    return {value.name: value.type.tensor_type for value in (*inferred.value_info, *inferred.input)}


def _axis(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> int | None:
    """Return the only axis of a reduction that this module knows, else None."""
    attributes = _attributes(node)
    if node.op_type == "ArgMax":
        return None if attributes.get("select_last_index") else int(attributes.get("axis", 0))
    if node.op_type not in _OF_PARTS:
        return None
    axes = attributes.get("axes")
    if axes is None and len(node.input) > 1 and node.input[1] in constants:
        axes = numpy_helper.to_array(constants[node.input[1]]).tolist()
    return int(axes[0]) if axes is not None and len(axes) == 1 else None


def _is_sum_of_rows(node: onnx.NodeProto, axis: int, shape: Sequence[int]) -> bool:
    """Return whether a reduction sums the rows of a known number of matrices.

    Of a single one ONNX Runtime has a kernel of its own.
    """
    rank = len(shape)
    return node.op_type == "ReduceSum" and rank > _MATRIX and axis % rank == rank - _MATRIX and all(shape[:-1])


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _product(graph: onnx.GraphProto, node: onnx.NodeProto, axis: int, shape: Sequence[int]) -> list[onnx.NodeProto]:
    """Return nodes that multiply a row of ones with each matrix of the last two axes, `[..., shape[-1], B]`.

    There are as many rows as matrices, for then no addresses of them are copied from the host.
    """
    output, ones = node.output[0], f"{_OWN}{node.output[0]}.ones"
    graph.initializer.append(numpy_helper.from_array(np.ones((*shape[:-1], 1, shape[-1]), np.float32), ones))
    if _attributes(node).get("keepdims", 1):
        return [helper.make_node("MatMul", [ones, node.input[0]], [output])]
    kept = f"{_OWN}{output}.kept"
    return [helper.make_node("MatMul", [ones, node.input[0]], [kept]), _squeeze(graph, kept, output, axis)]


def _over_parts(graph: onnx.GraphProto, node: onnx.NodeProto, axis: int, length: int) -> list[onnx.NodeProto]:
    """Return nodes that split the axis and combine its parts."""
    output = node.output[0]
    parts = [f"{_OWN}{output}.{number}" for number in range(length)]
    sizes = _constant(graph, f"{_OWN}{output}.sizes", [1] * length)
    split = helper.make_node("Split", [node.input[0], sizes], parts, axis=axis)
    combine = _OF_PARTS[node.op_type]
    if _attributes(node).get("keepdims", 1):
        return [split, helper.make_node(combine, parts, [output])]
    kept = f"{_OWN}{output}.kept"
    return [split, helper.make_node(combine, parts, [kept]), _squeeze(graph, kept, output, axis)]


def _position(graph: onnx.GraphProto, node: onnx.NodeProto, axis: int) -> list[onnx.NodeProto]:
    """Return nodes that find the first position of the largest value; TopK prefers the first of equal ones."""
    output = node.output[0]
    one, values, kept = (f"{_OWN}{output}.{name}" for name in ("one", "values", "kept"))
    keeps = _attributes(node).get("keepdims", 1)
    found = [values, output if keeps else kept]
    top = helper.make_node("TopK", [node.input[0], _constant(graph, one, [1])], found, axis=axis)
    return [top] if keeps else [top, _squeeze(graph, kept, output, axis)]


def _squeeze(graph: onnx.GraphProto, kept: str, output: str, axis: int) -> onnx.NodeProto:
    return helper.make_node("Squeeze", [kept, _constant(graph, f"{kept}.axes", [axis])], [output])


def _constant(graph: onnx.GraphProto, name: str, values: Sequence[int]) -> str:
    graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), name))
    return name
