"""The sequence graph of a bundle: the traced sequence step, with ONNX's own `Scan` operator for its scans.

Owns: the exported bodies and how they are put into the graph. Does not know: the step's export
(`rillcast_training.export.bundle`), or the file.

Invariants: names in a body are its own, because ONNX forbids shadowing. Weights stand in the outer graph, under the
names that they have in the step, so that the file holds them once.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from rillcast.bundle.alarms import ALARM, ALARM_COLUMNS, ALARM_INTERVAL
from rillcast.bundle.bundle import CALIBRATE, REGULAR
from rillcast.bundle.contract import FUTURE, X
from rillcast_training.export.tracing import graft_state, row_inputs, row_outputs, trace, value
from rillcast_training.model.alarms import WIDTH as OF_ALARMS
from rillcast_training.model.experts.forecaster import ExpertForecaster
from rillcast_training.model.forecaster import Forecaster
from rillcast_training.model.network_alarms import JUDGED
from rillcast_training.model.recurrence import DOMAIN
from rillcast_training.model.rows import Rows
from rillcast_training.model.sequence_calibration import OFFSETS
from rillcast_training.model.sequence_step import ALARMS, CELLS, TAILS, SequenceStep
from rillcast_training.model.tails import MISS, WIDTH

_EVENT: Final = ("ds", "y", CALIBRATE)
_OUTPUTS: Final = ("forecast", "status", "score", "anomaly")
_TRACE_BATCH: Final = 3  # not 1, which the tracer would squeeze, and unlike any other dimension
_TRACE_LENGTH: Final = 5


class _Flat(nn.Module):
    """`SequenceStep` with flat arguments, as the tracer needs it."""

    def __init__(self, sequence: SequenceStep) -> None:
        super().__init__()
        self.sequence = sequence

    def forward(self, ds: Tensor, y: Tensor, calibrate: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        given = Given.of(self.sequence.forecaster, others)
        outputs, following = self.sequence(ds, y, given.rows, calibrate, given.x, given.future, given.alarm_interval)
        return (*outputs.events.flat(), outputs.regular, *following.flat())


def sequence_to_onnx(forecaster: Forecaster) -> onnx.ModelProto:
    """Return the sequence graph over whole states; `forecaster` is in evaluation mode."""
    specs, sequence, events = forecaster.state_specs(), SequenceStep(forecaster), event_inputs(forecaster)
    inputs, outputs = [*events, *row_inputs(specs)], [*step_outputs(forecaster), REGULAR, *row_outputs(specs)]
    example = (
        *event_example(forecaster, (_TRACE_BATCH, _TRACE_LENGTH)),
        *forecaster.initial_rows(_TRACE_BATCH).flat(),
    )
    axes = {name: {0: "B"} for name in (*inputs, *outputs) if name != CALIBRATE}
    by_event = {*events, *step_outputs(forecaster)} - {CALIBRATE, ALARM_INTERVAL}
    axes |= {name: {0: "B", 1: "T"} for name in sorted(by_event)}
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", category=torch.jit._trace.TracerWarning
        )  # a scan's eager loop is not in the graph
        traced = trace(_Flat(sequence), example, inputs, outputs, axes, {DOMAIN: 1})
    bodies = {CELLS: _body_of_cells, OFFSETS: _body_of_learning, TAILS: _body_of_tails}
    bodies |= {ALARMS: _body_of_alarms} if forecaster.alarms else {}
    _put_in(traced.graph, {name: body(sequence) for name, body in bodies.items()})
    described = [*results(forecaster, ["B", "T"]), value(REGULAR, TensorProto.BOOL, ["B"])]
    return graft_state(traced, "rillcast.sequence", specs, events, described)


def event_inputs(forecaster: Forecaster) -> tuple[str, ...]:
    """Return the inputs that are not state rows: `ds`, `y`, `calibrate`, and those of alarms and covariates."""
    covariates = forecaster.covariates
    alarms = (ALARM_INTERVAL,) if forecaster.alarms else ()
    return (*_EVENT, *alarms, *((X,) if covariates else ()), *((FUTURE,) if covariates and covariates.ahead else ()))


def step_outputs(forecaster: Forecaster) -> tuple[str, ...]:
    """Return the names of the outputs that are no state."""
    return (*_OUTPUTS, ALARM) if forecaster.alarms else _OUTPUTS


def event_example(forecaster: Forecaster, events: tuple[int, ...]) -> tuple[Tensor, ...]:
    """Return an example of each of `event_inputs`, for events with these leading dimensions."""
    shapes: list[tuple[int, ...]] = []
    if (declared := forecaster.covariates) is not None:
        shapes = [(len(declared.covariates),), *([(len(declared.ahead), declared.horizon)] if declared.ahead else [])]
    return (
        torch.zeros(events, dtype=torch.int64),
        torch.zeros(events),
        torch.tensor(1.0),
        *([torch.ones(events[:1])] if forecaster.alarms else []),
        *(torch.zeros((*events, *shape)) for shape in shapes),
    )


class Given(NamedTuple):
    """The arguments after `calibrate` of a flat call."""

    alarm_interval: Tensor | None
    x: Tensor | None
    future: Tensor | None
    rows: Rows

    @classmethod
    def of(cls, forecaster: Forecaster, tensors: tuple[Tensor, ...]) -> Given:
        """Take the arguments apart."""
        names = event_inputs(forecaster)[len(_EVENT) :]
        found = dict(zip(names, tensors, strict=False))
        return cls(found.get(ALARM_INTERVAL), found.get(X), found.get(FUTURE), Rows.from_flat(tensors[len(names) :]))


def results(forecaster: Forecaster | ExpertForecaster, events: Sequence[str]) -> list[onnx.ValueInfoProto]:
    """Return the descriptions of the step's outputs; `events` names their leading dimensions."""
    config = forecaster.config
    described = [
        value("forecast", TensorProto.FLOAT, [*events, config.horizon, len(config.quantiles)]),
        value("status", TensorProto.INT8, events),
        value("score", TensorProto.FLOAT, [*events, len(forecaster.scores)]),
        value("anomaly", TensorProto.FLOAT, events),
    ]
    if isinstance(forecaster, ExpertForecaster) or forecaster.alarms:
        described.append(value(ALARM, TensorProto.FLOAT, [*events, len(ALARM_COLUMNS)]))
    return described


