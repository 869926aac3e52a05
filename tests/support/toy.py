"""The toy bundle: built from the contract alone, exact in integers.

Its state is `(31 * state + y) mod 1_000_003` in int64 with `y` a whole number > 0, so that one observation lost,
doubled, swapped or out of order changes every answer after it. Its forecast is the state itself (below 2**24, so
exact in float32), for every horizon and quantile. With `alarms`, an alarm is open while the state is 1 modulo 8.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from rillcast.bundle.bundle import Bundle, BundleMetadata, StateSpec, seal

MULTIPLIER = 31
HOUR_MS = 3_600_000
MODULUS = 1_000_003
ALARM_EVERY = 8
HORIZON = 2
QUANTILES = (0.1, 0.5, 0.9)


def unroll(observations: Iterable[int], multiplier: int = MULTIPLIER) -> list[int]:
    """Return the state after each observation of one stream, which is what every consumer has to see."""
    states, state = [], 0
    for y in observations:
        state = (multiplier * state + y) % MODULUS
        states.append(state)
    return states


@dataclass
class ToyGraph:
    """The parts of the toy model, to be broken one at a time by tests before `build`."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    outputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)
    multiplier: int = MULTIPLIER
    opset: int = 18
    alarms: bool = False

    def __post_init__(self) -> None:
        info = helper.make_tensor_value_info
        self.inputs = [
            info("slots", TensorProto.INT64, ["B"]),
            info("ds", TensorProto.INT64, ["B"]),
            info("y", TensorProto.FLOAT, ["B"]),
            info("state.sum", TensorProto.INT64, ["N", 1]),
        ]
        self.outputs = [
            info("forecast", TensorProto.FLOAT, ["B", HORIZON, len(QUANTILES)]),
            info("status", TensorProto.INT8, ["B"]),
            info("state.sum.next", TensorProto.INT64, ["N", 1]),
        ]
        constants: dict[str, npt.NDArray[Any]] = {
            "multiplier": np.array(self.multiplier, np.int64),
            "modulus": np.array(MODULUS, np.int64),
            "last_axis": np.array([-1], np.int64),
            "block": np.ones((1, HORIZON, len(QUANTILES)), np.float32),
            "zero": np.array(0, np.int64),
        }
        self.initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
        node = helper.make_node
        self.nodes = [
            node("Gather", ["state.sum", "slots"], ["row"], name="gather", axis=0),
            node("Cast", ["y"], ["y_int"], to=TensorProto.INT64),
            node("Unsqueeze", ["y_int", "last_axis"], ["y_column"]),
            node("Mul", ["row", "multiplier"], ["scaled"]),
            node("Add", ["scaled", "y_column"], ["sum"]),
            node("Mod", ["sum", "modulus"], ["next_row"]),
            node("Unsqueeze", ["slots", "last_axis"], ["rows"]),
            node("ScatterND", ["state.sum", "rows", "next_row"], ["state.sum.next"], name="scatter"),
            node("Cast", ["next_row"], ["as_float"], to=TensorProto.FLOAT),
            node("Unsqueeze", ["as_float", "last_axis"], ["as_block"]),
            node("Mul", ["as_block", "block"], ["forecast"]),
            # Every event is OK; `ds` is read because some tools drop a graph input that nothing reads.
            node("Mul", ["ds", "zero"], ["no_status"]),
            node("Cast", ["no_status"], ["status"], to=TensorProto.INT8),
        ]

        if self.alarms:
            self._add_alarms()

    def _add_alarms(self) -> None:
        """Add the output `alarm`: phase, kind, and the state as strength and values."""
        node, named = helper.make_node, {"one": 1, "two": 2, "three": 3, "every": ALARM_EVERY}
        self.initializers += [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in named.items()]
        for state, flag in (("row", "was"), ("next_row", "is")):
            self.nodes += [
                node("Mod", [state, "every"], [f"{flag}_rest"]),
                node("Equal", [f"{flag}_rest", "one"], [f"{flag}_open"]),
                node("Cast", [f"{flag}_open"], [flag], to=TensorProto.INT64),
            ]
        self.nodes += [
            # is + 3 was - 2 is was: 1 = opens, 2 = open, 3 = closes
            node("Mul", ["was", "three"], ["thrice"]),
            node("Mul", ["is", "was"], ["both"]),
            node("Mul", ["both", "two"], ["twice"]),
            node("Add", ["is", "thrice"], ["at_most"]),
            node("Sub", ["at_most", "twice"], ["phase"]),
            node("Greater", ["phase", "zero"], ["has_alarm"]),
            node("Cast", ["has_alarm"], ["has"], to=TensorProto.INT64),
            node("Mul", ["next_row", "has"], ["said"]),
            node("Mul", ["has", "zero"], ["none"]),
            node("Concat", ["phase", "has", "said", "none", "none", "said", "said", "has"], ["alarm_row"], axis=1),
            node("Cast", ["alarm_row"], ["alarm"], to=TensorProto.FLOAT),
        ]
        self.outputs.append(helper.make_tensor_value_info("alarm", TensorProto.FLOAT, ["B", 8]))

    def model(self) -> onnx.ModelProto:
        graph = helper.make_graph(self.nodes, "toy", self.inputs, self.outputs, self.initializers)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=10)

    def metadata(self) -> BundleMetadata:
        return BundleMetadata(
            name="toy",
            cell="toy",
            freq="1h",
            horizon=HORIZON,
            quantiles=QUANTILES,
            states=(StateSpec(name="sum", dtype="int64", row_shape=(1,)),),
        )

    def build(self) -> bytes:
        return seal(self.model(), self.metadata())


