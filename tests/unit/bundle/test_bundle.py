from __future__ import annotations

import base64
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from rillcast.bundle import sequence as sequences
from rillcast.bundle.bundle import METADATA_KEY, Bundle, BundleMetadata, StateSpec, model_id, seal
from rillcast.bundle.frequency import Frequency
from rillcast.bundle.sequence import SEQUENCE_KEY
from rillcast.errors import BundleError
from tests.support.state_access import replace_node
from tests.support.toy import ToyGraph, toy_sequence

INFO = helper.make_tensor_value_info


def no_next_state(toy: ToyGraph) -> None:
    toy.outputs = toy.outputs[:2]


def no_state_input(toy: ToyGraph) -> None:
    toy.inputs = toy.inputs[:3]
    toy.initializers.append(numpy_helper.from_array(np.zeros((8, 1), np.int64), "state.sum"))


def undeclared_state(toy: ToyGraph) -> None:
    toy.inputs.append(INFO("state.other", TensorProto.FLOAT, ["N", 1]))


def float_ds(toy: ToyGraph) -> None:
    toy.inputs[1] = INFO("ds", TensorProto.FLOAT, ["B"])
    toy.nodes = [
        n
        for node in toy.nodes
        for n in (
            (helper.make_node("Cast", ["ds"], ["ds_int"], to=TensorProto.INT64), node)
            if "ds" in node.input
            else (node,)
        )
    ]
    for node in toy.nodes:
        if node.op_type == "Mul" and node.input[0] == "ds":
            node.input[0] = "ds_int"


def wrong_horizon(toy: ToyGraph) -> None:
    toy.outputs[0] = INFO("forecast", TensorProto.FLOAT, ["B", 3, 3])


def fixed_batch(toy: ToyGraph) -> None:
    toy.inputs[0] = INFO("slots", TensorProto.INT64, [4])


def no_status(toy: ToyGraph) -> None:
    del toy.outputs[1]


def unknown_input(toy: ToyGraph) -> None:
    toy.inputs.append(INFO("temperature", TensorProto.FLOAT, ["B"]))


def vector_calibrate(toy: ToyGraph) -> None:
    toy.inputs.append(INFO("calibrate", TensorProto.FLOAT, ["B"]))


def vector_bounds(toy: ToyGraph) -> None:
    toy.inputs.append(INFO("bounds", TensorProto.FLOAT, ["B"]))


def integer_calibrate(toy: ToyGraph) -> None:
    toy.inputs.append(INFO("calibrate", TensorProto.INT64, []))


def old_opset(toy: ToyGraph) -> None:
    toy.opset = 11
    for node in toy.nodes:
        if node.op_type == "Unsqueeze":  # its axes were an attribute
            del node.input[1]
            node.attribute.append(helper.make_attribute("axes", [-1]))


def batch_of_three(toy: ToyGraph) -> None:
    """The exporter wrote the example's batch into a constant."""
    toy.initializers.append(numpy_helper.from_array(np.array([3, 1], np.int64), "three"))
    own = helper.make_node("Gather", ["state.sum", "slots"], ["own"], axis=0)
    replace_node(toy, "gather", own, helper.make_node("Reshape", ["own", "three"], ["row"]))


def unknown_output(toy: ToyGraph) -> None:
    toy.nodes.append(helper.make_node("Identity", ["next_row"], ["extra"]))
    toy.outputs.append(INFO("extra", TensorProto.INT64, ["B", 1]))


@pytest.mark.parametrize(
    ("break_it", "clause"),
    [
        (no_next_state, "state-pairs"),
        (no_state_input, "state-pairs"),
        (undeclared_state, "state-pairs"),
        (float_ds, "types"),
        (wrong_horizon, "shapes"),
        (fixed_batch, "shapes"),
        (no_status, "outputs"),
        (old_opset, "operators"),
        (batch_of_three, "shapes"),
        (unknown_input, "inputs"),
        (vector_calibrate, "shapes"),
        (vector_bounds, "shapes"),
        (integer_calibrate, "types"),
        (unknown_output, "outputs"),
    ],
)
def test_broken_graph_is_refused_with_its_clause(break_it: Callable[[ToyGraph], None], clause: str) -> None:
    toy = ToyGraph()
    break_it(toy)
    with pytest.raises(BundleError) as refused:
        toy.build()
    assert refused.value.clause == clause


@pytest.mark.parametrize("name", ["calibrate", "bounds"])
def test_a_bundle_says_whether_its_corrections_can_be_switched(name: str) -> None:
    toy = ToyGraph()
    assert not getattr(Bundle.from_bytes(toy.build()), f"has_{name}")
    toy.inputs.append(INFO(name, TensorProto.FLOAT, []))
    assert getattr(Bundle.from_bytes(toy.build()), f"has_{name}")


