"""How a graph reads and writes its states, and the form in which it is served in place.

The engine binds one buffer as `state.<name>` and as `state.<name>.next`. That is safe where the graph reads a state by
one gather and writes it by one scatter that depends on that gather; then the graph is served as it is. Exporters write
indexing in many other ways. `over_rows` serves those: it gathers the rows of a call, gives them to the graph as if they
were the whole state, and scatters what the graph returns. The update in place is then safe by construction.

Owns: the proof, and the rewriting.
Does not know: whether the rewritten graph computes the same. It does if an event depends on its own row alone, which
`rillcast.engine.dry_run` tries before a graph is served.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

from rillcast.bundle.metadata import StateSpec
from rillcast.errors import BundleError

STATE_PREFIX: Final = "state."
NEXT_SUFFIX: Final = ".next"
_OWN: Final = "rillcast.rows."
_SLOTS: Final = "slots"
_WHOLE_ROWS, _ELEMENTS = 2, 3  # ranks of a scatter's indices: [B, 1] and [B, K, 2]


def in_place(model: onnx.ModelProto, states: Sequence[StateSpec]) -> bool:
    """Return whether one buffer may be each state's input and output, by the graph alone.

    Args:
        model: A step or a sequence graph with inferred shapes; without them the answer may be False too often.
        states: The bundle's states.
    """
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in model.graph.value_info}
    ranks |= {tensor.name: len(tensor.dims) for tensor in model.graph.initializer}
    return all(_in_place(model.graph, STATE_PREFIX + spec.name, ranks) for spec in states)


def _in_place(graph: onnx.GraphProto, name: str, ranks: dict[str, int]) -> bool:
    """Return whether one gather reads the state and one scatter, which waits for it, writes it.

    A Gather reads whole rows, a GatherND at places `[B, K, 2]` reads single elements of them.
    """
    following = name + NEXT_SUFFIX
    if any({name, following} & _names_in_subgraphs(node) for node in graph.node):
        return False
    readers = [node for node in graph.node if name in node.input]
    gathers = [node for node in readers if node.op_type in ("Gather", "GatherND") and node.input[0] == name]
    scatters = [node for node in readers if node.op_type == "ScatterND" and node.input[0] == name]
    if len(gathers) != 1 or len(scatters) != 1 or len(readers) != 2:
        return False
    gather, scatter = gathers[0], scatters[0]
    rank = _WHOLE_ROWS if gather.op_type == "Gather" else _ELEMENTS
    of_slots = (
        gather.input[1] == _SLOTS
        if gather.op_type == "Gather"
        else ranks.get(gather.input[1]) == _ELEMENTS and depends(graph, gather.input[1], _SLOTS)
    )
    return (
        of_slots
        and all(a.i == 0 for a in gather.attribute if a.name in ("axis", "batch_dims"))
        and list(scatter.output) == [following]
        and all(a.s == b"none" for a in scatter.attribute if a.name == "reduction")
        and not any(following in node.input for node in graph.node)
        and ranks.get(scatter.input[1]) == rank
        and depends(graph, scatter.input[1], _SLOTS)
        and depends(graph, scatter.input[2], gather.output[0])
    )


def over_rows(model: onnx.ModelProto, states: Sequence[StateSpec]) -> onnx.ModelProto:
    """Return a model whose graph steps the rows of a call, gathered before it and scattered after it.

    The given graph gets the rows `[B, ...]` in place of the states `[N, ...]`, and 0 to B - 1 in place of `slots`.

    Raises:
        BundleError: Clause `in-place`: a state's output does not depend on its input, or not on `slots`.
    """
    for spec in states:
        state = STATE_PREFIX + spec.name
        for source in (state, _SLOTS):
            if not depends(model.graph, state + NEXT_SUFFIX, source):
                raise BundleError("in-place", f"{state + NEXT_SUFFIX!r} does not depend on {source!r}")
    served = onnx.ModelProto()
    served.CopyFrom(model)
    graph = served.graph
    names = {STATE_PREFIX + spec.name for spec in states}
    inner = {name: _OWN + name for name in (_SLOTS, *names, *(name + NEXT_SUFFIX for name in names))}
    _rename(graph, lambda name: inner.get(name, name))
    nodes = list(graph.node)
    del graph.node[:]
    del graph.value_info[:]  # they say N where the graph has B rows now
    for name, value in (("zero", 0), ("one", 1), ("axis", 0), ("column", [-1, 1])):
        graph.initializer.append(numpy_helper.from_array(np.array(value, np.int64), _OWN + name))
    node = helper.make_node
    # 0, 1, ..., B - 1 without the shape of `slots`: a CUDA graph cannot read a shape.
    graph.node.append(node("Mul", [_SLOTS, _OWN + "zero"], [_OWN + "zeros"], _OWN + "zeros"))
    graph.node.append(node("Add", [_OWN + "zeros", _OWN + "one"], [_OWN + "ones"], _OWN + "ones"))
    graph.node.append(node("CumSum", [_OWN + "ones", _OWN + "axis"], [inner[_SLOTS]], _OWN + "count", exclusive=1))
    graph.node.append(node("Reshape", [_SLOTS, _OWN + "column"], [_OWN + "indices"], _OWN + "indices"))
    for name in sorted(names):
        graph.node.append(node("Gather", [name, _SLOTS], [inner[name]], inner[name] + ".gather", axis=0))
    graph.node.extend(nodes)
    for name in sorted(names):
        following = name + NEXT_SUFFIX
        graph.node.append(
            node("ScatterND", [name, _OWN + "indices", inner[following]], [following], inner[name] + ".scatter")
        )
    return served


def _rename(graph: onnx.GraphProto, renamed: Callable[[str], str], *, inside: bool = False) -> None:
    """Rename values of the main graph where nodes and subgraphs use them; its inputs and outputs keep their names."""
    if inside:
        for output in graph.output:
            output.name = renamed(output.name)
    for node in graph.node:
        node.input[:] = [renamed(name) for name in node.input]
        node.output[:] = [renamed(name) for name in node.output]
        for body in _subgraphs(node):
            _rename(body, renamed, inside=True)


def depends(graph: onnx.GraphProto, value: str, source: str) -> bool:
    """Return whether `value` is computed from `source`."""
    producers = {output: node for node in graph.node for output in node.output}
    pending, seen = [value], set()
    while pending:
        current = pending.pop()
        if current == source:
            return True
        if current in seen or current not in producers:
            continue
        seen.add(current)
        pending.extend(producers[current].input)
        pending.extend(_names_in_subgraphs(producers[current]))
    return False


def _subgraphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    return [body for a in node.attribute for body in (*a.graphs, *([a.g] if a.HasField("g") else []))]


def _names_in_subgraphs(node: onnx.NodeProto) -> set[str]:
    names: set[str] = set()
    for graph in _subgraphs(node):
        names.update(output.name for output in graph.output)
        for inner in graph.node:
            names.update(inner.input)
            names |= _names_in_subgraphs(inner)
    return names
