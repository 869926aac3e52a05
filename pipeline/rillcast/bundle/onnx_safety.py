"""Safety checks on ONNX files, which are untrusted input.

Before a file is parsed: a few bytes must not become gigabytes of objects. Before other code reads the parsed model: no
tensor in another file, no operator that loads one, no random operator, no constant larger than the file.

These checks cannot bound how long a graph runs and how much memory its intermediate values take. The limits of the
process do that, see `SECURITY.md`.

Owns: these checks.
Does not know: the bundle contract (`rillcast.bundle.bundle`), which is checked afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final

import onnx
from google.protobuf.message import Message
from onnx import TensorProto, numpy_helper

from rillcast.errors import BundleError

MAX_FIELDS: Final = 500_000  # a trained forecaster has about 10,000
MAX_CONSTANT_ELEMENTS: Final = 2**24
DOMAINS: Final = frozenset({"", "ai.onnx", "com.microsoft"})
# They load a compiled model from a file, or pass their bytes to a driver.
_LOADERS: Final = frozenset({"EPContext", "Snpe", "PyOp", "Opaque"})
# A replay must repeat the results of the first run.
_RANDOM: Final = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}
)
_UNBOUNDED: Final = frozenset({"Loop"})  # its body decides when it ends
_SHAPED_BY: Final = {"ConstantOfShape": 0, "Expand": 1, "Tile": 1}  # index of the input that is a shape, or repeats
_PACKED_BYTES_PER_FIELD: Final = 16
_VARINT: Final = 0
_VARINT_BITS: Final = 70
_DELIMITED: Final = 2
_FIXED: Final = {1: 8, 5: 4}  # bytes by wire type
_TYPED_DATA: Final = (
    "float_data",
    "int32_data",
    "int64_data",
    "double_data",
    "uint64_data",
    "string_data",
)


def check_bytes(data: bytes) -> None:
    """Refuse a file that would become too many objects, without creating them.

    Walks protobuf's wire format by the descriptors of ONNX and skips raw data. The parser reports a broken file.

    Raises:
        BundleError: Clause `size` is broken.
    """
    fields = 0
    pending = [(0, len(data), onnx.ModelProto.DESCRIPTOR)]
    while pending:
        position, end, descriptor = pending.pop()
        known = _KNOWN.get(descriptor.full_name)
        if known is None:
            known = _KNOWN.setdefault(descriptor.full_name, _members(descriptor))
        while position < end:
            tag, position = _varint(data, position, end)
            fields += 1
            kind = tag & 7
            if kind == _DELIMITED:
                length, position = _varint(data, position, end)
                inner = known.get(tag >> 3)
                if inner is _PACKED:
                    fields += length // _PACKED_BYTES_PER_FIELD
                elif inner is not None and 0 < length <= end - position:
                    pending.append((position, position + length, inner))
                position += length
            elif kind == _VARINT:
                _, position = _varint(data, position, end)
            elif kind in _FIXED:
                position += _FIXED[kind]
            else:
                break  # a group, or garbage: the parser reports it
            if fields > MAX_FIELDS:
                raise BundleError("size", f"the file has more than {MAX_FIELDS} protobuf fields")


_PACKED: Final = object()
_KNOWN: dict[str, dict[int, Any]] = {}


def _members(descriptor: Any) -> dict[int, Any]:
    """Return the kind of each field: a descriptor, or `_PACKED` for repeated numbers; text and bytes have no entry."""
    members: dict[int, Any] = {}
    for field in descriptor.fields:
        if field.message_type is not None:
            members[field.number] = field.message_type
        elif field.is_repeated and field.type not in (field.TYPE_STRING, field.TYPE_BYTES):
            members[field.number] = _PACKED
    return members


def _varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    if position < end and data[position] < 0x80:
        return data[position], position + 1
    value = shift = 0
    while position < end and shift < _VARINT_BITS:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    return 0, end  # truncated: nothing more can be read


def check_model(model: onnx.ModelProto) -> None:
    """Refuse a parsed model that would read files, compute at random or without end, or expand a constant.

    Raises:
        BundleError: Clause `operators`, `external-data` or `size` is broken.
    """
    foreign = sorted({opset.domain for opset in model.opset_import} - DOMAINS)
    if foreign or model.functions or model.training_info:
        raise BundleError(
            "operators", f"operator domains {foreign}, local functions or training graphs are not allowed"
        )
    constants: dict[str, TensorProto] = {}
    nodes: list[onnx.NodeProto] = []
    for message in _messages(model):
        if isinstance(message, TensorProto):
            _check_tensor(message)
            constants[message.name] = message
        elif isinstance(message, onnx.SparseTensorProto):
            raise BundleError(
                "size", f"{message.values.name!r} is a sparse tensor, which ONNX Runtime would make dense"
            )
        elif isinstance(message, onnx.NodeProto):
            _check_operator(message)
            nodes.append(message)
            if message.op_type == "Constant" and message.output:
                for attribute in message.attribute:
                    if attribute.HasField("t"):
                        constants[message.output[0]] = attribute.t
    for node in nodes:
        _check_shape(node, constants)


def _messages(message: Message) -> Iterator[Message]:
    """Yield a message and all messages inside it: attributes, subgraphs, sparse tensors, type defaults."""
    pending = [message]
    while pending:
        current = pending.pop()
        yield current
        for field, value in current.ListFields():
            if field.message_type is not None:
                pending.extend(value if field.is_repeated else [value])
            elif field.type == field.TYPE_STRING:
                # ONNX is proto2: the parser accepts text that is not UTF-8 and returns it as bytes.
                for text in value if field.is_repeated else [value]:
                    if isinstance(text, bytes):
                        raise BundleError("onnx", f"{field.full_name} is not UTF-8: {text[:50]!r}")


def _check_operator(node: onnx.NodeProto) -> None:
    if node.domain not in DOMAINS:
        raise BundleError(
            "operators", f"node {node.name!r} is of domain {node.domain!r}, allowed are {sorted(DOMAINS)}"
        )
    for kinds, why in ((_LOADERS, "loads other code"), (_RANDOM, "is random"), (_UNBOUNDED, "may not end")):
        if node.op_type in kinds:
            raise BundleError("operators", f"node {node.name!r} is a {node.op_type}, which {why}")


def _check_tensor(tensor: TensorProto) -> None:
    if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
        raise BundleError("external-data", f"tensor {tensor.name!r} is stored outside the file")
    declared = math.prod(tensor.dims) if all(dim >= 0 for dim in tensor.dims) else -1
    # Two 4-bit values share a byte, and a complex value takes two numbers: the factor 2 bounds both.
    present = (
        2 * len(tensor.raw_data)
        if tensor.HasField("raw_data")
        else 2 * max(len(getattr(tensor, name)) for name in _TYPED_DATA)
    )
    if not 0 <= declared <= present:
        raise BundleError(
            "size", f"tensor {tensor.name!r} of shape {list(tensor.dims)} is larger than its data in the file"
        )


def _check_shape(node: onnx.NodeProto, constants: dict[str, TensorProto]) -> None:
    """Refuse a node that expands a small constant to a huge tensor, which ONNX Runtime would do while loading."""
    index = _SHAPED_BY.get(node.op_type, -1)
    if index < 0 or index >= len(node.input) or node.input[index] not in constants:
        return
    try:
        shape = numpy_helper.to_array(constants[node.input[index]])
        elements = math.prod(abs(int(step)) for step in shape.ravel()[:32])
    except (TypeError, ValueError) as error:
        raise BundleError("onnx", f"the shape of node {node.name!r} cannot be read: {error}") from error
    if elements > MAX_CONSTANT_ELEMENTS:
        raise BundleError("size", f"node {node.name!r} makes {elements} elements, the limit is {MAX_CONSTANT_ELEMENTS}")
