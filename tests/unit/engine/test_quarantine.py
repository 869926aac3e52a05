"""Quarantine: one stream's unusable step changes neither that stream nor any other."""

from __future__ import annotations

import json

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from rillcast.bundle.bundle import Bundle, BundleMetadata, StateSpec, seal
from rillcast.engine import quarantine
from rillcast.engine.batcher import Batching
from rillcast.engine.device import Device
from rillcast.engine.step_engine import Outcome, StepEngine
from rillcast.events import EventBatch
from rillcast.transports.base import Channel
from tests.support import workers
from tests.support.memory import Log
from tests.support.workers import observation


def product_bundle(dtype: str = "float32") -> Bundle:
    """A model that can overflow: its state and forecast are the product of its observations (zero counts as 1)."""
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    node, info = helper.make_node, helper.make_tensor_value_info
    nodes = [
        node("Gather", ["state.p", "slots"], ["row"], axis=0),
        node("Equal", ["row", "zero"], ["is_new"]),
        node("Where", ["is_new", "one", "row"], ["before"]),
        node("Cast", ["y"], ["y_cast"], to=element),
        node("Unsqueeze", ["y_cast", "axis"], ["y_column"]),
        node("Mul", ["before", "y_column"], ["next"]),
        node("Unsqueeze", ["slots", "axis"], ["rows"]),
        node("ScatterND", ["state.p", "rows", "next"], ["state.p.next"]),
        node("Cast", ["next"], ["as_float"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["as_float", "axis"], ["forecast"]),
        node("Mul", ["ds", "no"], ["nothing"]),
        node("Cast", ["nothing"], ["status"], to=TensorProto.INT8),
    ]
    constants = {
        "zero": np.zeros(1, dtype),
        "one": np.ones(1, dtype),
        "axis": np.array([-1], np.int64),
        "no": np.array(0, np.int64),
    }
    graph = helper.make_graph(
        nodes,
        "product",
        [
            info("slots", TensorProto.INT64, ["B"]),
            info("ds", TensorProto.INT64, ["B"]),
            info("y", TensorProto.FLOAT, ["B"]),
            info("state.p", element, ["N", 1]),
        ],
        [
            info("forecast", TensorProto.FLOAT, ["B", 1, 1]),
            info("status", TensorProto.INT8, ["B"]),
            info("state.p.next", element, ["N", 1]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    metadata = BundleMetadata(
        name="product", cell="toy", freq="1h", horizon=1, quantiles=(0.5,),
        states=(StateSpec(name="p", dtype=dtype, row_shape=(1,)),),
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return Bundle.from_bytes(seal(model, metadata))


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -1e38, 3e37])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("buckets", [(), (1, 4, 16)])
@pytest.mark.parametrize("branches", [True, False])
def test_a_poisoned_stream_is_unchanged_and_its_neighbours_advance(
    poison: float, dtype: str, buckets: tuple[int, ...], branches: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = quarantine.add
    monkeypatch.setattr(quarantine, "add", lambda model, states, **_: add(model, states, branches=branches))
    engine = StepEngine(product_bundle(dtype), Device("cpu"), batching=Batching(16, buckets))
    ids = ["a", "poisoned", "b"]
    offset = 0

    def step(values: list[float]) -> tuple[list[int], list[float]]:
        nonlocal offset
        offset += 3
        ds, y = np.zeros(3, np.int64), np.array(values, np.float32)
        result = engine.step(EventBatch.of(ids, ds, y, first_offset=offset))
        return result.outcome.tolist(), result.forecast[:, 0, 0].tolist()

    assert step([2, 3, 5]) == ([Outcome.STEPPED] * 3, [2, 3, 5])
    outcome, forecast = step([2, poison, 2])
    assert outcome == [Outcome.STEPPED, Outcome.QUARANTINED, Outcome.STEPPED]
    assert (forecast[0], forecast[2]) == (4, 10)
    assert step([2, 2, 2]) == ([Outcome.STEPPED] * 3, [8, 6, 20]), "the poisoned stream goes on from its last good row"


def test_a_quarantined_event_becomes_a_dead_letter() -> None:
    log = Log({0: [(None, observation(i, y)) for i, y in [("a", 2), ("a", 1e15), ("a", 1e15), ("b", 7), ("a", 3)]]})
    harness = workers.build(log, bundle=product_bundle())
    harness.worker.run()
    medians = [json.loads(v)["quantiles"]["0.5"][0] for _, v, _ in log.published[Channel.FORECASTS]]
    assert medians == [2, pytest.approx(2e15), 7, pytest.approx(6e15)]
    (letter,) = log.published[Channel.DEAD_LETTERS]
    assert dict(letter[2])["rillcast-reason"] == b"quarantined"
    assert harness.metric("rillcast_dead_letters_total", reason="quarantined") == 1


def test_quarantine_does_not_change_usable_steps() -> None:
    from tests.support.toy import toy_bundle, unroll

    engine = StepEngine(toy_bundle(), Device("cpu"))
    y = np.arange(1, 40, dtype=np.float32)
    result = engine.step(EventBatch.of(["a"] * y.size, np.zeros(y.size, np.int64), y))
    assert result.forecast[:, 0, 0].astype(int).tolist() == unroll(range(1, 40))
