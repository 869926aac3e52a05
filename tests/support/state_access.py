"""Other ways for the toy to read and write its state: what exporters make of indexing, and what no graph may do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.support.toy import ToyGraph

_NODE: Final = helper.make_node


def replace_node(toy: ToyGraph, name: str, *nodes: onnx.NodeProto) -> None:
    toy.nodes = [n for node in toy.nodes for n in (nodes if node.name == name else (node,))]


def _constant(toy: ToyGraph, name: str, value: Any) -> None:
    toy.initializers.append(numpy_helper.from_array(np.array(value, np.int64), name))


def gather_nd(toy: ToyGraph) -> None:
    """`table[slots]` by torch's exporter."""
    toy.nodes.insert(0, _NODE("Unsqueeze", ["slots", "last_axis"], ["indices"]))
    replace_node(toy, "gather", _NODE("GatherND", ["state.sum", "indices"], ["row"]))
    replace_node(toy, "scatter", _NODE("ScatterND", ["state.sum", "indices", "next_row"], ["state.sum.next"]))


def index_select(toy: ToyGraph) -> None:
    """`torch.index_select(table, 0, slots)` by torch's exporter."""
    indices = _NODE("Reshape", ["slots", "last_axis"], ["indices"])
    replace_node(toy, "gather", indices, _NODE("Gather", ["state.sum", "indices"], ["row"], axis=0))


def gather_elements(toy: ToyGraph) -> None:
    """`torch.gather` and `scatter`, with the slots expanded over the row."""
    toy.nodes.insert(0, _NODE("Unsqueeze", ["slots", "last_axis"], ["indices"]))
    replace_node(toy, "gather", _NODE("GatherElements", ["state.sum", "indices"], ["row"], axis=0))
    replace_node(
        toy, "scatter", _NODE("ScatterElements", ["state.sum", "indices", "next_row"], ["state.sum.next"], axis=0)
    )


def views(toy: ToyGraph) -> None:
    """Views of the table between its input and the gather, and between the scatter and its output."""
    _constant(toy, "flat", [-1])
    before = _NODE("Reshape", ["state.sum", "flat"], ["flat_table"])
    after = _NODE("Reshape", ["flat_next", "as_table"], ["state.sum.next"])
    _constant(toy, "as_table", [-1, 1])
    row = _NODE("Gather", ["flat_table", "slots"], ["flat_row"], axis=0)
    replace_node(toy, "gather", before, row, _NODE("Unsqueeze", ["flat_row", "last_axis"], ["row"]))
    flat = _NODE("Squeeze", ["next_row", "last_axis"], ["flat_next_row"])
    replace_node(
        toy, "scatter", flat, _NODE("ScatterND", ["flat_table", "rows", "flat_next_row"], ["flat_next"]), after
    )


def cast_table(toy: ToyGraph) -> None:
    """`table.double()[slots]`, exact for the toy's numbers."""
    table = _NODE("Cast", ["state.sum"], ["table"], to=TensorProto.DOUBLE)
    row = _NODE("Gather", ["table", "slots"], ["double_row"], axis=0)
    replace_node(toy, "gather", table, row, _NODE("Cast", ["double_row"], ["row"], to=TensorProto.INT64))


TORCH_WAYS: Final[list[Callable[[ToyGraph], None]]] = [gather_nd, index_select, gather_elements, views, cast_table]


def at_places(toy: ToyGraph) -> None:
    """Read and write single elements of the state's rows; the toy's rows have one."""
    _constant(toy, "place", 0)
    index = [
        _NODE("Unsqueeze", ["slots", "last_axis"], ["row_column"]),
        _NODE("Mul", ["row_column", "place"], ["place_column"]),
        _NODE("Concat", ["row_column", "place_column"], ["pairs"], axis=1),
        _NODE("Unsqueeze", ["pairs", "second_axis"], ["places"]),
    ]
    _constant(toy, "second_axis", [1])
    replace_node(toy, "gather", *index, _NODE("GatherND", ["state.sum", "places"], ["row"], name="gather"))
    replace_node(toy, "scatter", _NODE("ScatterND", ["state.sum", "places", "next_row"], ["state.sum.next"]))


def gathered_twice(toy: ToyGraph) -> None:
    toy.nodes.insert(1, _NODE("Gather", ["state.sum", "slots"], ["again"], axis=0))
    for node in toy.nodes:
        if list(node.output) == ["sum"]:  # + row - again
            node.output[0] = "with_row"
    at = next(i for i, node in enumerate(toy.nodes) if "with_row" in node.output)
    toy.nodes[at + 1 : at + 1] = [
        _NODE("Add", ["with_row", "again"], ["with_both"]), _NODE("Sub", ["with_both", "row"], ["sum"])
    ]  # fmt: skip


def state_read_otherwise(toy: ToyGraph) -> None:
    toy.nodes.append(_NODE("ReduceSum", ["state.sum"], ["total"]))


def scatter_adds(toy: ToyGraph) -> None:
    change = _NODE("Sub", ["next_row", "row"], ["change"])
    added = _NODE("ScatterND", ["state.sum", "rows", "change"], ["state.sum.next"], reduction="add")
    replace_node(toy, "scatter", change, added)


