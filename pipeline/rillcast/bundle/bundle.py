"""The bundle contract: one `.onnx` file that holds a whole forecaster as a step over state rows.

    (slots, ds, y [, x] [, future] [, calibrate] [, bounds], state.*)
        ->  (forecast, status [, score] [, anomaly], state.*.next)

and, optionally, a second graph that steps T events of each stream in one call (`rillcast.bundle.sequence`).

`docs/bundle.md` is the contract in prose. An error names the clause that a file breaks.

Owns: how a file is read and sealed, and the identity of a model.
Does not know: the members of the metadata (`rillcast.bundle.metadata`), the clauses on a graph
(`rillcast.bundle.contract`), how a bundle is made (`rillcast_training.export.bundle`), where it runs
(`rillcast.engine`).
Invariants of a loaded bundle: as served, each graph gathers every state tensor exactly once and its scatter depends on
that gather, so one buffer may be bound as `state.<name>` and `state.<name>.next`. A row of zeros is the state of a new
stream.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import onnx
from onnx import checker, shape_inference
from pydantic import ValidationError

from rillcast.bundle import contract, onnx_safety, shipped, state_access
from rillcast.bundle import sequence as sequences
from rillcast.bundle.alarms import ALARM, ALARM_INTERVAL
from rillcast.bundle.contract import BOUNDS, CALIBRATE, REGULAR
from rillcast.bundle.metadata import SCHEMA_VERSION, BundleMetadata, StateSpec, Status
from rillcast.bundle.state_access import NEXT_SUFFIX, STATE_PREFIX
from rillcast.errors import BundleError

__all__ = [
    "BOUNDS",
    "CALIBRATE",
    "NEXT_SUFFIX",
    "REGULAR",
    "STATE_PREFIX",
    "Bundle",
    "BundleMetadata",
    "StateSpec",
    "Status",
]

METADATA_KEY: Final = "rillcast"
MAX_BUNDLE_BYTES: Final = 512 * 2**20


MIN_OPSET: Final = 12
"""Opset since which ONNX has every operator that serving adds to a graph."""
EXPORTER: Final = "rillcast"
"""Producer of the models that Rillcast's own export writes, after it compared them with their modules."""


@dataclass(frozen=True, slots=True)
class Graph:
    """A graph of a bundle.

    Attributes:
        model: As the file has it, with its weights.
        served: As it runs: one buffer may be the input and the output of each state.
        outputs: Names of the outputs, without the states.
        compared: Whether Rillcast's own export made it, which compared it with the module that it comes from.
    """

    model: bytes
    served: bytes
    outputs: frozenset[str]
    compared: bool


@dataclass(frozen=True, slots=True)
class Bundle:
    """A model file that keeps every clause of the contract that can be checked without running it.

    Attributes:
        metadata: The metadata.
        model: Bytes of the file.
        step: The graph that takes one event of each stream.
        has_calibrate: Whether the graphs have the input `calibrate`.
        has_bounds: Whether the graphs have the input `bounds`.
        has_alarm_interval: Whether the graphs have the input `alarm_interval`.
        sequence: The graph that takes T events of each stream; None where the file has none.
    """

    metadata: BundleMetadata
    model: bytes
    step: Graph
    has_calibrate: bool = False
    has_bounds: bool = False
    has_alarm_interval: bool = False
    sequence: Graph | None = None

    @property
    def has_anomaly(self) -> bool:
        """Whether the graph says how unlikely each observation was."""
        return "anomaly" in self.step.outputs

    @property
    def has_alarm(self) -> bool:
        """Whether the graph says when alarms of a stream open and close."""
        return ALARM in self.step.outputs

    @property
    def has_score(self) -> bool:
        """Whether the graph scores earlier forecasts against each observation."""
        return bool(self.metadata.scores)

    @classmethod
    def load(cls, path: str | Path) -> Bundle:
        """Read and check a bundle file, or a shipped bundle by its name (`universal:1h`).

        Raises:
            BundleError: The file cannot be read or breaks a clause; the error names the clause.
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
            BundleError: The file breaks a clause; the error names it.
        """
        model = _parse(data)
        metadata = _metadata(model)
        identity = model_id(model)
        if metadata.model_id != identity:
            raise BundleError(
                "model-id",
                f"changed or damaged: metadata says {metadata.model_id!r}, the graph hashes to {identity!r}",
            )
        step, inputs = _graph(model, metadata, "B", data)
        second, sequence = sequences.extract(model), None
        if second is not None:
            with _of_the_sequence():
                onnx_safety.check_model(second)
                _check_valid(second)
                sequence, of_sequence = _graph(second, metadata, "B, T", second.SerializeToString())
                if (of_sequence, sequence.outputs) != (inputs, step.outputs | {REGULAR}):
                    raise BundleError("outputs", f"expected the step's inputs, its outputs and {REGULAR!r}")
        return cls(
            metadata,
            data,
            step,
            has_calibrate=CALIBRATE in inputs,
            has_bounds=BOUNDS in inputs,
            has_alarm_interval=ALARM_INTERVAL in inputs,
            sequence=sequence,
        )