@pytest.mark.parametrize(
    ("changes", "clause"),
    [
        ({"schema_version": 2}, "schema-version"),
        ({"surprise": 1}, "metadata"),
        ({"freq": "1 fortnight"}, "metadata"),
        ({"quantiles": [0.5, 0.1, 0.9]}, "metadata"),
        ({"horizon": 0}, "metadata"),
        ({"model_id": "0" * 16}, "model-id"),
        ({"covariates": ["temp"]}, "metadata"),
        ({"covariates": [{"name": "temp", "kind": "future"}]}, "metadata"),
        ({"covariates": [{"name": "temp", "kind": "past", "surprise": 1}]}, "metadata"),
        ({"covariates": [{"name": "temp", "kind": "past", "scale": 0}]}, "metadata"),
        ({"covariates": [{"name": "shop", "kind": "category"}]}, "metadata"),
        ({"covariates": [{"name": "temp", "kind": "past"}, {"name": "temp", "kind": "known"}]}, "metadata"),
        ({"covariates": [{"name": "temp", "kind": "past"}]}, "covariates"),
        ({"scores": ["pinball"]}, "outputs"),
        ({"states": [{"name": "sum", "dtype": "float32", "row_shape": [1]}]}, "types"),
        ({"states": [{"name": "sum", "dtype": "complex64", "row_shape": [1]}]}, "metadata"),
    ],
)
def test_broken_metadata_is_refused_with_its_clause(changes: dict[str, object], clause: str) -> None:
    import json

    model = onnx.load_model_from_string(ToyGraph().build())
    (entry,) = (entry for entry in model.metadata_props if entry.key == METADATA_KEY)
    entry.value = json.dumps(json.loads(entry.value) | changes)
    with pytest.raises(BundleError) as refused:
        Bundle.from_bytes(model.SerializeToString())
    assert refused.value.clause == clause


def test_file_without_metadata_is_refused() -> None:
    with pytest.raises(BundleError) as refused:
        Bundle.from_bytes(ToyGraph().model().SerializeToString())
    assert refused.value.clause == "metadata"


@pytest.mark.parametrize("data", [b"", b"not an onnx file", b"\x08\x0a" * 100])
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(BundleError) as refused:
        Bundle.from_bytes(data)
    assert refused.value.clause == "onnx"


def test_absent_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"absent\.onnx") as refused:
        Bundle.load(tmp_path / "absent.onnx")
    assert refused.value.clause == "readable"


def test_external_data_is_refused(tmp_path: Path) -> None:
    toy = ToyGraph()
    tensor = next(t for t in toy.initializers if t.name == "block")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    with pytest.raises(BundleError) as refused:
        toy.build()
    assert refused.value.clause == "external-data"


def test_foreign_operators_are_refused() -> None:
    toy = ToyGraph()
    toy.nodes.append(helper.make_node("RunShell", ["y"], ["shell"], domain="evil.example"))
    model = toy.model()
    model.opset_import.append(helper.make_opsetid("evil.example", 1))
    with pytest.raises(BundleError) as refused:
        seal(model, toy.metadata())
    assert refused.value.clause == "operators"


def test_model_id_names_the_graph_and_not_the_metadata() -> None:
    toy = ToyGraph()
    one = Bundle.from_bytes(seal(toy.model(), toy.metadata())).metadata
    renamed = Bundle.from_bytes(seal(toy.model(), toy.metadata().model_copy(update={"name": "other"}))).metadata
    toy.initializers[0] = numpy_helper.from_array(np.array(32, np.int64), "multiplier")
    changed = Bundle.from_bytes(toy.build()).metadata
    assert one.model_id == renamed.model_id != changed.model_id


def test_metadata_survives_the_file(tmp_path: Path) -> None:
    toy = ToyGraph()
    metadata = toy.metadata().model_copy(update={"training": {"series": 3}, "backtest": {"mase": 0.9}})
    path = tmp_path / "toy.onnx"
    path.write_bytes(seal(toy.model(), metadata))
    loaded = Bundle.load(path)
    assert loaded.metadata == metadata.model_copy(update={"model_id": loaded.metadata.model_id})
    assert loaded.metadata.frequency == Frequency(3_600_000)
    assert loaded.metadata.row_bytes == 8


@pytest.mark.parametrize(("freq", "spelling"), [("60min", "60min"), ("H", "1h"), ("QS", "3mo"), ("1y", "12mo")])
def test_a_frequency_has_one_spelling_in_records(freq: str, spelling: str) -> None:
    spec = StateSpec(name="a", dtype="float32", row_shape=(1,))
    found = BundleMetadata(name="x", cell="x", freq=freq, horizon=1, quantiles=(0.5,), states=(spec,))
    assert found.freq == spelling


def test_state_specs_count_bytes() -> None:
    assert StateSpec(name="lags", dtype="float16", row_shape=(168, 2)).row_bytes == 672


def test_repeated_state_names_are_refused() -> None:
    spec = StateSpec(name="a", dtype="float32", row_shape=(1,))
    with pytest.raises(ValueError, match="repeat"):
        BundleMetadata(name="x", cell="x", freq="1h", horizon=1, quantiles=(0.5,), states=(spec, spec))


