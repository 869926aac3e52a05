"""The exported step gives the same bits with its small tensors in either layout, and most of them change it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from rillcast.bundle.covariates import Covariate
from rillcast_training.export import step_export
from rillcast_training.export.bundle import to_onnx
from rillcast_training.model.layout import batch_last
from tests.support.forecasters import HOUR_MS, random_forecaster, small_config

CONFIGS = {
    "gru": small_config(),
    "lstm, wide": small_config(cell="lstm", hidden=64, horizon=24, seasons=(24, 48), context=48, max_gap=48),
    "nine quantiles": small_config(quantiles=tuple(q / 10 for q in range(1, 10))),
    "one quantile": small_config(quantiles=(0.5,), horizon=1),
    "no calendar": small_config(calendar=False, seasons=(4,)),
    "covariates": small_config(
        covariates=(
            Covariate(name="temp", kind="known", loc=10.0, scale=5.0),
            Covariate(name="day", kind="category", categories=("work", "rest")),
        )
    ),
}


Run = Callable[[Mapping[str, np.ndarray]], list[np.ndarray]]


def loaded(model: onnx.ModelProto) -> Run:
    """Return a function that runs the graph on the inputs that it has."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    return lambda inputs: [np.asarray(value) for value in session.run(None, {name: inputs[name] for name in names})]


def events(model: onnx.ModelProto, batch: int, steps: int) -> Iterator[dict[str, np.ndarray]]:
    """Yield inputs: mostly the next period, with gaps, repeats, late, missing and huge values among them."""
    rng = np.random.default_rng(batch)
    period = np.full(batch, 450_000, np.int64)
    widths = {given.name: [d.dim_value for d in given.type.tensor_type.shape.dim[1:]] for given in model.graph.input}
    for _ in range(steps):
        period = period + rng.choice([1, 1, 1, 1, 1, 3, 0, -2, 40], batch)
        y = rng.normal(100, 10, batch).astype(np.float32)
        y[rng.random(batch) < 0.1] = np.nan
        y[rng.random(batch) < 0.02] = 1e30
        inputs = {
            "slots": np.arange(1, batch + 1),
            "ds": period * HOUR_MS,
            "y": y,
            "calibrate": np.array(1, np.float32),
        }
        for name in {"x", "future"} & widths.keys():
            inputs[name] = rng.integers(0, 3, (batch, *widths[name])).astype(np.float32)
        yield inputs


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("batch", [1, 2, 3, 17])
def test_both_layouts_give_the_same_bits(name: str, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    forecaster = random_forecaster(CONFIGS[name])
    rewritten = to_onnx(forecaster)
    monkeypatch.setattr(step_export, "batch_last", lambda model, _example: model)
    plain = to_onnx(forecaster)
    states = {
        f"state.{spec.name}": np.zeros((batch + 1, *spec.row_shape), spec.dtype) for spec in forecaster.state_specs()
    }
    one_way, other_way = loaded(plain), loaded(rewritten)
    for inputs in events(plain, batch, steps=40):
        before, after = one_way(inputs | states), other_way(inputs | states)
        for output, one, other in zip(plain.graph.output, before, after, strict=True):
            np.testing.assert_array_equal(one, other, err_msg=output.name)
        states = dict(zip(states, after[-len(states) :], strict=True))


def test_broadcasts_over_small_rows_have_the_batch_last(monkeypatch: pytest.MonkeyPatch) -> None:
    week = {"horizon": 24, "seasons": (24, 168), "context": 168, "max_gap": 168, "hidden": 64}
    forecaster = random_forecaster(small_config(**week))

    def row_by_row(model: onnx.ModelProto) -> int:
        """Return how many operators broadcast a number per stream over a stream's small row."""
        described = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
        values = (*described.value_info, *described.input, *described.output)
        shapes = {
            value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim] for value in values
        }
        found = 0
        for node in model.graph.node:
            given = [shapes[name] for name in node.input if len(shapes.get(name, ())) == 2]
            small = any(isinstance(shape[1], int) and 2 <= shape[1] <= 48 for shape in given)
            found += node.op_type in ("Mul", "Div", "Sub", "Add", "Where") and small and ["B", 1] in given
        return found

    rewritten = row_by_row(to_onnx(forecaster))
    monkeypatch.setattr(step_export, "batch_last", lambda model, _example: model)
    assert row_by_row(to_onnx(forecaster)) >= 10
    assert rewritten == 0


