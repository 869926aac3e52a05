"""Reductions of a small axis as elementwise operators, so that a graph needs no cuDNN on CUDA.

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

_ELEMENTWISE: Final = {"ReduceSum": "Sum", "ReduceMin": "Min", "ReduceMax": "Max"}
_MOST_PARTS: Final = 32
"""Parts into which ONNX Runtime splits an axis in one launch; for more it copies their addresses from the host."""
_OWN: Final = "rillcast.reductions."


def as_elementwise(data: bytes) -> bytes:
    """Return a model in which reductions that would take cuDNN are elementwise operators over slices.

    Reductions over several axes, or over an axis whose length is unknown or above 32, stay as they are. A sum may be
    added in another order than before.
    """
    model = onnx.load_model_from_string(data)
    shapes = _shapes(model)
    constants = {value.name: value for value in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        shape, axis = shapes.get(node.input[0]) if node.input else None, _axis(node, constants)
        if shape is None or axis is None or not shape[axis] or shape[axis] > _MOST_PARTS:
            nodes.append(node)
        elif node.op_type == "ArgMax":
            nodes.extend(_position(model.graph, node, axis))
        elif node.op_type != "ReduceSum" or 0 < axis % len(shape) < len(shape) - 1:
            nodes.extend(_over_parts(model.graph, node, axis, shape[axis]))
        else:
            nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return bytes(model.SerializeToString())


def _shapes(model: onnx.ModelProto) -> dict[str, list[int]]:
    """Return the shapes that are known, 0 for a dimension that varies."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    return {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*inferred.value_info, *inferred.input)
    }


def _axis(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> int | None:
    """Return the only axis of a reduction that this module knows, else None."""
    attributes = _attributes(node)
    if node.op_type == "ArgMax":
        return None if attributes.get("select_last_index") else int(attributes.get("axis", 0))
    if node.op_type not in _ELEMENTWISE:
        return None
    axes = attributes.get("axes")
    if axes is None and len(node.input) > 1 and node.input[1] in constants:
        axes = numpy_helper.to_array(constants[node.input[1]]).tolist()
    return int(axes[0]) if axes is not None and len(axes) == 1 else None


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _over_parts(graph: onnx.GraphProto, node: onnx.NodeProto, axis: int, length: int) -> list[onnx.NodeProto]:
    """Return nodes that split the axis and combine its parts."""
    output = node.output[0]
    parts = [f"{_OWN}{output}.{number}" for number in range(length)]
    sizes = _constant(graph, f"{_OWN}{output}.sizes", [1] * length)
    split = helper.make_node("Split", [node.input[0], sizes], parts, axis=axis)
    combine = _ELEMENTWISE[node.op_type]
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
