"""Operators of a finished graph that do nothing, or what another one does already: left out.

A step of a few streams takes as long as it has operators, whatever they compute, and on a GPU most of them are a launch
of a kernel each.

Owns: which operators are left out, and by what they are replaced. Does not know: the purpose of the graph, or its
layout.

Invariant: the graph gives the same bits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
from onnx import helper

_RESHAPING: Final = frozenset({"Flatten", "Reshape", "Squeeze", "Unsqueeze"})  # the numbers stay as they are
_LARGEST_KEY: Final = 64  # numbers; larger constants are compared by name

Shape = tuple[int | str, ...]


def merged(
    nodes: Iterable[onnx.NodeProto],
    constants: dict[str, np.ndarray],
    shapes: Mapping[str, Shape],
    whole: frozenset[str],
    outputs: frozenset[str],
) -> list[onnx.NodeProto]:
    """Return nodes that compute the same.

    - What is computed twice is computed once.
    - Two transpositions in a row are one, or none; so are two changes of shape, and two cuts along an axis.
    - A cut of joined parts that is one of them is that part.
    - A shape that is computed, though only the number of rows is unknown, is a constant.

    Args:
        nodes: In topological order.
        constants: Initializers by name; those that are made are added.
        shapes: Shapes of all values; a string is a dimension that is unknown.
        whole: Values that are int64.
        outputs: Values that must keep their names.
    """
    merging = _Merging(constants, shapes, whole, outputs)
    found = list(nodes)
    while True:
        before = len(found)
        found = merging.swept(found)
        if len(found) == before:
            return found


@dataclass(frozen=True)
class _Cut:
    """The places `start` to `stop` along an axis of a value."""

    source: str
    axis: int
    start: int
    stop: int


class _Merging:
    def __init__(
        self,
        constants: dict[str, np.ndarray],
        shapes: Mapping[str, Shape],
        whole: frozenset[str],
        outputs: frozenset[str],
    ) -> None:
        self.constants, self.shapes, self.whole, self.outputs = constants, dict(shapes), whole, outputs
        self.made: dict[str, onnx.NodeProto] = {}
        self.alias: dict[str, str] = {}

    def swept(self, nodes: Sequence[onnx.NodeProto]) -> list[onnx.NodeProto]:
        """Return the nodes that are left after one pass."""
        self.made, self.alias = {}, {}
        seen: dict[object, onnx.NodeProto] = {}
        found = []
        for old in nodes:
            node = onnx.NodeProto()
            node.CopyFrom(old)
            node.input[:] = [self.alias.get(name, name) for name in node.input]
            node = self._shorter(node)
            key = self._key(node)
            same = seen.get(key)
            keeps = self.outputs.intersection(node.output)
            if same is not None and not keeps:
                self.alias.update(zip(node.output, same.output, strict=True))
                continue
            replaced = None if keeps else self._replaced_by(node)
            if replaced is not None:
                self.alias.update(zip(node.output, replaced, strict=True))
                continue
            seen.setdefault(key, node)
            self.made.update(dict.fromkeys(node.output, node))
            found.append(node)
        return self._needed(found)

    def _needed(self, nodes: Sequence[onnx.NodeProto]) -> list[onnx.NodeProto]:
        needed, kept = set(self.outputs), []
        for node in reversed(nodes):
            if needed.intersection(node.output):
                kept.append(node)
                needed.update(node.input)
        return kept[::-1]

    def _key(self, node: onnx.NodeProto) -> object:
        inputs = []
        for name in node.input:
            values = self.constants.get(name)
            small = values is not None and values.size <= _LARGEST_KEY
            inputs.append((str(values.dtype), values.shape, values.tobytes()) if small and values is not None else name)
        attributes = tuple(sorted(attribute.SerializeToString() for attribute in node.attribute))
        return node.domain, node.op_type, tuple(inputs), attributes, len(node.output)

    # One node.

    def _shorter(self, node: onnx.NodeProto) -> onnx.NodeProto:
        """Return a node that does the same to a value that needs fewer nodes before it."""
        made = self.made.get(node.input[0]) if node.input else None
        if node.op_type in _RESHAPING and (shape := self._constant_shape(node.output[0])) is not None:
            inner = made is not None and made.op_type in _RESHAPING
            computed = node.op_type == "Reshape" and node.input[1] not in self.constants
            if inner or computed:
                assert made is not None or computed
                source = made.input[0] if inner and made is not None else node.input[0]
                name = self._constant(f"{node.output[0]}.shape", np.array(shape, np.int64))
                return helper.make_node("Reshape", [source, name], node.output, name=node.name, allowzero=0)
        if made is not None and node.op_type == made.op_type == "Transpose":
            order, first = _order(node), _order(made)
            return helper.make_node(
                "Transpose", [made.input[0]], node.output, name=node.name, perm=[first[axis] for axis in order]
            )
        cut = self._cut(node)
        if cut is not None and (inner_cut := self._within(cut)) is not None:
            return self._of_cut(inner_cut, node)
        return node

    def _replaced_by(self, node: onnx.NodeProto) -> list[str] | None:
        """Return values that are what a node computes; None = there are none."""
        source = node.input[0] if node.input else ""
        if node.op_type == "Transpose" and _order(node) == sorted(_order(node)):
            return [source]
        if node.op_type == "Cast" and self._type_of(source) == _attribute(node, "to") is not None:
            return [source]
        if node.op_type in _RESHAPING and self._same_shape(source, node.output[0]):
            # ONNX Runtime would move a transposition without it behind the operators that follow (`layout.turned`).
            before = self.made.get(source)
            return None if before is not None and before.op_type == "Transpose" else [source]
        if node.op_type == "Split":
            return self._parts(node)
        cut = self._cut(node)
        if cut is not None and node.op_type == "Slice" and self._same_shape(source, node.output[0]):
            return [source]
        return None

    def _type_of(self, name: str) -> int | None:
        made = self.made.get(name)
        if made is not None and made.op_type == "Cast":
            return _attribute(made, "to")
        return int(onnx.TensorProto.INT64) if name in self.whole else None

    def _parts(self, node: onnx.NodeProto) -> list[str] | None:
        """Return the parts that were joined, where a `Split` only takes them apart again."""
        made = self.made.get(node.input[0])
        sizes = self.constants.get(node.input[1]) if len(node.input) > 1 else None
        if made is None or made.op_type != "Concat" or sizes is None:
            return None
        axis = self._axis(node, node.input[0])
        if axis != self._axis(made, made.output[0]) or len(made.input) != len(sizes):
            return None
        alike = [self._size(name, axis) == size for name, size in zip(made.input, sizes.tolist(), strict=True)]
        return list(made.input) if all(alike) else None

    # Cuts.

    def _cut(self, node: onnx.NodeProto) -> _Cut | None:
        """Return what a node takes of a value: a `Slice` of one axis, or a `Gather` of one place."""
        if node.op_type == "Gather":
            index = self.constants.get(node.input[1])
            if index is None or index.ndim or node.input[0] not in self.shapes:
                return None
            axis = self._axis(node, node.input[0])
            size = self._size(node.input[0], axis)
            start = None if size is None else int(index) % size
            return None if start is None else _Cut(node.input[0], axis, start, start + 1)
        if node.op_type != "Slice" or len(node.input) < 4:
            return None
        numbers = [self.constants.get(name) for name in node.input[1:]]
        if any(one is None or one.size != 1 for one in numbers):
            return None
        start, stop, axis, *step = (int(one.reshape(-1)[0]) for one in numbers if one is not None)
        if step not in ([], [1]) or node.input[0] not in self.shapes:
            return None
        axis %= len(self.shapes[node.input[0]])
        size = self._size(node.input[0], axis)
        return None if size is None else _Cut(node.input[0], axis, *slice(start, stop).indices(size)[:2])

    def _within(self, cut: _Cut) -> _Cut | None:
        """Return a cut of what the source was cut or joined from; None = it was not."""
        made = self.made.get(cut.source)
        if made is None:
            return None
        if made.op_type == "Slice" and (outer := self._cut(made)) is not None and outer.axis == cut.axis:
            return _Cut(outer.source, cut.axis, outer.start + cut.start, outer.start + cut.stop)
        if made.op_type == "Concat" and self._axis(made, cut.source) == cut.axis:
            start = 0
            for name in made.input:
                size = self._size(name, cut.axis)
                if size is None:
                    return None
                if start <= cut.start and cut.stop <= start + size:
                    return _Cut(name, cut.axis, cut.start - start, cut.stop - start)
                start += size
        return None

    def _of_cut(self, cut: _Cut, node: onnx.NodeProto) -> onnx.NodeProto:
        """Return a node that takes a cut and makes the output of another node."""
        if node.op_type == "Gather":
            index = self._constant(f"{node.output[0]}.index", np.array(cut.start, np.int64))
            if self._size(cut.source, cut.axis) == 1:
                axes = self._constant(f"{node.output[0]}.axes", np.array([cut.axis], np.int64))
                return helper.make_node("Squeeze", [cut.source, axes], node.output, name=node.name)
            return helper.make_node("Gather", [cut.source, index], node.output, name=node.name, axis=cut.axis)
        numbers = {"starts": cut.start, "ends": cut.stop, "axes": cut.axis}
        names = [self._constant(f"{node.output[0]}.{what}", np.array([n], np.int64)) for what, n in numbers.items()]
        return helper.make_node("Slice", [cut.source, *names], node.output, name=node.name)

    # Facts about a value.

    def _constant(self, name: str, values: np.ndarray) -> str:
        self.constants[name] = values
        return name

    def _axis(self, node: onnx.NodeProto, name: str) -> int:
        return (_attribute(node, "axis") or 0) % max(1, len(self.shapes.get(name, ())))

    def _size(self, name: str, axis: int) -> int | None:
        shape = self.shapes.get(name, ())
        size = shape[axis] if axis < len(shape) else None
        return size if isinstance(size, int) else None

    def _constant_shape(self, name: str) -> list[int] | None:
        """Return a shape with -1 for the one dimension that is unknown; None = it is no such shape."""
        shape = self.shapes.get(name)
        if shape is None or sum(isinstance(size, str) for size in shape) > 1 or 0 in shape:
            return None
        return [-1 if isinstance(size, str) else size for size in shape]

    def _same_shape(self, name: str, other: str) -> bool:
        shape = self._constant_shape(name)
        return shape is not None and shape == self._constant_shape(other)


def _order(node: onnx.NodeProto) -> list[int]:
    return next(list(attribute.ints) for attribute in node.attribute if attribute.name == "perm")


def _attribute(node: onnx.NodeProto, name: str) -> int | None:
    return next((attribute.i for attribute in node.attribute if attribute.name == name), None)