def _body_of_cells(sequence: SequenceStep) -> onnx.GraphProto:
    cell = sequence.cells.cell
    state = tuple(torch.zeros(_TRACE_BATCH, cell.num_layers * cell.hidden_size) for _ in cell.states)
    return _body(sequence.cells, (*state, torch.zeros(_TRACE_BATCH, cell.input_size)))


def _body_of_learning(sequence: SequenceStep) -> onnx.GraphProto:
    tracker = sequence.forecaster.tracker
    example = torch.zeros(_TRACE_BATCH, tracker.num_levels * tracker.num_anchors)
    return _body(sequence.calibration.learning, (example, example, example.to(torch.bool)))


def _body_of_tails(sequence: SequenceStep) -> onnx.GraphProto:
    state, miss = torch.zeros(_TRACE_BATCH, WIDTH), torch.zeros(_TRACE_BATCH, MISS)
    return _body(sequence.tails, (state, miss, torch.zeros(_TRACE_BATCH, 1, dtype=torch.bool)))


def _body_of_alarms(sequence: SequenceStep) -> onnx.GraphProto:
    assert sequence.alarms is not None  # the graph has a scan of them
    state, judged = torch.zeros(_TRACE_BATCH, OF_ALARMS), torch.zeros(_TRACE_BATCH, JUDGED)
    return _body(sequence.alarms, (torch.ones(_TRACE_BATCH), state, judged))


def _body(module: nn.Module, example: tuple[Tensor, ...]) -> onnx.GraphProto:
    with torch.no_grad():
        results = module(*example)
    inputs = [f"in.{n}" for n in range(len(example))]
    outputs = [f"out.{n}" for n in range(len(results))]
    axes = {
        name: {0: "B"} for name, value in zip((*inputs, *outputs), (*example, *results), strict=True) if value.dim()
    }
    return trace(module, example, inputs, outputs, axes).graph


def _put_in(graph: onnx.GraphProto, bodies: Mapping[str, onnx.GraphProto]) -> None:
    """Replace every placeholder by a Scan around its body."""
    weights = {tensor.name: tensor for tensor in graph.initializer}
    for number, node in enumerate(graph.node):
        if node.domain != DOMAIN:
            continue
        given = {attribute.name: attribute for attribute in node.attribute}
        name = given["body"].s.decode()
        states, inputs = given["states"].i, given["inputs"].i
        constants = len(node.input) - states - inputs
        body = _renamed(bodies[name], name, list(node.input[:constants]), weights, graph)
        made = helper.make_node(
            "Scan", list(node.input[constants:]), list(node.output), name=name, body=body, num_scan_inputs=inputs
        )
        graph.node.remove(node)
        graph.node.insert(number, made)


def _renamed(
    body: onnx.GraphProto,
    prefix: str,
    constants: list[str],
    weights: dict[str, onnx.TensorProto],
    outer: onnx.GraphProto,
) -> onnx.GraphProto:
    """Return the body with names of its own; its weights move to the outer graph, its first inputs are outer values."""
    names = {given.name: outside for given, outside in zip(body.input, constants, strict=False)}
    # The tracer numbers the values of each graph by itself: a weight may have the name of another graph's result.
    taken = {*weights, *(given.name for given in outer.input), *(name for node in outer.node for name in node.output)}
    for tensor in body.initializer:
        if weights.get(tensor.name) == tensor:
            names[tensor.name] = tensor.name
            continue
        own = onnx.TensorProto()
        own.CopyFrom(tensor)
        own.name = tensor.name if tensor.name not in taken else f"{prefix}.{tensor.name}"
        names[tensor.name] = own.name
        weights[own.name] = own
        outer.initializer.append(own)

    def rename(name: str) -> str:
        return names.setdefault(name, f"{prefix}.{name}") if name else name

    nodes = []
    for node in body.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.name = f"{prefix}.{node.name}"
        copy.input[:] = [rename(name) for name in node.input]
        copy.output[:] = [rename(name) for name in node.output]
        nodes.append(copy)
    return helper.make_graph(
        nodes,
        prefix,
        [_described(given, rename) for given in body.input[len(constants) :]],
        [_described(given, rename) for given in body.output],
    )


def _described(given: onnx.ValueInfoProto, rename: Callable[[str], str]) -> onnx.ValueInfoProto:
    copy = onnx.ValueInfoProto()
    copy.CopyFrom(given)
    copy.name = rename(given.name)
    return copy
