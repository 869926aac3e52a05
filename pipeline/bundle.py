"""The bundle contract: one `.onnx` file that holds a whole forecaster as a step over state rows.

    (slots, ds, y [, calibrate], state.*)  ->  (forecast, status [, score] [, anomaly], state.*.next)

and, optionally, a second graph that steps T events of each stream in one call (`pipeline.sequence`).

Owns: the metadata schema, the clauses that a file must keep, and the identity of a model. Does not know: how
a bundle is made (`training.export`), where it runs (`pipeline.slab`, `pipeline.engine`), or what is inside
the graph. `docs/bundle.md` is this contract in prose; a file that breaks a clause is refused, by name.

Invariants of a loaded bundle: every state tensor is gathered exactly once and its scatter depends on that
gather, so that binding one buffer as `state.<name>` and `state.<name>.next` is safe; a row of zeros is the
state of a stream that has never been seen.
"""

from __future__ import annotations

import contextlib
import enum
import hashlib
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

import numpy as np
import onnx
from onnx import checker, helper
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from pipeline import frequency, onnx_safety, shipped
from pipeline import sequence as sequences
from pipeline.errors import BundleError

SCHEMA_VERSION: Final = 1
METADATA_KEY: Final = "rillcast"
MAX_BUNDLE_BYTES: Final = 512 * 2**20
MAX_ROW_BYTES: Final = 16 * 2**20
STATE_PREFIX: Final = "state."
NEXT_SUFFIX: Final = ".next"
REGULAR: Final = "regular"
CALIBRATE: Final = "calibrate"
_STATE_DTYPES: Final = frozenset({"float32", "float16", "int64", "int32", "int8", "bool"})


class Status(enum.IntEnum):
    """What became of an event, as the graph's `status` output says. The first that applies wins."""

    OK = 0
    WARMING_UP = 1  # advanced; fewer than `context` slots seen, so the forecast is not yet as good as it gets
    MISSING = 2  # advanced with `y` masked
    GAP = 3  # advanced over at least one slot that never came
    DUPLICATE = 4  # same slot as the stream's last event; state untouched
    LATE = 5  # an earlier slot than the stream's last event; state untouched

    @property
    def advanced(self) -> bool:
        """Whether the event moved its stream's state."""
        return self not in (Status.DUPLICATE, Status.LATE)


class StateSpec(BaseModel):
    """One kind of per-stream state: `[N, *row_shape]` of `dtype`, bound as `state.<name>`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=100)]
    dtype: str
    row_shape: Annotated[tuple[Annotated[int, Field(gt=0, le=MAX_ROW_BYTES)], ...], Field(max_length=8)]

    @field_validator("dtype")
    @classmethod
    def _known_dtype(cls, value: str) -> str:
        if value not in _STATE_DTYPES:
            raise ValueError(f"state dtype {value!r} is not one of {sorted(_STATE_DTYPES)}")
        return value

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        """The numpy type of one element."""
        return np.dtype(self.dtype)

    @property
    def row_bytes(self) -> int:
        """Bytes of one stream's row."""
        return math.prod(self.row_shape) * self.numpy_dtype.itemsize


