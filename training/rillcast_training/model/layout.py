"""The memory layout of the exported step: small tensors have the batch last.

A module says `[B, C]`, a row per stream. Most of a step is elementwise work on rows of 1 to 48 numbers with one number
per stream. ONNX Runtime's CPU kernels broadcast that number row by row, and copy columns number by number. With the
batch last, `[C, B]`, the same operators run over B contiguous numbers at a time: three to ten times faster. So the
exported graph is rewritten. An operator that computes numbers from numbers at the same position, or moves them within
their rows, works on `[C, B]` where its rows are small. Products, reductions, and functions whose kernels round
differently at the ends of an array (exp, log, sin, sigmoid, tanh, reciprocal) stay as they are, with a transposition
where the two meet.

Owns: which operators change their layout, and how. Does not know: the purpose of the graph.

Invariant: the rewritten graph gives the same bits. Every operator that changes its layout rounds each number on its
own, independent of its position.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from rillcast_training.model.merging import merged
from rillcast_training.model.simplify import simplified

_ELEMENTWISE: Final = frozenset(
    {
        *("Abs", "Add", "And", "Cast", "Clip", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"),
        *(
            "HardSigmoid",
            "Max",
            "Min",
            "Mod",
            "Mul",
            "Neg",
            "Not",
            "Or",
            "PRelu",
            "Relu",
            "Sqrt",
            "Sub",
            "Where",
            "Xor",
        ),
    }
)
_LARGEST_ROW: Final = 72  # numbers; beyond it both layouts cost about the same, and transpositions come on top
_SMALL_ROW: Final = 48  # numbers; an elementwise operator without turned neighbours gains up to here
_BATCHES: Final = (5, 7)  # two sizes tell a dimension that grows with the batch from one that does not
_ROWS: Final = "rows"
_SUFFIX: Final = ".batch_last"

Shape = tuple[int | str, ...]


def batch_last(model: onnx.ModelProto, example: Callable[[int], Mapping[str, np.ndarray]]) -> onnx.ModelProto:
    """Return the graph with its small tensors in `[C, B]`.

    Args:
        model: Graph whose inputs and outputs have the batch first.
        example: Returns its inputs, and possibly more, for a batch of a given size.
    """
    folded, shapes, whole = _folded(model, example)
    initializers = {t.name: numpy_helper.to_array(t) for t in folded.graph.initializer}
    rewriting = _Rewriting(initializers, shapes, whole)
    for node in simplified(folded.graph.node, initializers, shapes, {output.name for output in folded.graph.output}):
        rewriting.take(node)
    for output in folded.graph.output:
        rewriting.rows_of(output.name)
    graph = helper.make_graph(
        rewriting.nodes,
        folded.graph.name,
        folded.graph.input,
        folded.graph.output,
        initializer=[
            *(numpy_helper.from_array(values, name) for name, values in initializers.items()),
            *rewriting.constants(),
        ],
    )
    rewritten = helper.make_model(graph, opset_imports=folded.opset_import, ir_version=folded.ir_version)
    _keep_short_indices(rewritten.graph)
    return _merged(_without_unused(rewritten), example)


def _merged(model: onnx.ModelProto, example: Callable[[int], Mapping[str, np.ndarray]]) -> onnx.ModelProto:
    folded, shapes, whole = _folded(model, example)
    graph = folded.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes = merged(graph.node, constants, shapes, whole, frozenset(output.name for output in graph.output))
    initializers = [numpy_helper.from_array(values, name) for name, values in constants.items()]
    fewer = helper.make_graph(nodes, graph.name, graph.input, graph.output, initializer=initializers)
    return _without_unused(helper.make_model(fewer, opset_imports=model.opset_import, ir_version=model.ir_version))


def _keep_short_indices(graph: onnx.GraphProto) -> None:
    """Give GatherElements its indices as they are computed: PyTorch wants them in int64, ONNX takes int32 too."""
    casts = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Cast"}
    for node in graph.node:
        if node.op_type == "GatherElements" and node.input[1] in casts:
            node.input[1] = casts[node.input[1]]


@dataclass
class _Rewriting:
    """The graph so far. Every value has its old name, in one layout or in both.

    Attributes:
        initializers: Initializers by name.
        shapes: Shapes of all values, see `_folded`.
        whole: Values that are int64, which stay as they are: places in a table, for which a transposition is no gain.
        nodes: Nodes of the new graph.
    """

    initializers: Mapping[str, np.ndarray]
    shapes: Mapping[str, Shape]
    whole: frozenset[str]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    _last: dict[str, str] = field(default_factory=dict)  # old name -> the name of its batch-last form
    _only_last: set[str] = field(default_factory=set)  # names without a batch-first form so far
    _made: dict[str, np.ndarray] = field(default_factory=dict)

    def constants(self) -> list[onnx.TensorProto]:
        """Return the initializers that the rewriting made."""
        return [numpy_helper.from_array(values, name) for name, values in self._made.items()]

    def take(self, node: onnx.NodeProto) -> None:
        """Add a node, in the layout that suits it."""
        made = self._turned(node) if self._suits(node) else None
        if made is None:
            for name in node.input:
                self.rows_of(name)
            self.nodes.append(node)
            return
        made.name = node.output[0] + _SUFFIX
        for n, name in enumerate(node.output):
            made.output.append(name if self._rank(name) == 1 else name + _SUFFIX)
            if self._rank(name) > 1:
                self._last[name] = made.output[n]
                self._only_last.add(name)
        self.nodes.append(made)

    def rows_of(self, name: str) -> None:
        """Ensure that a value exists with the batch first, under its own name."""
        if name in self._only_last:
            self._only_last.discard(name)
            self._transpose(self._last[name], name, name, batch_first=True)

    def _last_of(self, name: str) -> str:
        """Return the name of a value with the batch last."""
        if self._rank(name) == 1:
            return name
        if name not in self._last:
            self._last[name] = name + _SUFFIX
            self._transpose(name, self._last[name], name, batch_first=False)
        return self._last[name]

    def _transpose(self, source: str, target: str, name: str, *, batch_first: bool) -> None:
        """Add the transposition of a value; as a matrix, for which the kernel is fast at any rank."""
        row, size = [int(size) for size in self.shapes[name][1:]], self._size(name)
        flat, turned = (source, target) if len(row) == 1 else (f"{target}.flat", f"{target}.turned")
        if len(row) > 1:
            self._reshape_to(source, flat, [size, -1] if batch_first else [-1, size])
        self.nodes.append(helper.make_node("Transpose", [flat], [turned], name=f"{target}.transpose", perm=[1, 0]))
        if len(row) > 1:
            self._reshape_to(turned, target, [-1, *row] if batch_first else [*row, -1])

    def _reshape_to(self, source: str, target: str, shape: Sequence[int]) -> None:
        wanted = self._constant(f"{target}.shape", np.array(shape, np.int64))
        self.nodes.append(helper.make_node("Reshape", [source, wanted], [target], name=f"{target}.reshape"))

    def _suits(self, node: onnx.NodeProto) -> bool:
        """Return whether a node should work with the batch last."""
        if node.domain or not all(map(self._has_rows, node.output)) or self.whole.intersection(node.output):
            return False
        inputs = [name for name in node.input if self._has_rows(name)]
        largest = max(self._size(name) for name in (*node.output, *inputs))
        if largest > _LARGEST_ROW:
            return False
        if any(name in self._only_last and self._size(name) == largest for name in inputs):
            return True
        if largest > _SMALL_ROW:
            return False
        # Alone between two nodes that stay, only broadcasts and cuts of rows are worth their transpositions.
        return node.op_type not in _ELEMENTWISE or self._broadcasts(node, largest)

    def _broadcasts(self, node: onnx.NodeProto, largest: int) -> bool:
        rows = any(self._size(name) < largest for name in node.input if self._has_rows(name))
        return rows or any(self.initializers[name].size > 1 for name in node.input if name in self.initializers)

    def _turned(self, node: onnx.NodeProto) -> onnx.NodeProto | None:
        """Return a node for the batch last that does the same, without outputs; None if there is none."""
        if node.op_type in _ELEMENTWISE:
            return self._elementwise(node)
        move = _MOVES.get(node.op_type)
        if move is None or not self._has_rows(node.input[0]):
            return None
        return move(self, node)

    def _elementwise(self, node: onnx.NodeProto) -> onnx.NodeProto | None:
        rank = max(map(self._rank, node.output))
        if rank == 1:
            return None  # nothing to turn
        turned: list[str] = []
        for name in node.input:
            if self._has_rows(name) and self._rank(name) == rank:
                turned.append(self._last_of(name))
            elif name in self.initializers and self.initializers[name].ndim <= rank:
                turned.append(self._constant_last(name, rank))
            elif self._rank(name) == 0:  # one number, or an input that is left out
                turned.append(name)
            else:
                return None
        return self._copy(node, turned)

    def _constant_last(self, name: str, rank: int) -> str:
        """Return a constant that broadcasts against `[..., B]` as the given one does against `[B, ...]`."""
        values = self.initializers[name]
        if values.ndim == 0 or rank == 1:
            return name
        padded = values.reshape((1,) * (rank - values.ndim) + values.shape)
        return self._constant(f"{name}{_SUFFIX}.{rank}", np.moveaxis(padded, 0, -1))

    def _constant(self, name: str, values: np.ndarray) -> str:
        self._made[name] = np.ascontiguousarray(values)
        return name

    def _copy(self, node: onnx.NodeProto, inputs: Sequence[str], **attributes: int | Sequence[int]) -> onnx.NodeProto:
        made = helper.make_node(node.op_type, inputs, [])
        made.attribute.extend(attribute for attribute in node.attribute if attribute.name not in attributes)
        made.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
        return made

    # Operators that move numbers within their rows.

    def _slice(self, node: onnx.NodeProto) -> onnx.NodeProto | None:
        if len(node.input) < 4 or node.input[3] not in self.initializers:
            return None
        axes = self._axes(self.initializers[node.input[3]], self._rank(node.input[0]))
        if axes is None:
            return None
        rest = [self._last_of(node.input[0]), *node.input[1:3], self._integers(node, "axes", axes), *node.input[4:]]
        return self._copy(node, rest)

    def _split(self, node: onnx.NodeProto) -> onnx.NodeProto | None:
        axes = self._axes([_axis(node)], self._rank(node.input[0]))
        if axes is None:
            return None
        return self._copy(node, [self._last_of(node.input[0]), *node.input[1:]], axis=axes[0])

    def _concat(self, node: onnx.NodeProto) -> onnx.NodeProto | None:
        axes = self._axes([_axis(node)], self._rank(node.input[0]))
        if axes is None or not all(map(self._has_rows, node.input)):
            return None
        return self._copy(node, [self._last_of(name) for name in node.input], axis=axes[0])

    def _squeeze_or_unsqueeze(self, node: onnx.NodeProto) -> onnx.NodeProto | None:
        if len(node.input) < 2 or node.input[1] not in self.initializers:
            return None
        # Axes are those of the longer shape, which has the dimensions of size one.
        longer = max(self._rank(node.input[0]), self._rank(node.output[0]))
        axes = self._axes(self.initializers[node.input[1]], longer)
        if axes is None:
            return None
        return self._copy(node, [self._last_of(node.input[0]), self._integers(node, "axes", axes)])

    def _gather(self, node: onnx.NodeProto) -> onnx.NodeProto | None:
        axes = self._axes([_axis(node)], self._rank(node.input[0]))
        if axes is None or node.input[1] not in self.initializers:
            return None
        return self._copy(node, [self._last_of(node.input[0]), node.input[1]], axis=axes[0])

    def _tile(self, node: onnx.NodeProto) -> onnx.NodeProto | None:
        repeats = self.initializers.get(node.input[1])
        if repeats is None or repeats[0] != 1:
            return None
        return self._copy(node, [self._last_of(node.input[0]), self._integers(node, "repeats", [*repeats[1:], 1])])

    def _transposition(self, node: onnx.NodeProto) -> onnx.NodeProto | None:
        order = next((list(attribute.ints) for attribute in node.attribute if attribute.name == "perm"), [])
        if not order or order[0] != 0:
            return None
        turned = [axis - 1 for axis in order[1:]] + [len(order) - 1]
        return self._copy(node, [self._last_of(node.input[0])], perm=turned)

    def _reshape(self, node: onnx.NodeProto) -> onnx.NodeProto | None:
        """A row keeps its numbers in their order, so with the batch last only the dimensions before it change."""
        shape = [*(int(size) for size in self.shapes[node.output[0]][1:]), -1]
        made = helper.make_node("Reshape", [self._last_of(node.input[0]), self._integers(node, "shape", shape)], [])
        made.attribute.append(helper.make_attribute("allowzero", 0))
        return made

    # Facts about a value.

    def _has_rows(self, name: str) -> bool:
        shape = self.shapes.get(name, ())
        return bool(shape) and shape[0] == _ROWS and all(isinstance(size, int) and size > 0 for size in shape[1:])

    def _rank(self, name: str) -> int:
        return len(self.shapes.get(name, ()))

    def _size(self, name: str) -> int:
        return math.prod(int(size) for size in self.shapes[name][1:])

    def _axes(self, axes: Sequence[int] | np.ndarray, rank: int) -> list[int] | None:
        """Return where axes are with the batch last; None if the batch itself is among them."""
        counted = [int(axis) % rank for axis in axes]
        return None if 0 in counted else [axis - 1 for axis in counted]

    def _integers(self, node: onnx.NodeProto, what: str, values: Sequence[int]) -> str:
        return self._constant(f"{node.output[0]}{_SUFFIX}.{what}", np.array(values, np.int64))


_Move = Callable[[_Rewriting, onnx.NodeProto], onnx.NodeProto | None]
_MOVES: Final[Mapping[str, _Move]] = {
    "Concat": _Rewriting._concat,
    "Flatten": _Rewriting._reshape,
    "Gather": _Rewriting._gather,
    "Reshape": _Rewriting._reshape,
    "Slice": _Rewriting._slice,
    "Split": _Rewriting._split,
    "Squeeze": _Rewriting._squeeze_or_unsqueeze,
    "Tile": _Rewriting._tile,
    "Transpose": _Rewriting._transposition,
    "Unsqueeze": _Rewriting._squeeze_or_unsqueeze,
}


def _axis(node: onnx.NodeProto) -> int:
    """Return a node's axis; 0 is the default of every operator here that has one."""
    return next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)