def small_graph(
    nodes: Sequence[onnx.NodeProto], constants: Mapping[str, Any], inputs: Mapping[str, Sequence[int]]
) -> onnx.ModelProto:
    """Return a graph from `inputs`, `[B, *shape]` float32 each, to `out`."""
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", *shape]) for name, shape in inputs.items()],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


MOVES: dict[str, tuple[list[onnx.NodeProto], dict[str, Any]]] = {
    "slice": (
        [helper.make_node("Slice", ["s", "a", "b", "axes"], ["t"])],
        {"a": ints(1), "b": ints(6), "axes": ints(1)},
    ),
    "slice from behind": (
        [helper.make_node("Slice", ["s", "a", "b", "axes", "steps"], ["t"])],
        {"a": ints(-1), "b": ints(-8), "axes": ints(-1), "steps": ints(-2)},
    ),
    "split": ([helper.make_node("Split", ["s", "sizes"], ["t", "u"], axis=-1)], {"sizes": ints(5, 3)}),
    "concat": ([helper.make_node("Concat", ["s", "s"], ["t"], axis=1)], {}),
    "a column": ([helper.make_node("Gather", ["s", "at"], ["t"], axis=1)], {"at": np.int64(2)}),
    "columns": ([helper.make_node("Gather", ["s", "at"], ["t"], axis=-1)], {"at": ints(3, 0, 3)}),
    "tile": ([helper.make_node("Tile", ["s", "times"], ["t"])], {"times": ints(1, 3)}),
    "unsqueeze": ([helper.make_node("Unsqueeze", ["s", "axes"], ["t"])], {"axes": ints(-1)}),
    "reshape and transpose": (
        [
            helper.make_node("Reshape", ["s", "shape"], ["r"]),
            helper.make_node("Transpose", ["r"], ["q"], perm=[0, 2, 1]),
            helper.make_node("Flatten", ["q"], ["t"], axis=1),
        ],
        {"shape": ints(-1, 2, 4)},
    ),
    "a row of constants": ([helper.make_node("Mul", ["s", "row"], ["t"])], {"row": np.arange(8, dtype=np.float32)}),
    "a cube of constants": (
        [helper.make_node("Reshape", ["s", "shape"], ["r"]), helper.make_node("Add", ["r", "row"], ["t"])],
        {"shape": ints(-1, 2, 4), "row": np.arange(4, dtype=np.float32).reshape(1, 4)},
    ),
    "a product between": (
        [helper.make_node("MatMul", ["s", "w"], ["m"]), helper.make_node("Mul", ["m", "y"], ["t"])],
        {"w": np.arange(16, dtype=np.float32).reshape(8, 2)},
    ),
    "along the batch": (
        [helper.make_node("Slice", ["s", "a", "b", "axes"], ["t"])],
        {"a": ints(0), "b": ints(1), "axes": ints(0)},
    ),
}


@pytest.mark.parametrize("name", MOVES)
def test_each_operator_moves_the_same_numbers(name: str) -> None:
    """Between two that broadcast, so that the layout changes before it and back after it."""
    nodes, constants = MOVES[name]
    first = helper.make_node("Sub", ["x", "y"], ["s"])
    last = helper.make_node("Neg", ["t"], ["out"])
    model = small_graph([first, *nodes, last], constants, {"x": [8], "y": [1]})

    def example(batch: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(0)
        return {name: rng.normal(size=(batch, size)).astype(np.float32) for name, size in (("x", 8), ("y", 1))}

    rewritten = batch_last(model, example)
    assert any(node.name.endswith(".batch_last") or node.op_type == "Transpose" for node in rewritten.graph.node)
    one_way, other_way = loaded(model), loaded(rewritten)
    for batch in (1, 2, 9):
        np.testing.assert_array_equal(one_way(example(batch))[0], other_way(example(batch))[0])


def test_values_of_shapes_alone_become_constants() -> None:
    class Halves(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            low, high = torch.chunk(torch.relu(x), 2, dim=-1)
            return low - high

    from rillcast_training.export.tracing import trace

    model = trace(Halves(), (torch.zeros(3, 8),), ["x"], ["out"], {"x": {0: "B"}, "out": {0: "B"}})

    def example(batch: int) -> dict[str, np.ndarray]:
        return {"x": np.arange(batch * 8, dtype=np.float32).reshape(batch, 8)}

    rewritten = batch_last(model, example)
    assert not {"Shape", "Constant"} & {node.op_type for node in rewritten.graph.node}
    np.testing.assert_array_equal(loaded(model)(example(4))[0], loaded(rewritten)(example(4))[0])