def toy_sequence(multiplier: int = MULTIPLIER) -> onnx.ModelProto:
    """Return the toy's sequence graph: a scan over the events of each stream.

    It accepts a run only if its events lie in consecutive hours and none is a multiple of 7, so that tests see refused
    runs; its output for a refused run is garbage.
    """
    info, node = helper.make_tensor_value_info, helper.make_node
    body = helper.make_graph(
        [
            node("Mul", ["before", "multiplier"], ["scaled"]),
            node("Add", ["scaled", "y_now"], ["sum"]),
            node("Mod", ["sum", "modulus"], ["after"]),
            node("Identity", ["after"], ["seen"]),
        ],
        "advance",
        [info("before", TensorProto.INT64, ["B", 1]), info("y_now", TensorProto.INT64, ["B", 1])],
        [info("after", TensorProto.INT64, ["B", 1]), info("seen", TensorProto.INT64, ["B", 1])],
    )
    nodes = [
        node("Gather", ["state.sum", "slots"], ["row"], axis=0),
        node("Cast", ["y"], ["y_int"], to=TensorProto.INT64),
        node("Unsqueeze", ["y_int", "last_axis"], ["y_column"]),
        node("Scan", ["row", "y_column"], ["next_row", "states"], body=body, num_scan_inputs=1,
             scan_input_axes=[1], scan_output_axes=[1]),
        node("Unsqueeze", ["slots", "last_axis"], ["rows"]),
        node("ScatterND", ["state.sum", "rows", "next_row"], ["state.sum.next"]),
        node("Cast", ["states"], ["as_float"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["as_float", "last_axis"], ["as_block"]),
        node("Mul", ["as_block", "block"], ["forecast"]),
        node("Mul", ["ds", "zero"], ["no_status"]),
        node("Cast", ["no_status"], ["status"], to=TensorProto.INT8),
        node("Slice", ["ds", "from_second", "to_end", "axis_1"], ["later"]),
        node("Slice", ["ds", "from_first", "to_last", "axis_1"], ["earlier"]),
        node("Sub", ["later", "earlier"], ["gaps"]),
        node("Equal", ["gaps", "hour"], ["consecutive"]),
        node("Mod", ["y_int", "seven"], ["rest"]),
        node("Cast", ["rest"], ["welcome"], to=TensorProto.BOOL),
        node("Concat", ["consecutive", "welcome"], ["each"], axis=1),
        node("Cast", ["each"], ["each_int"], to=TensorProto.INT32),
        node("ReduceMin", ["each_int", "axis_1"], ["least"], keepdims=0),
        node("Cast", ["least"], ["regular"], to=TensorProto.BOOL),
    ]  # fmt: skip
    constants: dict[str, npt.NDArray[Any]] = {
        "multiplier": np.array(multiplier, np.int64),
        "modulus": np.array(MODULUS, np.int64),
        "last_axis": np.array([-1], np.int64),
        "axis_1": np.array([1], np.int64),
        "from_first": np.array([0], np.int64),
        "from_second": np.array([1], np.int64),
        "to_last": np.array([-1], np.int64),
        "to_end": np.array([2**31], np.int64),
        "hour": np.array(HOUR_MS, np.int64),
        "seven": np.array(7, np.int64),
        "block": np.ones((1, 1, HORIZON, len(QUANTILES)), np.float32),
        "zero": np.array(0, np.int64),
    }
    graph = helper.make_graph(
        nodes,
        "toy.sequence",
        [
            info("slots", TensorProto.INT64, ["B"]),
            info("ds", TensorProto.INT64, ["B", "T"]),
            info("y", TensorProto.FLOAT, ["B", "T"]),
            info("state.sum", TensorProto.INT64, ["N", 1]),
        ],
        [
            info("forecast", TensorProto.FLOAT, ["B", "T", HORIZON, len(QUANTILES)]),
            info("status", TensorProto.INT8, ["B", "T"]),
            info("regular", TensorProto.BOOL, ["B"]),
            info("state.sum.next", TensorProto.INT64, ["N", 1]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def toy_bundle(*, sequence: bool = False, multiplier: int = MULTIPLIER, alarms: bool = False) -> Bundle:
    """Return the loaded toy, with or without sequence graph and alarms; another multiplier makes another model."""
    toy = ToyGraph(multiplier=multiplier, alarms=alarms)
    return Bundle.from_bytes(seal(toy.model(), toy.metadata(), toy_sequence(multiplier) if sequence else None))


def write_toy(path: Path, multiplier: int = MULTIPLIER, *, alarms: bool = False) -> Path:
    """Write the toy to a file and return its path."""
    path.write_bytes(ToyGraph(multiplier=multiplier, alarms=alarms).build())
    return path
