"""The sequence graph of a bundle: it steps many events of a stream at once and is stored in the same file.

An ONNX file has one main graph, here the step. The sequence graph shares all weights with it, so it is stored as a
metadata entry: an ONNX model without the initializers that it shares by name with the main graph, deflated, in base64.

Owns: how the sequence graph is stored, and how it gets its weights.
Does not know: the contract of the graph (`rillcast.bundle.bundle`), when it runs (`rillcast.engine.batcher`).
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator
from typing import Final

import onnx
from google.protobuf.message import DecodeError

from rillcast.bundle import onnx_safety
from rillcast.errors import BundleError

SEQUENCE_KEY: Final = "rillcast.sequence"
MAX_SEQUENCE_BYTES: Final = 64 * 2**20  # a graph without weights; a larger one is a decompression bomb


def embed(model: onnx.ModelProto, sequence: onnx.ModelProto) -> None:
    """Store `sequence` in `model`; initializers of equal name and value are stored once."""
    shared = {tensor.name: tensor for tensor in model.graph.initializer}
    slim = onnx.ModelProto()
    slim.CopyFrom(sequence)
    own = [tensor for tensor in slim.graph.initializer if shared.get(tensor.name) != tensor]
    del slim.graph.initializer[:]
    slim.graph.initializer.extend(own)
    packed = zlib.compress(slim.SerializeToString(deterministic=True), level=9)
    remove(model)
    model.metadata_props.add(key=SEQUENCE_KEY, value=base64.b64encode(packed).decode("ascii"))


def remove(model: onnx.ModelProto) -> None:
    """Remove the sequence graph from `model`, if it has one."""
    kept = [entry for entry in model.metadata_props if entry.key != SEQUENCE_KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)


def packed(model: onnx.ModelProto) -> str | None:
    """Return the metadata entry of the sequence graph; None where there is none.

    Raises:
        BundleError: The file has several.
    """
    entries = [entry.value for entry in model.metadata_props if entry.key == SEQUENCE_KEY]
    if len(entries) > 1:
        raise BundleError("sequence", f"found {len(entries)} metadata entries {SEQUENCE_KEY!r}, expected at most one")
    return entries[0] if entries else None


def extract(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """Return the sequence graph as a separate model with its weights; None where the file has none.

    Raises:
        BundleError: The entry is damaged.
    """
    entry = packed(model)
    if entry is None:
        return None
    try:
        inflater = zlib.decompressobj()
        data = inflater.decompress(base64.b64decode(entry, validate=True), MAX_SEQUENCE_BYTES)
        if inflater.unconsumed_tail:
            raise BundleError("sequence", f"the sequence graph has more than {MAX_SEQUENCE_BYTES} bytes")
        onnx_safety.check_bytes(data)
        sequence = onnx.load_model_from_string(data)
    except (ValueError, zlib.error, DecodeError) as error:  # base64 raises ValueError and a subclass of it
        raise BundleError("sequence", f"the sequence graph cannot be read: {error}") from error
    # The tracer numbers the values of each graph by itself: a result of this one may have a weight's name in the other.
    wanted = _read(sequence.graph) - _own(sequence.graph)
    sequence.graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name in wanted)
    return sequence


def _read(graph: onnx.GraphProto) -> set[str]:
    """Return every value that a node of the graph, or of a subgraph, reads."""
    names = {name for node in graph.node for name in node.input}
    return names.union(*(_read(inner) for inner in _subgraphs(graph)))


def _own(graph: onnx.GraphProto) -> set[str]:
    """Return every value that the graph, or a subgraph, has itself."""
    names = {name for node in graph.node for name in node.output}
    names |= {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    return names.union(*(_own(inner) for inner in _subgraphs(graph)))


def _subgraphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield attribute.g
            yield from attribute.graphs