def next_state_read_again(toy: ToyGraph) -> None:
    toy.nodes.append(_NODE("Identity", ["state.sum.next"], ["copy"]))


def control_flow(toy: ToyGraph) -> None:
    body = helper.make_graph(
        [_NODE("Gather", ["state.sum", "slots"], ["inner"], axis=0)],
        "body",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.INT64, None)],
    )
    toy.initializers.append(numpy_helper.from_array(np.array(True), "yes"))
    replace_node(toy, "gather", _NODE("If", ["yes"], ["row"], then_branch=body, else_branch=body))


def gathered_by_other_rows(toy: ToyGraph) -> None:
    replace_node(toy, "gather", _NODE("Gather", ["state.sum", "last_axis"], ["row"], axis=0))


def places_of_other_rows(toy: ToyGraph) -> None:
    at_places(toy)
    _constant(toy, "elsewhere", np.zeros((1, 1, 2)))
    replace_node(toy, "gather", _NODE("GatherND", ["state.sum", "elsewhere"], ["row"]))


def places_batch_by_batch(toy: ToyGraph) -> None:
    at_places(toy)
    replace_node(toy, "gather", _NODE("GatherND", ["state.sum", "places"], ["row"], batch_dims=1))


def sum_of_all_rows(toy: ToyGraph) -> None:
    total = _NODE("ReduceSum", ["state.sum"], ["total"])
    replace_node(toy, "gather", _NODE("Gather", ["state.sum", "slots"], ["own"], axis=0), total,
                 _NODE("Add", ["own", "total"], ["row"]))  # fmt: skip


def number_of_the_row(toy: ToyGraph) -> None:
    numbers = _NODE("Unsqueeze", ["slots", "last_axis"], ["numbers"])
    replace_node(toy, "gather", numbers, _NODE("Gather", ["state.sum", "slots"], ["own"], axis=0),
                 _NODE("Add", ["own", "numbers"], ["row"]))  # fmt: skip


def largest_of_the_call(toy: ToyGraph) -> None:
    toy.nodes[:0] = [_NODE("ReduceMax", ["y"], ["largest"], keepdims=0), _NODE("Add", ["y", "largest"], ["y_changed"])]
    for node in toy.nodes:
        if list(node.output) == ["y_int"]:
            node.input[0] = "y_changed"


def scatter_to_fixed_row(toy: ToyGraph) -> None:
    _constant(toy, "row_zero", [[0]])
    _constant(toy, "none", 0)
    indices = [_NODE("Mul", ["rows", "none"], ["zeros"]), _NODE("Add", ["zeros", "row_zero"], ["fixed"])]
    replace_node(toy, "scatter", *indices, _NODE("ScatterND", ["state.sum", "fixed", "next_row"], ["state.sum.next"]))


def other_rows_decay(toy: ToyGraph) -> None:
    _constant(toy, "two", 2)
    halved = _NODE("Div", ["state.sum", "two"], ["halved"])
    replace_node(toy, "scatter", halved, _NODE("ScatterND", ["halved", "rows", "next_row"], ["state.sum.next"]))


def types_do_not_fit(toy: ToyGraph) -> None:
    """A product of int64 and float, as of float16 states and float32 weights: ONNX's checker does not see it."""
    toy.nodes.insert(0, _NODE("Cast", ["ds"], ["ds_float"], to=TensorProto.FLOAT))
    toy.nodes[-2].input[0] = "ds_float"


def longer_forecast(toy: ToyGraph) -> None:
    """A symbolic output that is not what the metadata says, by an operator that inference cannot see through."""
    toy.outputs[0] = helper.make_tensor_value_info("forecast", TensorProto.FLOAT, ["B", "horizon", "levels"])
    toy.nodes.insert(0, _NODE("Cast", ["y"], ["y_whole"], to=TensorProto.INT64))
    toy.nodes.insert(1, _NODE("NonZero", ["block"], ["where"]))
    toy.nodes.insert(2, _NODE("Shape", ["where"], ["sizes"]))
    for node in toy.nodes:
        if "forecast" in node.output:
            node.output[0] = "right"
    _constant(toy, "twice", [1, 1, 2])
    toy.nodes.append(_NODE("Mul", ["sizes", "sizes"], ["unknown"]))
    toy.nodes.append(_NODE("Div", ["unknown", "unknown"], ["ones"]))
    toy.nodes.append(_NODE("Gather", ["ones", "zero"], ["one"]))
    toy.nodes.append(_NODE("Mul", ["twice", "one"], ["repeats"]))
    toy.nodes.append(_NODE("Tile", ["right", "repeats"], ["forecast"]))


REFUSED: Final[list[tuple[Callable[[ToyGraph], None], str]]] = [
    (gathered_by_other_rows, "gathered-once"),
    (places_of_other_rows, "gathered-once"),
    (places_batch_by_batch, "runs"),
    (sum_of_all_rows, "gathered-once"),
    (number_of_the_row, "gathered-once"),
    (largest_of_the_call, "gathered-once"),
    (scatter_to_fixed_row, "in-place"),
    (other_rows_decay, "in-place"),
    (types_do_not_fit, "runs"),
    (longer_forecast, "shapes"),
]
"""What the dry run refuses, and the clause that it names."""
