"""What passes the dry run is served with the results of plain ONNX Runtime; the rest is refused with its clause."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from rillcast.bundle.bundle import Bundle, BundleMetadata, StateSpec, seal
from rillcast.cli import main
from rillcast.engine import dry_run, quarantine
from rillcast.engine.batcher import Batching
from rillcast.engine.device import Device
from rillcast.engine.step_engine import Outcome, StepEngine
from rillcast.errors import BundleError, DeviceError
from rillcast.events import EventBatch
from tests.support.state_access import (
    REFUSED,
    TORCH_WAYS,
    at_places,
    control_flow,
    gathered_twice,
    next_state_read_again,
    scatter_adds,
    state_read_otherwise,
)
from tests.support.toy import HOUR_MS, ToyGraph, toy_sequence, unroll

SERVED = [
    *TORCH_WAYS,
    at_places,
    gathered_twice,
    state_read_otherwise,
    scatter_adds,
    next_state_read_again,
    control_flow,
]


@pytest.mark.parametrize("change", SERVED)
@pytest.mark.parametrize("buckets", [(), (2, 8)])
def test_every_way_to_index_the_state_is_served(change: Callable[[ToyGraph], None], buckets: tuple[int, ...]) -> None:
    toy = ToyGraph()
    change(toy)
    engine = StepEngine(Bundle.from_bytes(toy.build()), Device("cpu"), batching=Batching(8, buckets))
    seen: dict[str, list[int]] = {}
    for number, streams in enumerate(("abc", "d", "bcdea", "aec")):
        n = len(streams)
        y = np.arange(1, n + 1, dtype=np.float32)
        result = engine.step(EventBatch.of(list(streams), np.full(n, number * HOUR_MS), y, first_offset=10 * number))
        assert (result.outcome == Outcome.STEPPED).all()
        for stream, value, state in zip(streams, y.tolist(), result.forecast[:, 0, 0].tolist(), strict=True):
            seen.setdefault(stream, []).append(int(value))
            assert state == unroll(seen[stream])[-1]


@pytest.mark.parametrize(("change", "clause"), REFUSED)
def test_a_graph_that_cannot_be_served_is_refused_by_inspect_and_by_the_engine(
    change: Callable[[ToyGraph], None], clause: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toy = ToyGraph()
    change(toy)
    path = tmp_path / "broken.onnx"
    path.write_bytes(toy.build())
    with pytest.raises(BundleError) as refused:
        StepEngine(Bundle.load(path), Device("cpu"))
    assert refused.value.clause == clause
    for command in (["inspect", str(path)], ["model", "push", str(tmp_path / "registry"), str(path)]):
        assert main(command) == 3, command
        error = capsys.readouterr().err
        assert f"bundle refused [{clause}]" in error
        assert "Traceback" not in error


def lstm(opset: int, dtype: str = "float32") -> onnx.ModelProto:
    """Return a user's LSTM, the same in opsets 13 to 23; with float16 states its weights stay float32."""
    node, info, rng = helper.make_node, helper.make_tensor_value_info, np.random.default_rng(0)
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    nodes = [node("Unsqueeze", ["slots", "last"], ["rows"]), node("Unsqueeze", ["y", "last"], ["y1"]),
             node("Unsqueeze", ["y1", "last"], ["y2"])]  # fmt: skip
    for name in "hc":
        nodes.append(node("Gather", [f"state.{name}", "slots"], [f"{name}_row"], axis=0))
        nodes.append(node("Unsqueeze", [f"{name}_row", "first"], [f"{name}_layer"]))
    nodes.append(node("Transpose", ["y2"], ["sequence"], perm=[1, 0, 2]))
    nodes.append(
        node("LSTM", ["sequence", "w", "r", "b", "", "h_layer", "c_layer"], ["all", "h_last", "c_last"], hidden_size=4)
    )
    for name in "hc":
        nodes.append(node("Squeeze", [f"{name}_last", "first"], [f"{name}_next"]))
        nodes.append(node("ScatterND", [f"state.{name}", "rows", f"{name}_next"], [f"state.{name}.next"]))
    nodes += [
        node("MatMul", ["h_next", "head"], ["flat"]),
        node("Reshape", ["flat", "shape"], ["forecast"]),
        node("Mul", ["ds", "zero"], ["zeros"]),
        node("Cast", ["zeros"], ["status"], to=TensorProto.INT8),
    ]
    weights = {"w": (1, 16, 1), "r": (1, 16, 4), "b": (1, 32), "head": (4, 6)}
    constants = {"last": [-1], "first": [0], "shape": [-1, 2, 3], "zero": 0}
    initializers = [
        *(numpy_helper.from_array(rng.normal(0, 0.3, shape).astype(np.float32), n) for n, shape in weights.items()),
        *(numpy_helper.from_array(np.array(value, np.int64), name) for name, value in constants.items()),
    ]
    inputs = [
        info("slots", TensorProto.INT64, ["B"]),
        info("ds", TensorProto.INT64, ["B"]),
        info("y", TensorProto.FLOAT, ["B"]),
        *(info(f"state.{name}", element, ["N", 4]) for name in "hc"),
    ]
    outputs = [
        info("forecast", TensorProto.FLOAT, ["rows", "steps", "levels"]),
        info("status", TensorProto.INT8, ["any"]),
        *(info(f"state.{name}.next", element, ["N", f"{name}_size"]) for name in "hc"),
    ]
    graph = helper.make_graph(nodes, "lstm", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def sealed_lstm(opset: int, dtype: str = "float32") -> bytes:
    states = tuple(StateSpec(name=name, dtype=dtype, row_shape=(4,)) for name in "hc")
    metadata = BundleMetadata(name="lstm", cell="lstm", freq="1h", horizon=2, quantiles=(0.1, 0.5, 0.9), states=states)
    return seal(lstm(opset, dtype), metadata)


@pytest.mark.parametrize("opset", [13, 14, 15, 16, 17, 18, 20, 23])
@pytest.mark.parametrize("branches", [True, False])
def test_opsets_and_symbolic_outputs_are_served(opset: int, branches: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    add = quarantine.add
    monkeypatch.setattr(quarantine, "add", lambda model, states, **_: add(model, states, branches=branches))
    dry_run._passed.clear()
    engine = StepEngine(Bundle.from_bytes(sealed_lstm(opset)), Device("cpu"))
    session = ort.InferenceSession(lstm(opset).SerializeToString(), providers=["CPUExecutionProvider"])
    h, c = np.zeros((3, 4), np.float32), np.zeros((3, 4), np.float32)
    slots = np.array([1, 2])
    for step in range(4):
        ds, y = np.full(2, step * HOUR_MS), np.array([step, 3 - step], np.float32)
        inputs = {"slots": slots, "ds": ds, "y": y, "state.h": h, "state.c": c}
        expected, h, c = session.run(["forecast", "state.h.next", "state.c.next"], inputs)
        result = engine.step(EventBatch.of(["a", "b"], ds, y, first_offset=2 * step))
        assert (result.outcome == Outcome.STEPPED).all()
        np.testing.assert_allclose(result.forecast, expected, rtol=1e-5)


def test_float16_states_with_float32_weights_are_refused() -> None:
    with pytest.raises(BundleError, match="float16") as refused:
        dry_run.check(Bundle.from_bytes(sealed_lstm(17, "float16")))
    assert refused.value.clause == "runs"


def test_the_sequence_graph_is_run_too() -> None:
    toy, sequence = ToyGraph(), toy_sequence()
    dry_run.check(Bundle.from_bytes(seal(toy.model(), toy.metadata(), sequence)))
    scan = next(node for node in sequence.graph.node if node.op_type == "Scan")
    scan.input[1] = "as_two"
    at = list(sequence.graph.node).index(scan)
    sequence.graph.node.insert(at, helper.make_node("Reshape", ["y_column", "two_streams"], ["as_two"]))
    sequence.graph.initializer.append(numpy_helper.from_array(np.array([2, -1, 1], np.int64), "two_streams"))
    with pytest.raises(BundleError, match="sequence graph") as refused:
        dry_run.check(Bundle.from_bytes(seal(toy.model(), toy.metadata(), sequence)))
    assert refused.value.clause == "shapes"


def test_a_bundle_is_run_once_in_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = Bundle.from_bytes(ToyGraph(multiplier=37).build())
    dry_run.check(bundle)
    monkeypatch.setattr(Device, "session", None)
    dry_run.check(bundle)


def test_own_bundles_need_no_dry_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Device, "session", None)
    dry_run.check(Bundle.load("universal:1h"))


def test_a_fault_that_the_trial_cannot_see_ends_with_an_error_of_ours() -> None:
    """Only `y` above 1000 makes this graph read a row that does not exist."""
    toy = ToyGraph()
    toy.initializers.append(numpy_helper.from_array(np.array(1_000, np.int64), "thousand"))
    toy.initializers.append(numpy_helper.from_array(np.zeros((2, 1), np.int64), "table"))
    add = next(node for node in toy.nodes if "sum" in node.output)
    add.input[1] = "y_shifted"
    at = toy.nodes.index(add)
    toy.nodes[at:at] = [
        helper.make_node("Div", ["y_int", "thousand"], ["thousands"]),
        helper.make_node("Gather", ["table", "thousands"], ["nothing"], axis=0),
        helper.make_node("Add", ["y_column", "nothing"], ["y_shifted"]),
    ]
    engine = StepEngine(Bundle.from_bytes(toy.build()), Device("cpu"))
    with pytest.raises(DeviceError, match="cannot step 1 streams on cpu"):
        engine.step(EventBatch.of(["a"], np.zeros(1, np.int64), np.array([9_000], np.float32)))
