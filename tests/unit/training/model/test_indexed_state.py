"""An event reads and writes the entries of a stream's forecasts that it needs, and no other."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from rillcast.arrays import AnyArray
from rillcast.bundle.bundle import Bundle
from rillcast.engine import quarantine
from rillcast.engine.device import Device
from rillcast.engine.step_engine import Outcome, StepEngine
from rillcast.events import EventBatch
from rillcast_training.export.bundle import export, to_onnx
from rillcast_training.model.indexed_state import put, take
from tests.support.forecasters import HOUR_MS, brief_parity, random_forecaster, small_config


def test_take_returns_values_that_were_put_and_put_leaves_the_rest() -> None:
    table = torch.arange(2 * 3 * 2, dtype=torch.float32).reshape(2, 3, 2)
    entries = torch.tensor([[[1, 0], [1, 2]], [[0, 1], [0, 2]]])
    assert take(table, entries).tolist() == [[[6, 7], [10, 11]], [[2, 3], [4, 5]]]
    changed = put(table, entries, torch.zeros(2, 2, 2))
    assert changed.flatten().nonzero().flatten().tolist() == [1, 8, 9]
    assert table[1, 2].tolist() == [10, 11]


def test_the_exported_step_reads_and_writes_forecasts_at_entries() -> None:
    model = to_onnx(random_forecaster(small_config()))
    readers = {node.op_type: node for node in model.graph.node if "state.probes" in node.input}
    assert readers.keys() == {"GatherND", "ScatterND"}
    assert list(readers["ScatterND"].output) == ["state.probes.next"]
    assert "row" not in {name for node in model.graph.node for name in node.input}


def test_an_event_changes_the_entries_of_its_period_alone() -> None:
    forecaster = random_forecaster(small_config())
    tracker, model = forecaster.tracker, to_onnx(forecaster)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    probes = [output.name for output in session.get_outputs()].index("state.probes.next")
    states: dict[str, AnyArray] = {
        f"state.{spec.name}": np.full((9, *spec.row_shape), 7, spec.dtype) for spec in forecaster.state_specs()
    }
    period = 450_001
    states["state.clock"][:] = period - 1, 40
    event = {"slots": np.array([5, 2]), "ds": np.full(2, period * HOUR_MS), "y": np.ones(2, np.float32)}
    (after,) = session.run(
        [session.get_outputs()[probes].name], event | states | {"calibrate": np.array(1, np.float32)}
    )
    changed = (after != 7).any(axis=2)
    assert sorted(np.flatnonzero(changed.any(axis=1))) == [2, 5]
    issued = sorted(tracker.issued[period % tracker.repeat].tolist())
    assert [np.flatnonzero(changed[row]).tolist() for row in (2, 5)] == [issued, issued]


@pytest.mark.parametrize("branches", [True, False])
def test_a_quarantined_event_changes_no_entry(
    branches: bool, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path_factory.mktemp("bundle") / "model.onnx"
    with brief_parity():
        export(random_forecaster(small_config()), path, name="small")
    add = quarantine.add
    monkeypatch.setattr(quarantine, "add", lambda model, states, **_: add(model, states, branches=branches))
    engine, ids = StepEngine(Bundle.load(path), Device("cpu")), ["a", "poisoned", "b"]

    def step(period: int, y: list[float]) -> list[int]:
        ds = np.full(3, (450_000 + period) * HOUR_MS)
        result = engine.step(EventBatch.of(ids, ds, np.array(y, np.float32), first_offset=period * 3))
        return [int(outcome) for outcome in result.outcome]

    def rows() -> dict[str, AnyArray]:
        (page,) = engine.residents.export(0, 0)
        at = [page.unique_ids.index(name) for name in ids]
        return {name: values[at] for name, values in page.rows.items()}

    for period in range(20):
        assert step(period, [period, period + 1, period + 2]) == [Outcome.STEPPED] * 3
    before = rows()
    assert step(20, [1, 1e25, 2]) == [Outcome.STEPPED, Outcome.QUARANTINED, Outcome.STEPPED]
    after = rows()
    for name, values in before.items():
        np.testing.assert_array_equal(after[name][1], values[1], err_msg=name)
    assert (after["probes"][[0, 2]] != before["probes"][[0, 2]]).any(axis=(1, 2)).all()


def test_indices_of_the_lags_stay_short() -> None:
    model = to_onnx(random_forecaster(small_config()))
    described = onnx.shape_inference.infer_shapes(model).graph
    types = {value.name: value.type.tensor_type.elem_type for value in described.value_info}
    (lags,) = (
        node
        for node in model.graph.node
        if node.op_type == "GatherElements" and types[node.input[1]] == onnx.TensorProto.INT32
    )
    assert lags.input[0] != "state.lags.rows", "the newest value is joined before them"