class BundleMetadata(BaseModel):
    """What a bundle says of itself, stored as JSON in the ONNX file under the key `rillcast`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = SCHEMA_VERSION
    name: Annotated[str, Field(min_length=1, max_length=200)]
    model_id: str = ""
    cell: str
    freq: str
    horizon: Annotated[int, Field(ge=1, le=10_000)]
    quantiles: Annotated[tuple[float, ...], Field(min_length=1, max_length=1_000)]
    context: Annotated[int, Field(ge=0, description="slots until a stream counts as warm")] = 0
    season: Annotated[int, Field(ge=1, description="slots in the main season")] = 1
    states: Annotated[tuple[StateSpec, ...], Field(min_length=1, max_length=100)]
    scores: tuple[str, ...] = ()
    covariates: tuple[str, ...] = ()
    training: dict[str, Any] = {}
    backtest: dict[str, float] = {}
    versions: dict[str, str] = {}

    @field_validator("freq")
    @classmethod
    def _fixed_frequency(cls, value: str) -> str:
        frequency.step_ms(value)
        return value

    @field_validator("quantiles")
    @classmethod
    def _increasing_levels(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 < q < 1 for q in value) or any(b <= a for a, b in itertools.pairwise(value)):
            raise ValueError(f"quantile levels must increase strictly within (0, 1), got {list(value)}")
        return value

    @field_validator("states")
    @classmethod
    def _unique_states(cls, value: tuple[StateSpec, ...]) -> tuple[StateSpec, ...]:
        names = [spec.name for spec in value]
        if len(set(names)) != len(names):
            raise ValueError(f"state names repeat: {names}")
        if (row_bytes := sum(spec.row_bytes for spec in value)) > MAX_ROW_BYTES:
            raise ValueError(f"the state of one stream takes {row_bytes} bytes, the limit is {MAX_ROW_BYTES}")
        return value

    @property
    def step_ms(self) -> int:
        """Length of one slot in milliseconds."""
        return frequency.step_ms(self.freq)

    @property
    def row_bytes(self) -> int:
        """Bytes of state that one stream takes on the device."""
        return sum(spec.row_bytes for spec in self.states)


@dataclass(frozen=True, slots=True)
class Bundle:
    """A file that kept every clause of the contract."""

    metadata: BundleMetadata
    model: bytes
    has_anomaly: bool
    has_calibrate: bool = False
    sequence: bytes | None = None  # the model that steps [B, T] events; None where the file has none

    @property
    def has_score(self) -> bool:
        """Whether the graph scores earlier forecasts against each observation."""
        return bool(self.metadata.scores)

    @classmethod
    def load(cls, path: str | Path) -> Bundle:
        """Read and check a bundle file, or a shipped bundle by its name (`universal:1h`).

        Raises:
            BundleError: the file cannot be read or breaks a clause; the error names the clause.
        """
        path = shipped.locate(path)
        try:
            size = path.stat().st_size
            if size > MAX_BUNDLE_BYTES:
                raise BundleError("size", f"{path} has {size} bytes, the limit is {MAX_BUNDLE_BYTES}")
            data = path.read_bytes()
        except OSError as error:
            raise BundleError("readable", f"{path}: {error.strerror or error}") from error
        return cls.from_bytes(data)

    @classmethod
    def from_bytes(cls, data: bytes) -> Bundle:
        """Check serialised bundle bytes.

        Raises:
            BundleError: a clause is broken; the error names it.
        """
        model = _parse(data)
        metadata = _metadata(model)
        identity = model_id(model)
        if metadata.model_id != identity:
            raise BundleError(
                "model-id", f"metadata says {metadata.model_id!r}, the graph hashes to {identity!r}: changed or damaged"
            )
        if metadata.covariates:
            raise BundleError(
                "covariates", f"the bundle takes covariates {list(metadata.covariates)}; this version serves none"
            )
        inputs, outputs = _check_graph(model, metadata, "B")
        second = sequences.extract(model)
        if second is not None:
            with _of_the_sequence():
                onnx_safety.check_model(second)
                _check_valid(second)
                if _check_graph(second, metadata, "B, T") != (inputs, outputs | {REGULAR}):
                    raise BundleError("outputs", f"expected the step's inputs, its outputs and {REGULAR!r}")
        return cls(
            metadata=metadata,
            model=data,
            has_anomaly="anomaly" in outputs,
            has_calibrate=CALIBRATE in inputs,
            sequence=second.SerializeToString() if second is not None else None,
        )


def seal(model: onnx.ModelProto, metadata: BundleMetadata, sequence: onnx.ModelProto | None = None) -> bytes:
    """Write `metadata`, with the model id, and the sequence graph into the model; return the bundle's bytes, checked.

    Raises:
        BundleError: the result would break the contract.
    """
    sealed = onnx.ModelProto()
    sealed.CopyFrom(model)
    sequences.remove(sealed)
    if sequence is not None:
        sequences.embed(sealed, sequence)
    document = metadata.model_copy(update={"model_id": model_id(sealed)}).model_dump_json()
    kept = [entry for entry in sealed.metadata_props if entry.key != METADATA_KEY]
    del sealed.metadata_props[:]
    sealed.metadata_props.extend(kept)
    sealed.metadata_props.add(key=METADATA_KEY, value=document)
    data: bytes = sealed.SerializeToString(deterministic=True)
    Bundle.from_bytes(data)
    return data


def model_id(model: onnx.ModelProto) -> str:
    """Return the identity of what the model computes: 16 hex digits of the SHA-256 of its graphs and opsets."""
    digest = hashlib.sha256(model.graph.SerializeToString(deterministic=True))
    for opset in sorted((o.domain, o.version) for o in model.opset_import):
        digest.update(repr(opset).encode())
    if (second := sequences.packed(model)) is not None:
        digest.update(second.encode())
    return digest.hexdigest()[:16]


def _parse(data: bytes) -> onnx.ModelProto:
    onnx_safety.check_bytes(data)
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf and onnx each raise types of their own
        raise BundleError("onnx", f"not a valid ONNX model: {_first_line(error)}") from error
    onnx_safety.check_model(model)  # first: ONNX's own checker would look for files
    _check_valid(model)
    return model


def _check_valid(model: onnx.ModelProto) -> None:
    try:
        checker.check_model(model)
    except Exception as error:  # onnx's C++ checker raises types of its own
        raise BundleError("onnx", f"not a valid ONNX model: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextlib.contextmanager
def _of_the_sequence() -> Iterator[None]:
    """Say of a broken clause that it was the sequence graph's."""
    try:
        yield
    except BundleError as error:
        raise BundleError(error.clause, f"sequence graph: {error.reason}") from error


