"""The second graph of a bundle: many events of a stream at once, kept inside the same file.

Owns: how the sequence graph lies in the `.onnx` file beside the step, and how it gets its weights. A file has one main
graph, and a sequence shares every weight with it, so the second graph is a metadata entry: an ONNX model without the
initializers that it shares by name with the main graph, deflated, in base64. Does not know: the contract that the graph
keeps (`rillcast.bundle.bundle`), or when it is used (`rillcast.engine.batcher`).
"""

from __future__ import annotations

import base64
import zlib
from typing import Final

import onnx
from google.protobuf.message import DecodeError

from rillcast.bundle import onnx_safety
from rillcast.errors import BundleError

SEQUENCE_KEY: Final = "rillcast.sequence"
MAX_SEQUENCE_BYTES: Final = 64 * 2**20  # a graph without weights; more is a bomb


def embed(model: onnx.ModelProto, sequence: onnx.ModelProto) -> None:
    """Put `sequence` into `model`; initializers that both have, equal in name and value, are kept once."""
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
    """Take the sequence graph out of `model`, if it has one."""
    kept = [entry for entry in model.metadata_props if entry.key != SEQUENCE_KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)


def packed(model: onnx.ModelProto) -> str | None:
    """Return the entry as it stands in the file; None where there is none.

    Raises:
        BundleError: there are several.
    """
    entries = [entry.value for entry in model.metadata_props if entry.key == SEQUENCE_KEY]
    if len(entries) > 1:
        raise BundleError("sequence", f"{len(entries)} metadata entries {SEQUENCE_KEY!r}, expected at most one")
    return entries[0] if entries else None


def extract(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """Return the sequence graph as a model of its own, weights included; None where the file has none.

    Raises:
        BundleError: the entry is damaged.
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
    own = {tensor.name for tensor in sequence.graph.initializer}
    wanted = _names(sequence.graph) - own
    sequence.graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name in wanted)
    return sequence


def _names(graph: onnx.GraphProto) -> set[str]:
    """Return every value that a node of the graph, or of a body inside it, reads."""
    names: set[str] = set()
    for node in graph.node:
        names.update(node.input)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                names |= _names(attribute.g)
            for body in attribute.graphs:
                names |= _names(body)
    return names
