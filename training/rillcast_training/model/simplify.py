"""Operators of a traced graph that others do as well: the tracer writes one for each line of a module.

On a GPU an operator that moves numbers is a launch of a kernel, and one that only gives them another shape is none.

Owns: which operators are replaced, and by what. Does not know: the purpose of the graph, or its layout.

Invariant: the graph gives the same bits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np
import onnx
from onnx import helper

_OF_MANY: Final = frozenset({"Concat", "Max", "Min"})  # operators of any number of inputs


def simplified(
    nodes: Iterable[onnx.NodeProto],
    constants: dict[str, np.ndarray],
    shapes: Mapping[str, Sequence[int | str]],
    outputs: Iterable[str],
) -> list[onnx.NodeProto]:
    """Return nodes that compute the same.

    - The only entry of an axis is no gather, but another shape.
    - Parts that are joined to be joined again are joined once, as are those of which the largest or smallest is taken.

    Args:
        nodes: In topological order.
        constants: Initializers by name; those that are made are added.
        shapes: Shapes of all values.
        outputs: Values that must keep their names.
    """
    found = [_without_axis(node, constants, shapes) for node in nodes]
    return _taken_once(found, set(outputs))


def _without_axis(
    node: onnx.NodeProto, constants: dict[str, np.ndarray], shapes: Mapping[str, Sequence[int | str]]
) -> onnx.NodeProto:
    index = constants.get(node.input[1]) if node.op_type == "Gather" else None
    if index is None or index.ndim or node.input[0] not in shapes:
        return node
    shape, axis = shapes[node.input[0]], _axis(node)
    if shape[axis] != 1:
        return node
    axes = f"{node.output[0]}.axes"
    constants[axes] = np.array([axis % len(shape)], np.int64)
    return helper.make_node("Squeeze", [node.input[0], axes], node.output, name=node.name)


def _taken_once(nodes: Sequence[onnx.NodeProto], outputs: set[str]) -> list[onnx.NodeProto]:
    uses = Counter(name for node in nodes for name in node.input)
    made = {node.output[0]: node for node in nodes if node.op_type in _OF_MANY}
    found, inner = [], set()
    for node in nodes:
        if node.op_type not in _OF_MANY:
            found.append(node)
            continue
        parts: list[str] = []
        for name in node.input:
            other = made.get(name)
            alike = other is not None and (other.op_type, _axis(other)) == (node.op_type, _axis(node))
            if other is None or not alike or uses[name] > 1 or name in outputs:
                parts.append(name)
            else:
                parts += other.input
                inner.add(name)
        whole = helper.make_node(node.op_type, parts, node.output, name=node.name)
        whole.attribute.extend(node.attribute)
        made[node.output[0]] = whole
        found.append(whole)
    return [node for node in found if node.op_type not in _OF_MANY or node.output[0] not in inner]


def _axis(node: onnx.NodeProto) -> int:
    """Return a node's axis; 0 is the default of every operator here that has one."""
    return next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