def _metadata(model: onnx.ModelProto) -> BundleMetadata:
    documents = [entry.value for entry in model.metadata_props if entry.key == METADATA_KEY]
    if len(documents) != 1:
        raise BundleError("metadata", f"{len(documents)} metadata entries {METADATA_KEY!r}, expected exactly one")
    try:
        return BundleMetadata.model_validate_json(documents[0])
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "document"
        if where == "schema_version":
            raise BundleError(
                "schema-version", f"schema version {first['input']!r} is unknown; this version reads {SCHEMA_VERSION}"
            ) from error
        raise BundleError("metadata", f"{where}: {first['msg']}") from error


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


def _check_graph(model: onnx.ModelProto, metadata: BundleMetadata, events: str) -> tuple[set[str], set[str]]:
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
    """Require the inputs and outputs of the contract; return the names of both, states aside."""
    initializers = {tensor.name for tensor in graph.initializer}
    inputs = _by_name(value for value in graph.input if value.name not in initializers)
    outputs = _by_name(graph.output)

    _expect(inputs, "input", "slots", "int64", [], "B")
    _expect(inputs, "input", "ds", "int64", [], events)
    _expect(inputs, "input", "y", "float32", [], events)
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

    known = {"slots", "ds", "y", CALIBRATE, *states}
    if unknown := sorted(set(inputs) - known):
        raise BundleError("inputs", f"unknown inputs {unknown}; the engine feeds {sorted(known)}")
    known = {"forecast", "status", "anomaly", *(name + NEXT_SUFFIX for name in states)}
    known |= of_runs | ({"score"} if metadata.scores else set())
    if unknown := sorted(set(outputs) - known):
        raise BundleError("outputs", f"unknown outputs {unknown}; the engine reads {sorted(known)}")
    inner_inputs, inner_outputs = ({n for n in names if not n.startswith(STATE_PREFIX)} for names in (inputs, outputs))
    return inner_inputs, inner_outputs


def _check_in_place(graph: onnx.GraphProto, spec: StateSpec) -> None:
    """One buffer may be bound as the state's input and output: one gather, then one scatter that depends on it."""
    name, following = STATE_PREFIX + spec.name, STATE_PREFIX + spec.name + NEXT_SUFFIX
    for node in graph.node:
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute) and (
            _names_in_subgraphs(node) & {name, following}
        ):
            raise BundleError("in-place", f"{name!r} is read inside the control flow of node {node.name!r}")
    readers = [node for node in graph.node if name in node.input]
    gathers = [node for node in readers if node.op_type == "Gather" and node.input[0] == name]
    scatters = [node for node in readers if node.op_type == "ScatterND" and node.input[0] == name]
    if len(gathers) != 1 or len(scatters) != 1 or len(readers) != 2:
        found = [node.op_type for node in readers]
        raise BundleError(
            "gathered-once", f"{name!r} must be read by exactly one Gather and one ScatterND, found {found}"
        )
    gather, scatter = gathers[0], scatters[0]
    axis = next((attribute.i for attribute in gather.attribute if attribute.name == "axis"), 0)
    if axis != 0 or gather.input[1] != "slots":
        raise BundleError("gathered-once", f"the Gather of {name!r} must take rows `slots` along axis 0")
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
    """Whether `value` is computed from `source`."""
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
