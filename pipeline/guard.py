"""Quarantine inside the graph: a step that would leave a state or forecast unusable leaves the stream as it was.

Rewrites a bundle's graph at load: an event after which any state or forecast of its stream is not finite, or beyond
`MAX_ABS`, has its rows scattered to the scratch row instead of the stream's, and a further output `healthy` (bool [B])
says for which events the step counted. So one stream's NaN never enters its state, let alone another's, on any device,
at the cost of one reduction per state. In a sequence graph the verdict is on a stream's whole run, and a run that the
graph does not take (`regular` is false) is not healthy either. Knows the bundle contract; does not know what a state
means.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pipeline.bundle import REGULAR, STATE_PREFIX, StateSpec

HEALTHY: Final = "healthy"
# The sum of squares of a row must stay below this, so one value below 1e19. NaN and infinity fail the comparison too.
MAX_SQUARES: Final = 1e38
MAX_ABS: Final = MAX_SQUARES**0.5
_OWN: Final = "rillcast.guard."


def protect(data: bytes, states: Sequence[StateSpec]) -> bytes:
    """Return a bundle's model, the step or the sequence, with the quarantine in it."""
    model = onnx.load_model_from_string(data)
    graph = model.graph
    # Nothing reads what a scatter writes (a clause of the contract), so the scatters can go last.
    scatters = [node for node in graph.node if node.op_type == "ScatterND" and node.input[0].startswith(STATE_PREFIX)]
    updates = {node.input[0].removeprefix(STATE_PREFIX): node.input[2] for node in scatters}
    for node in scatters:
        graph.node.remove(node)

    graph.initializer.append(numpy_helper.from_array(np.array(MAX_SQUARES, np.float32), _OWN + "limit"))
    in_runs = any(output.name == REGULAR for output in graph.output)
    verdicts = [REGULAR] if in_runs else []
    verdicts.append(_verdict(graph, "forecast", rank=3 if in_runs else 2, dtype="float32"))
    floats = [spec for spec in states if np.issubdtype(spec.numpy_dtype, np.floating)]
    verdicts += [_verdict(graph, updates[s.name], rank=len(s.row_shape), dtype=s.dtype) for s in floats]
    healthy = verdicts[0]
    for number, verdict in enumerate(verdicts[1:]):
        graph.node.append(helper.make_node("And", [healthy, verdict], [f"{_OWN}and.{number}"]))
        healthy = f"{_OWN}and.{number}"
    graph.node.append(helper.make_node("Identity", [healthy], [HEALTHY]))
    graph.output.append(helper.make_tensor_value_info(HEALTHY, TensorProto.BOOL, ["B"]))

    graph.initializer.append(numpy_helper.from_array(np.array([-1, 1], np.int64), _OWN + "column"))
    graph.node.append(helper.make_node("Cast", [HEALTHY], [_OWN + "factor"], to=TensorProto.INT64))
    graph.node.append(helper.make_node("Reshape", [_OWN + "factor", _OWN + "column"], [_OWN + "factors"]))
    for node in scatters:
        # Slot times 1 is the stream's row, slot times 0 the scratch row.
        redirected = _OWN + node.input[0] + ".rows"
        graph.node.append(helper.make_node("Mul", [node.input[1], _OWN + "factors"], [redirected]))
        node.input[1] = redirected
        graph.node.append(node)
    return bytes(model.SerializeToString())


def _verdict(graph: onnx.GraphProto, value: str, *, rank: int, dtype: str) -> str:
    """Add nodes that say for each row of `value`, `[B, *rank more]`, whether it is usable; return their output."""
    prefix = _OWN + value
    if dtype != "float32":
        graph.node.append(helper.make_node("Cast", [value], [prefix + ".float"], to=TensorProto.FLOAT))
        value = prefix + ".float"
    graph.initializer.append(numpy_helper.from_array(np.arange(1, rank + 1, dtype=np.int64), prefix + ".axes"))
    graph.node.append(helper.make_node("ReduceSumSquare", [value, prefix + ".axes"], [prefix + ".squares"], keepdims=0))
    graph.node.append(helper.make_node("LessOrEqual", [prefix + ".squares", _OWN + "limit"], [prefix + ".usable"]))
    return prefix + ".usable"
