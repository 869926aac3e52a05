"""The clauses of the bundle contract on a graph's inputs and outputs.

`docs/bundle.md` has the clauses in prose.

Owns: the tensors' names, types and shapes.
Does not know: files, the members of the metadata (`rillcast.bundle.metadata`), how the graph reads and writes a state
(`rillcast.bundle.state_access`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, TypeVar

import onnx
from onnx import helper

from rillcast.bundle.alarms import ALARM, ALARM_COLUMNS, ALARM_INTERVAL
from rillcast.bundle.metadata import BundleMetadata
from rillcast.bundle.state_access import NEXT_SUFFIX, STATE_PREFIX
from rillcast.errors import BundleError

REGULAR: Final = "regular"
CALIBRATE: Final = "calibrate"
BOUNDS: Final = "bounds"
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
    expected = [*(None for _ in symbols), *rest]
    if kind == "output":
        if not values[name].type.tensor_type.HasField("shape"):
            return
        if len(dims) == len(expected):
            dims = [number if dim is None else dim for dim, number in zip(dims, expected, strict=True)]
    if dims != expected:
        shown = [next(iter(symbols[n : n + 1]), "?") if d is None else d for n, d in enumerate(dims)]
        raise BundleError("shapes", f"{kind} {name!r} has shape {shown}, the contract says {[*symbols, *rest]}")


_T = TypeVar("_T", bound=onnx.ValueInfoProto)


def _by_name(values: Iterable[_T]) -> dict[str, _T]:
    return {value.name: value for value in values}


def _check_scalar(value: onnx.ValueInfoProto, dtype: str) -> None:
    if _numpy_dtype(value) != dtype:
        raise BundleError("types", f"input {value.name!r} is {_numpy_dtype(value)}, the contract says {dtype}")
    if dims := _dims(value):
        raise BundleError("shapes", f"input {value.name!r} has shape {dims}, the contract says a scalar, []")


def check_graph(graph: onnx.GraphProto, metadata: BundleMetadata, events: str) -> tuple[set[str], set[str]]:
    """Require the inputs and outputs of a step (`events` is "B") or a sequence ("B, T").

    The outputs' shapes should have been inferred: exporters write symbols where they did not compute a number. A size
    that stays symbolic is no fault.

    Returns:
        The names of inputs and of outputs, without the states.
    """
    initializers = {tensor.name for tensor in graph.initializer}
    inputs = _by_name(value for value in graph.input if value.name not in initializers)
    outputs = _by_name(graph.output)

    _expect(inputs, "input", "slots", "int64", [], "B")
    _expect(inputs, "input", "ds", "int64", [], events)
    _expect(inputs, "input", "y", "float32", [], events)
    covariates = _check_covariates(inputs, metadata, events)
    _check_optional(inputs)
    _expect(outputs, "output", "forecast", "float32", [metadata.horizon, len(metadata.quantiles)], events)
    _expect(outputs, "output", "status", "int8", [], events)
    if metadata.scores:
        _expect(outputs, "output", "score", "float32", [len(metadata.scores)], events)
    if "anomaly" in outputs:
        _expect(outputs, "output", "anomaly", "float32", [], events)
    if ALARM in outputs:
        _expect(outputs, "output", ALARM, "float32", [len(ALARM_COLUMNS)], events)
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

    known = {"slots", "ds", "y", CALIBRATE, BOUNDS, ALARM_INTERVAL, *covariates, *states}
    if unknown := sorted(set(inputs) - known):
        raise BundleError("inputs", f"unknown inputs {unknown}; the engine feeds {sorted(known)}")
    known = {"forecast", "status", "anomaly", ALARM, *(name + NEXT_SUFFIX for name in states)}
    known |= of_runs | ({"score"} if metadata.scores else set())
    if unknown := sorted(set(outputs) - known):
        raise BundleError("outputs", f"unknown outputs {unknown}; the engine reads {sorted(known)}")
    inner_inputs, inner_outputs = ({n for n in names if not n.startswith(STATE_PREFIX)} for names in (inputs, outputs))
    return inner_inputs, inner_outputs


def _check_optional(inputs: dict[str, onnx.ValueInfoProto]) -> None:
    """Require the types and shapes of the inputs that a graph may have."""
    for name in (CALIBRATE, BOUNDS):
        if name in inputs:
            _check_scalar(inputs[name], "float32")
    if ALARM_INTERVAL in inputs:
        if _dims(inputs[ALARM_INTERVAL]) == []:
            raise BundleError(
                "shapes",
                f"input {ALARM_INTERVAL!r} is one number for all streams, the contract says ['B']: an early release "
                f"exported it; export it again (`rillcast universal export`, `rillcast train`)",
            )
        _expect(inputs, "input", ALARM_INTERVAL, "float32", [], "B")


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