def sealed_with(sequence: onnx.ModelProto) -> bytes:
    toy = ToyGraph()
    return seal(toy.model(), toy.metadata(), sequence)


def test_a_sequence_graph_is_stored_in_the_same_file_and_shares_its_weights() -> None:
    data = sealed_with(toy_sequence())
    bundle = Bundle.from_bytes(data)
    assert bundle.sequence is not None
    second = onnx.load_model_from_string(bundle.sequence.model)
    assert {value.name for value in second.graph.input} == {"slots", "ds", "y", "state.sum"}
    step = onnx.load_model_from_string(data)
    shared = {tensor.name for tensor in step.graph.initializer} & {tensor.name for tensor in second.graph.initializer}
    assert "modulus" in shared
    (entry,) = (entry.value for entry in step.metadata_props if entry.key == SEQUENCE_KEY)
    packed = onnx.load_model_from_string(zlib.decompress(base64.b64decode(entry)))
    assert not shared & {tensor.name for tensor in packed.graph.initializer} - {"block"}
    assert bundle.metadata.model_id != Bundle.from_bytes(ToyGraph().build()).metadata.model_id


def without_regular(model: onnx.ModelProto) -> None:
    kept = [output for output in model.graph.output if output.name != "regular"]
    del model.graph.output[:]
    model.graph.output.extend(kept)


def steps_one_event(model: onnx.ModelProto) -> None:
    model.graph.input[1].CopyFrom(INFO("ds", TensorProto.INT64, ["B"]))


def a_file_read_in_the_scan(model: onnx.ModelProto) -> None:
    (scan,) = (node for node in model.graph.node if node.op_type == "Scan")
    tensor = numpy_helper.from_array(np.zeros(1, np.float32), "secret")
    tensor.external_data.add(key="location", value="/etc/passwd")
    scan.attribute[0].g.node.append(helper.make_node("Constant", [], ["secret"], value=tensor))


@pytest.mark.parametrize(
    ("broken", "clause"),
    [
        (without_regular, "outputs"),
        (steps_one_event, "shapes"),
        (a_file_read_in_the_scan, "external-data"),
    ],
)
def test_a_broken_sequence_graph_is_refused_by_its_clause(
    broken: Callable[[onnx.ModelProto], None], clause: str
) -> None:
    sequence = toy_sequence()
    broken(sequence)
    with pytest.raises(BundleError, match="sequence graph") as caught:
        sealed_with(sequence)
    assert caught.value.clause == clause


@pytest.mark.parametrize(
    "entry", ["not base64!", "\u20ac", "AAAA", base64.b64encode(zlib.compress(b"\xff" * 20)).decode()]
)
def test_a_damaged_sequence_entry_is_refused(entry: str) -> None:
    toy = ToyGraph()
    model = toy.model()
    model.metadata_props.add(key=SEQUENCE_KEY, value=entry)
    document = toy.metadata().model_copy(update={"model_id": model_id(model)}).model_dump_json()
    model.metadata_props.add(key=METADATA_KEY, value=document)
    with pytest.raises(BundleError, match="cannot be read") as caught:
        Bundle.from_bytes(model.SerializeToString())
    assert caught.value.clause == "sequence"


def test_a_sequence_graph_that_inflates_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequences, "MAX_SEQUENCE_BYTES", 100)
    with pytest.raises(BundleError, match="more than 100 bytes"):
        sealed_with(toy_sequence())


def test_a_result_of_a_sequence_graph_may_have_the_name_of_a_weight_of_the_step() -> None:
    """The tracer numbers the values of both graphs, each from one."""
    sequence = toy_sequence()
    for node in sequence.graph.node:
        node.output[:] = ["modulus" if name == "as_block" else name for name in node.output]
        node.input[:] = ["modulus" if name == "as_block" else name for name in node.input]
        for attribute in node.attribute:
            for inner in attribute.g.node:  # which reads the weight
                inner.input[:] = ["seven" if name == "modulus" else name for name in inner.input]
    own = [tensor for tensor in sequence.graph.initializer if tensor.name != "modulus"]
    del sequence.graph.initializer[:]
    sequence.graph.initializer.extend(own)
    bundle = Bundle.from_bytes(sealed_with(sequence))
    assert bundle.sequence is not None
    second = onnx.load_model_from_string(bundle.sequence.model)
    assert "modulus" not in {tensor.name for tensor in second.graph.initializer}


def test_another_sequence_graph_is_another_model() -> None:
    model = onnx.load_model_from_string(sealed_with(toy_sequence()))
    (entry,) = (entry for entry in model.metadata_props if entry.key == SEQUENCE_KEY)
    other = toy_sequence()
    other.graph.doc_string = "changed"
    entry.value = base64.b64encode(zlib.compress(other.SerializeToString())).decode()
    with pytest.raises(BundleError) as caught:
        Bundle.from_bytes(model.SerializeToString())
    assert caught.value.clause == "model-id"
