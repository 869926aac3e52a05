"""Quarantine inside the graph: a step that would leave a state or forecast unusable does not change its stream.

`add` rewrites a bundle's graph when it is loaded. Where an event would make a state or forecast of its stream
non-finite, or larger than `MAX_ABS`, its rows are scattered to the scratch row instead of the stream's. A new output
`healthy` (bool [B]) says for which events the step counted. So a NaN never enters any stream's state, on any device. It
costs one reduction per state, over the whole batch where the device can branch.

In a sequence graph one verdict covers a stream's whole run. A run that the graph refuses (`regular` is false) is not
healthy either.

Owns: this rewriting.
Does not know: the meaning of a state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from rillcast.bundle.bundle import REGULAR, STATE_PREFIX, StateSpec

HEALTHY: Final = "healthy"
# The sum of squares of a stream's rows must not exceed this, so no value exceeds 1e19. NaN and infinity fail the
# comparison too.
MAX_SQUARES: Final = 1e38
MAX_ABS: Final = MAX_SQUARES**0.5
_OWN: Final = "rillcast.quarantine."
_LIMIT: Final = _OWN + "limit"
_SLOTS: Final = "slots"
_AXES_ARE_AN_INPUT: Final = 18  # the opset since which ReduceSumSquare takes its axes as an input


def add(data: bytes, states: Sequence[StateSpec], *, branches: bool) -> bytes:
    """Return a bundle's model, the step or the sequence, with the quarantine in it.

    Args:
        data: Bytes of the model as it is served, see `rillcast.bundle.state_access`.
        states: The bundle's states.
        branches: Whether the graph may branch. It then checks the whole batch at a sixth of the cost, and single rows
            only where that fails. A CUDA graph cannot branch.
    """
    model = onnx.load_model_from_string(data)
    graph = model.graph
    # No node reads the output of a scatter (a clause of the contract), so the scatters can move to the end.
    scatters = [node for node in graph.node if node.op_type == "ScatterND" and node.input[0].startswith(STATE_PREFIX)]
    updates = {node.input[0].removeprefix(STATE_PREFIX): node.input[2] for node in scatters}
    for node in scatters:
        graph.node.remove(node)

    floats = [spec for spec in states if np.issubdtype(spec.numpy_dtype, np.floating)]
    values = ["forecast", *(_as_float32(graph, updates[spec.name], spec.dtype) for spec in floats)]
    taken = REGULAR if any(output.name == REGULAR for output in graph.output) else None
    opset = next(opset.version for opset in model.opset_import if opset.domain in ("", "ai.onnx"))
    graph.initializer.append(numpy_helper.from_array(np.array(MAX_SQUARES, np.float32), _LIMIT))
    if branches:
        graph.node.extend(_batch_is_usable(values))
        whole, each = _branch("whole", _all_rows(taken)), _branch("each", _usable_rows(values, taken, opset))
        graph.node.append(
            helper.make_node("If", [_OWN + "whole"], [HEALTHY], _OWN + "if", then_branch=whole, else_branch=each)
        )
    else:
        graph.node.extend(_usable_rows(values, taken, opset))
        graph.node.append(helper.make_node("Identity", [_OWN + "each"], [HEALTHY]))
    graph.output.append(helper.make_tensor_value_info(HEALTHY, TensorProto.BOOL, ["B"]))

    graph.node.append(helper.make_node("Cast", [HEALTHY], [_OWN + "factor"], to=TensorProto.INT64))
    of_elements = {node.input[0] for node in graph.node if node.op_type == "GatherND"}
    for rank in (2, 3):  # of the indices of whole rows, [B, 1], and of single elements, [B, K, 2]
        shape = numpy_helper.from_array(np.array([-1, *[1] * (rank - 1)], np.int64), f"{_OWN}shape.{rank}")
        graph.initializer.append(shape)
        graph.node.append(helper.make_node("Reshape", [_OWN + "factor", shape.name], [f"{_OWN}factors.{rank}"]))
    for node in scatters:
        # Slot times 1 is the stream's row; slot times 0 is the scratch row.
        redirected = _OWN + node.input[0] + ".rows"
        factors = f"{_OWN}factors.{3 if node.input[0] in of_elements else 2}"
        graph.node.append(helper.make_node("Mul", [node.input[1], factors], [redirected]))
        node.input[1] = redirected
        graph.node.append(node)
    return bytes(model.SerializeToString())


def _as_float32(graph: onnx.GraphProto, value: str, dtype: str) -> str:
    """Return the name of a value as float32, the type in which squares are summed."""
    if dtype == "float32":
        return value
    graph.node.append(helper.make_node("Cast", [value], [_OWN + value + ".float"], to=TensorProto.FLOAT))
    return _OWN + value + ".float"


def _batch_is_usable(values: Sequence[str]) -> list[onnx.NodeProto]:
    """Return nodes whose last output says whether the sum over all rows is within the limit, so that each row's is."""
    sums = [_OWN + value + ".sum" for value in values]
    return [
        *(helper.make_node("ReduceSumSquare", [v], [s], keepdims=0) for v, s in zip(values, sums, strict=True)),
        helper.make_node("Sum", sums, [_OWN + "sum"]),
        helper.make_node("LessOrEqual", [_OWN + "sum", _LIMIT], [_OWN + "whole"]),
    ]


def _all_rows(taken: str | None) -> list[onnx.NodeProto]:
    """Return nodes whose last output is true for every row, except those that the graph refuses."""
    if taken is not None:
        return [helper.make_node("Identity", [taken], [_OWN + "whole.rows"])]
    true = helper.make_tensor(_OWN + "true", TensorProto.BOOL, [1], [True])
    return [
        helper.make_node("Shape", [_SLOTS], [_OWN + "whole.shape"]),
        helper.make_node("ConstantOfShape", [_OWN + "whole.shape"], [_OWN + "whole.rows"], value=true),
    ]


def _usable_rows(values: Sequence[str], taken: str | None, opset: int) -> list[onnx.NodeProto]:
    """Return nodes whose last output, `each`, says for each row whether it is usable and the graph accepts it."""
    nodes: list[onnx.NodeProto] = []
    squares = []
    for value in values:
        own = _OWN + value
        nodes.append(helper.make_node("Flatten", [value], [own + ".rows"], axis=1))
        if opset < _AXES_ARE_AN_INPUT:
            nodes.append(helper.make_node("ReduceSumSquare", [own + ".rows"], [own + ".squares"], axes=[1], keepdims=0))
        else:
            nodes.append(helper.make_node("Constant", [], [own + ".axes"], value_ints=[1]))
            nodes.append(
                helper.make_node("ReduceSumSquare", [own + ".rows", own + ".axes"], [own + ".squares"], keepdims=0)
            )
        squares.append(own + ".squares")
    nodes.append(helper.make_node("Sum", squares, [_OWN + "squares"]))
    if taken is None:
        return [*nodes, helper.make_node("LessOrEqual", [_OWN + "squares", _LIMIT], [_OWN + "each"])]
    nodes.append(helper.make_node("LessOrEqual", [_OWN + "squares", _LIMIT], [_OWN + "usable"]))
    return [*nodes, helper.make_node("And", [taken, _OWN + "usable"], [_OWN + "each"])]


def _branch(name: str, nodes: Sequence[onnx.NodeProto]) -> onnx.GraphProto:
    verdict = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.BOOL, ["B"])
    return helper.make_graph(nodes, _OWN + name, [], [verdict])