def seal(model: onnx.ModelProto, metadata: BundleMetadata, sequence: onnx.ModelProto | None = None) -> bytes:
    """Write `metadata` with the model id, and the sequence graph, into the model; return the checked bundle's bytes.

    Raises:
        BundleError: The result would break the contract.
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
    """Return the identity of the computation: 16 hex digits of the SHA-256 of the model's graphs and opsets."""
    digest = hashlib.sha256(model.graph.SerializeToString(deterministic=True))
    for opset in sorted((o.domain, o.version) for o in model.opset_import):
        digest.update(repr(opset).encode())
    if (second := sequences.packed(model)) is not None:
        digest.update(second.encode())
    return digest.hexdigest()[:16]


def _graph(model: onnx.ModelProto, metadata: BundleMetadata, events: str, data: bytes) -> tuple[Graph, set[str]]:
    """Check a graph, which `data` holds too; return the form in which it is served, and the names of its inputs."""
    opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)
    if opset < MIN_OPSET:
        raise BundleError("operators", f"opset {opset} of ai.onnx; export with opset {MIN_OPSET} or later")
    try:
        inferred = shape_inference.infer_shapes(model, data_prop=True)
    except Exception as error:  # the types that onnx's C++ code raises have no common base
        raise BundleError("onnx", f"its shapes cannot be inferred: {_first_line(error)}") from error
    inputs, outputs = contract.check_graph(inferred.graph, metadata, events)
    if state_access.in_place(inferred, metadata.states):
        return Graph(data, data, frozenset(outputs), model.producer_name == EXPORTER), inputs
    served = state_access.over_rows(model, metadata.states).SerializeToString()
    return Graph(data, served, frozenset(outputs), compared=False), inputs


def _parse(data: bytes) -> onnx.ModelProto:
    onnx_safety.check_bytes(data)
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf and onnx raise unrelated types
        raise BundleError("onnx", f"not a valid ONNX model: {_first_line(error)}") from error
    onnx_safety.check_model(model)  # before ONNX's checker, which would open external files
    _check_valid(model)
    return model


def _check_valid(model: onnx.ModelProto) -> None:
    try:
        checker.check_model(model)
    except Exception as error:  # the types that onnx's C++ checker raises have no common base
        raise BundleError("onnx", f"not a valid ONNX model: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextlib.contextmanager
def _of_the_sequence() -> Iterator[None]:
    """Name the sequence graph in the error of a broken clause."""
    try:
        yield
    except BundleError as error:
        raise BundleError(error.clause, f"sequence graph: {error.reason}") from error


def _metadata(model: onnx.ModelProto) -> BundleMetadata:
    documents = [entry.value for entry in model.metadata_props if entry.key == METADATA_KEY]
    if len(documents) != 1:
        raise BundleError("metadata", f"found {len(documents)} metadata entries {METADATA_KEY!r}, expected exactly one")
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
