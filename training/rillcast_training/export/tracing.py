"""A module to an ONNX graph over state rows, and the graph over whole states around it.

Owns: the call of the exporter, and the gather and scatter of the rows. Does not know: the purpose of the traced module.
It uses the TorchScript exporter for the reasons in docs/adr/0001-torchscript-exporter.md.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from rillcast.bundle.bundle import NEXT_SUFFIX, STATE_PREFIX, StateSpec

OPSET: Final = 18
ROW: Final = "row"
_ROWS_SUFFIX: Final = ".rows"
_NEXT_ROWS_SUFFIX: Final = ".rows.next"


def trace(
    module: nn.Module,
    example: tuple[Tensor, ...],
    inputs: Sequence[str],
    outputs: Sequence[str],
    axes: Mapping[str, Mapping[int, str]],
    custom_opsets: Mapping[str, int] | None = None,
) -> onnx.ModelProto:
    """Export `module(*example)`; `axes` names the dimensions that are not fixed."""
    buffer: Any = io.BytesIO()  # this exporter accepts a buffer, though its annotation names paths only
    with warnings.catch_warnings(), torch.no_grad():
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # the exporter itself is deprecated: see the ADR
        torch.onnx.export(
            module.eval(),  # else the exporter would put inner modules back into training mode
            example,
            buffer,
            dynamo=False,
            input_names=inputs,
            output_names=outputs,
            dynamic_axes=axes,
            opset_version=OPSET,
            do_constant_folding=True,
            custom_opsets=custom_opsets,
        )
    return onnx.load_model_from_string(buffer.getvalue())


def row_inputs(specs: Sequence[StateSpec]) -> list[str]:
    """Return the names of the state rows before the events, as `graft_state` expects them."""
    return [STATE_PREFIX + spec.name + _ROWS_SUFFIX for spec in specs]


def row_outputs(specs: Sequence[StateSpec]) -> list[str]:
    """Return the names of the state rows after the events, as `graft_state` expects them."""
    return [STATE_PREFIX + spec.name + _NEXT_ROWS_SUFFIX for spec in specs]


def graft_state(
    traced: onnx.ModelProto,
    name: str,
    specs: Sequence[StateSpec],
    events: Sequence[str],
    results: Sequence[onnx.ValueInfoProto],
) -> onnx.ModelProto:
    """Gather the rows before the graph and scatter them after it, once per state, as the in-place contract asks.

    A state that the graph reads and writes at single entries (`rillcast_training.model.indexed_state`) is passed to it
    whole instead, and `ROW`, the row of an event, becomes the slot of its stream.

    Args:
        traced: Graph over state rows.
        name: Name of the new graph.
        specs: Kinds of state.
        events: Inputs that are not state rows.
        results: Descriptions of the outputs: the shapes that the tracer infers depend on how it lowers the last
            operator.
    """
    graph = traced.graph
    column = numpy_helper.from_array(np.array([1], dtype=np.int64), "slots.axes")
    gathers = [helper.make_node("Unsqueeze", ["slots", "slots.axes"], ["slots.column"], name="slots.column")]
    scatters, inputs, outputs = [], [value("slots", TensorProto.INT64, ["B"])], []
    renamed = {ROW: "slots"}
    for spec, rows, following in zip(specs, row_inputs(specs), row_outputs(specs), strict=True):
        state = STATE_PREFIX + spec.name
        dtype = helper.np_dtype_to_tensor_dtype(spec.numpy_dtype)
        inputs.append(value(state, dtype, ["N", *spec.row_shape]))
        outputs.append(value(state + NEXT_SUFFIX, dtype, ["N", *spec.row_shape]))
        if any(node.op_type == "GatherND" and node.input[0] == rows for node in graph.node):
            renamed |= {rows: state, following: state + NEXT_SUFFIX}
            continue
        gathers.append(helper.make_node("Gather", [state, "slots"], [rows], name=f"{state}.gather", axis=0))
        scatters.append(
            helper.make_node(
                "ScatterND", [state, "slots.column", following], [state + NEXT_SUFFIX], name=f"{state}.scatter"
            )
        )
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    given = [graph_input for graph_input in graph.input if graph_input.name in events]
    grafted = helper.make_graph(
        [*gathers, *graph.node, *scatters],
        name,
        [inputs[0], *given, *inputs[1:]],
        [*results, *outputs],
        initializer=[*graph.initializer, column],
    )
    return helper.make_model(
        grafted, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=traced.ir_version, producer_name="rillcast"
    )


def value(name: str, dtype: int, shape: Sequence[int | str]) -> onnx.ValueInfoProto:
    """Return the description of an input or output."""
    described: onnx.ValueInfoProto = helper.make_tensor_value_info(name, dtype, shape)
    return described