def _folded(
    model: onnx.ModelProto, example: Callable[[int], Mapping[str, np.ndarray]]
) -> tuple[onnx.ModelProto, dict[str, Shape], frozenset[str]]:
    """Return the graph with all constants as initializers, the shape of every value, and which values are int64.

    Values that the tracer computes from shapes are constant too, unless they are the size of the batch.
    """
    few, more = (_values(model, example(size)) for size in _BATCHES)
    shapes: dict[str, Shape] = {}
    for name, value in few.items():
        pairs = zip(value.shape, more[name].shape, strict=True)
        shapes[name] = tuple(a if a == b else _ROWS if (a, b) == _BATCHES else "?" for a, b in pairs)
    constant = {tensor.name for tensor in model.graph.initializer}
    of_shapes = set(constant)  # computed from constants and shapes alone
    initializers, nodes = list(model.graph.initializer), []
    for node in model.graph.node:
        if node.op_type in ("Constant", "Shape") or all(name in of_shapes for name in node.input if name):
            of_shapes.update(node.output)
            if all(np.array_equal(few[name], more[name], equal_nan=_is_float(few[name])) for name in node.output):
                initializers += [numpy_helper.from_array(few[name], name) for name in node.output]
                continue
        nodes.append(node)
    graph = helper.make_graph(nodes, model.graph.name, model.graph.input, model.graph.output, initializers)
    folded = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    return _without_unused(folded), shapes, frozenset(name for name, value in few.items() if value.dtype == np.int64)


def _is_float(values: np.ndarray) -> bool:
    return np.issubdtype(values.dtype, np.floating)


def _values(model: onnx.ModelProto, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return every value of the graph for some inputs."""
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    known = {output.name for output in wide.graph.output}
    names = [name for node in wide.graph.node for name in node.output if name]
    wide.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(wide.SerializeToString(), options, providers=["CPUExecutionProvider"])
    given = {one.name: inputs[one.name] for one in session.get_inputs()}
    outputs = [output.name for output in session.get_outputs()]
    found = dict(zip(outputs, session.run(outputs, given), strict=True))
    return given | {name: np.asarray(value) for name, value in found.items()}


def _without_unused(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph without nodes and initializers that no output needs."""
    needed = {output.name for output in model.graph.output}
    nodes = []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            nodes.append(node)
            needed.update(name for name in node.input if name)
    kept = [tensor for tensor in model.graph.initializer if tensor.name in needed]
    graph = helper.make_graph(nodes[::-1], model.graph.name, model.graph.input, model.graph.output, initializer=kept)
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
