"""The clauses of the bundle contract on the graph: its inputs, its outputs, and the state in place.

`docs/bundle.md` has the clauses in prose.

Owns: the tensors' names, types and shapes, and the proof that one buffer may be bound as a state's input and output.
Does not know: files, the members of the metadata (`rillcast.bundle.metadata`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, TypeVar

import onnx
from onnx import helper

from rillcast.bundle.metadata import BundleMetadata, StateSpec
from rillcast.errors import BundleError

STATE_PREFIX: Final = "state."
NEXT_SUFFIX: Final = ".next"
REGULAR: Final = "regular"
CALIBRATE: Final = "calibrate"
X: Final = "x"
FUTURE: Final = "future"


def _numpy_dtype(value: onnx.ValueInfoProto) -> str:
    try:
        return str(helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
    except KeyError:
        return "unknown"


def _dims(value: onnx.ValueInfoProto) -> list[int | None]:
    """Return the static dimensions; None for a symbolic one."""
    return [d.dim_value if d.HasField("dim_value") else None for d in value.type.tensor_type.shape.dim]


def _expect(
    values: dict[str, onnx.ValueInfoProto], kind: str, name: str, dtype: str, rest: Sequence[int], rows: str
) -> None:
    """Require tensor `name` to be of `dtype` and shape `[rows, *rest]`; `rows` names its symbolic dimensions."""
    if name not in values:
        raise BundleError(f"{kind}s", f"{kind} {name!r} ({dtype} [{rows}{''.join(f', {d}' for d in rest)}]) is missing")
    found, dims = _numpy_dtype(values[name]), _dims(values[name])
    if found != dtype:
        raise BundleError("types", f"{kind} {name!r} is {found}, the contract says {dtype}")
    symbols = rows.split(", ")
    if dims != [*(None for _ in symbols), *rest]:
        shown = [next(iter(symbols[n : n + 1]), "?") if d is None else d for n, d in enumerate(dims)]
        raise BundleError("shapes", f"{kind} {name!r} has shape {shown}, the contract says {[*symbols, *rest]}")


_T = TypeVar("_T", bound=onnx.ValueInfoProto)


def _by_name(values: Iterable[_T]) -> dict[str, _T]:
    return {value.name: value for value in values}


def check_graph(model: onnx.ModelProto, metadata: BundleMetadata, events: str) -> tuple[set[str], set[str]]:
    """Check a step (`events` is "B") or a sequence ("B, T"); return the names of its inputs and outputs."""
    names = _check_interface(model.graph, metadata, events)
    for spec in metadata.states:
        _check_in_place(model.graph, spec)
    return names


def _check_scalar(value: onnx.ValueInfoProto, dtype: str) -> None:
    if _numpy_dtype(value) != dtype:
        raise BundleError("types", f"input {value.name!r} is {_numpy_dtype(value)}, the contract says {dtype}")
    if dims := _dims(value):
        raise BundleError("shapes", f"input {value.name!r} has shape {dims}, the contract says a scalar, []")


def _check_interface(graph: onnx.GraphProto, metadata: BundleMetadata, events: str) -> tuple[set[str], set[str]]:
    """Require the inputs and outputs of the contract; return the names of both, without the states."""
    initializers = {tensor.name for tensor in graph.initializer}
    inputs = _by_name(value for value in graph.input if value.name not in initializers)
    outputs = _by_name(graph.output)

    _expect(inputs, "input", "slots", "int64", [], "B")
    _expect(inputs, "input", "ds", "int64", [], events)
    _expect(inputs, "input", "y", "float32", [], events)
    covariates = _check_covariates(inputs, metadata, events)
    if CALIBRATE in inputs:
        _check_scalar(inputs[CALIBRATE], "float32")
    _expect(outputs, "output", "forecast", "float32", [metadata.horizon, len(metadata.quantiles)], events)
    _expect(outputs, "output", "status", "int8", [], events)
    if metadata.scores:
        _expect(outputs, "output", "score", "float32", [len(metadata.scores)], events)
    if "anomaly" in outputs:
        _expect(outputs, "output", "anomaly", "float32", [], events)
    of_runs = {REGULAR} if events != "B" else set()
    for name in of_runs:
        _expect(outputs, "output", name, "bool", [], "B")

    states = {STATE_PREFIX + spec.name: spec for spec in metadata.states}
    for name in [*inputs, *outputs]:
        base = name.removesuffix(NEXT_SUFFIX)
        if name.startswith(STATE_PREFIX) and base not in states:
            raise BundleError("state-pairs", f"{name!r} is in the graph but not among the states in the metadata")
    for name, spec in states.items():
        if name not in inputs or name + NEXT_SUFFIX not in outputs:
            raise BundleError(
                "state-pairs", f"state {spec.name!r} needs input {name!r} and output {name + NEXT_SUFFIX!r}"
            )
        _expect(inputs, "input", name, spec.dtype, spec.row_shape, "N")
        _expect(outputs, "output", name + NEXT_SUFFIX, spec.dtype, spec.row_shape, "N")

    known = {"slots", "ds", "y", CALIBRATE, *covariates, *states}
    if unknown := sorted(set(inputs) - known):
        raise BundleError("inputs", f"unknown inputs {unknown}; the engine feeds {sorted(known)}")
    known = {"forecast", "status", "anomaly", *(name + NEXT_SUFFIX for name in states)}
    known |= of_runs | ({"score"} if metadata.scores else set())
    if unknown := sorted(set(outputs) - known):
        raise BundleError("outputs", f"unknown outputs {unknown}; the engine reads {sorted(known)}")
    inner_inputs, inner_outputs = ({n for n in names if not n.startswith(STATE_PREFIX)} for names in (inputs, outputs))
    return inner_inputs, inner_outputs


def _check_covariates(inputs: dict[str, onnx.ValueInfoProto], metadata: BundleMetadata, events: str) -> set[str]:
    """Require exactly the inputs that the declared covariates need; return their names."""
    declared, ahead = len(metadata.covariates), len(metadata.known_ahead)
    shapes = ({X: [declared]} if declared else {}) | ({FUTURE: [ahead, metadata.horizon]} if ahead else {})
    if undeclared := sorted(({X, FUTURE} & set(inputs)) - set(shapes)):
        raise BundleError(
            "covariates", f"inputs {undeclared} are in the graph, but the metadata declares no covariates for them"
        )
    for name, shape in shapes.items():
        if name not in inputs:
            raise BundleError("covariates", f"the metadata declares covariates, but input {name!r} is missing")
        _expect(inputs, "input", name, "float32", shape, events)
    return set(shapes)


def _check_in_place(graph: onnx.GraphProto, spec: StateSpec) -> None:
    """Require that one buffer may be the state's input and output: one gather, then one scatter that depends on it.

    A Gather reads whole rows, a GatherND single elements of them.
    """
    name, following = STATE_PREFIX + spec.name, STATE_PREFIX + spec.name + NEXT_SUFFIX
    for node in graph.node:
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute) and (
            _names_in_subgraphs(node) & {name, following}
        ):
            raise BundleError("in-place", f"{name!r} is read inside the control flow of node {node.name!r}")
    readers = [node for node in graph.node if name in node.input]
    gathers = [node for node in readers if node.op_type in ("Gather", "GatherND") and node.input[0] == name]
    scatters = [node for node in readers if node.op_type == "ScatterND" and node.input[0] == name]
    if len(gathers) != 1 or len(scatters) != 1 or len(readers) != 2:
        found = [node.op_type for node in readers]
        raise BundleError(
            "gathered-once", f"{name!r} must be read by exactly one Gather or GatherND and one ScatterND, found {found}"
        )
    gather, scatter = gathers[0], scatters[0]
    axis = next((attribute.i for attribute in gather.attribute if attribute.name in ("axis", "batch_dims")), 0)
    of_slots = gather.input[1] == "slots" if gather.op_type == "Gather" else _depends(graph, gather.input[1], "slots")
    if axis != 0 or not of_slots:
        raise BundleError("gathered-once", f"the {gather.op_type} of {name!r} must take rows `slots` along axis 0")
    if list(scatter.output) != [following]:
        raise BundleError("in-place", f"the ScatterND of {name!r} must write {following!r}, not {list(scatter.output)}")
    if next((a.s for a in scatter.attribute if a.name == "reduction"), b"none") != b"none":
        raise BundleError("in-place", f"the ScatterND of {name!r} must not reduce")
    if any(following in node.input for node in graph.node):
        raise BundleError("in-place", f"{following!r} is read again inside the graph")
    if not _depends(graph, scatter.input[1], "slots"):
        raise BundleError("in-place", f"the ScatterND of {name!r} does not write to rows `slots`")
    if not _depends(graph, scatter.input[2], gather.output[0]):
        raise BundleError("in-place", f"the ScatterND of {name!r} does not wait for its Gather")


def _names_in_subgraphs(node: onnx.NodeProto) -> set[str]:
    names: set[str] = set()
    for attribute in node.attribute:
        for graph in [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]:
            for inner in graph.node:
                names.update(inner.input)
                names |= _names_in_subgraphs(inner)
    return names


def _depends(graph: onnx.GraphProto, value: str, source: str) -> bool:
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
