"""Covariates give the same results in PyTorch, ONNX's reference and ONNX Runtime, by step and in runs."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from rillcast.arrays import AnyArray, FloatArray
from rillcast.bundle.bundle import Bundle, model_id, seal
from rillcast.bundle.covariates import Covariate
from rillcast.bundle.frequency import Frequency
from rillcast.engine.batcher import Batching, Runs
from rillcast.engine.device import Device
from rillcast.engine.late import AllowedLateness
from rillcast.engine.step_engine import StepEngine, StepResult
from rillcast.errors import BundleError
from rillcast.events import EventBatch
from rillcast_training.export.bundle import describe, to_onnx
from rillcast_training.export.restore import attach, restore, shorten
from rillcast_training.export.sequence_export import sequence_to_onnx
from rillcast_training.model.forecaster import Forecaster
from rillcast_training.model.rows import Rows
from tests.support.covariates import EVERY_KIND, config_with, some_covariates
from tests.support.forecasters import HOUR_MS, random_forecaster, small_config

START = 473_000
KINDS: dict[str, tuple[Covariate, ...]] = {"every kind": EVERY_KIND, **{one.kind: (one,) for one in EVERY_KIND}}


@cache
def forecaster(kinds: str = "every kind") -> Forecaster:
    return random_forecaster(config_with(KINDS[kinds]))


@cache
def bundle() -> Bundle:
    model = to_onnx(forecaster())
    source = forecaster()
    attach(model, asdict(source.config), source)
    metadata = describe(forecaster(), name="m", training={}, backtest={})
    return Bundle.from_bytes(seal(model, metadata, sequence_to_onnx(forecaster())))


NO_RUNS = Runs()
PLAIN = Batching(runs=NO_RUNS)


def engine(batching: Batching = PLAIN, lateness: AllowedLateness | None = None) -> StepEngine:
    return StepEngine(bundle(), Device("cpu"), batching=batching, lateness=lateness)


def outputs(result: StepResult) -> dict[str, AnyArray]:
    assert result.score is not None
    assert result.anomaly is not None
    return {"forecast": result.forecast, "status": result.status, "score": result.score, "anomaly": result.anomaly}


def assert_same_bits(found: dict[str, AnyArray], expected: dict[str, AnyArray]) -> None:
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


@pytest.mark.parametrize("kinds", KINDS)
def test_pytorch_the_reference_and_onnx_runtime_agree(kinds: str) -> None:
    module, streams = forecaster(kinds), 3
    model = to_onnx(module)
    reference = ReferenceEvaluator(model)
    metadata = describe(module, name="m", training={}, backtest={})
    served = StepEngine(Bundle.from_bytes(seal(model, metadata)), Device("cpu"))
    rng, names = np.random.default_rng(0), [spec.name for spec in module.state_specs()]
    rows = module.initial_rows(streams)
    slots = np.arange(streams)
    for step in range(14):
        ds = np.full(streams, (START + step) * HOUR_MS)
        y = rng.normal(50, 10, streams).astype(np.float32)
        x, future = some_covariates(rng, streams, 5, (*KINDS[kinds], Covariate("spare", "known")))
        x = x[:, :-1]
        ahead = future[:, : len(metadata.known_ahead)]
        state = {f"state.{name}": part.numpy() for name, part in zip(names, rows.flat(), strict=True)}
        given: dict[str, Any] = {"slots": slots, "ds": ds, "y": y, "x": x, "calibrate": np.float32(1), **state}
        by_reference = dict(
            zip(
                reference.output_names,
                reference.run(None, given | ({"future": ahead} if ahead.shape[1] else {})),
                strict=True,
            )
        )
        with torch.no_grad():
            found, rows = module.step(
                torch.from_numpy(ds), torch.from_numpy(y), rows, 1.0, torch.from_numpy(x), torch.from_numpy(ahead)
            )
        events = EventBatch.of(["a", "b", "c"], ds, y, x, ahead, first_offset=step * streams)
        by_runtime = served.step(events)
        scale = float(np.abs(y).max())
        for other in (by_reference["forecast"], by_runtime.forecast):
            np.testing.assert_allclose(other, found.forecast.numpy(), rtol=1e-4, atol=1e-5 * scale)
        for name, part in zip(names, rows.flat(), strict=True):
            np.testing.assert_allclose(by_reference[f"state.{name}.next"], part.numpy(), rtol=1e-4, atol=1e-5 * scale)


def test_a_forecast_depends_neither_on_the_batch_nor_on_the_neighbours() -> None:
    streams, rng = 31, np.random.default_rng(1)
    engines = {rows: engine(Batching(rows, runs=NO_RUNS)) for rows in (1, 2, 3, 5, 8, 17, streams)}
    for number in range(14):
        ids, ds = [f"s{n}" for n in range(streams)], np.full(streams, (START + number) * HOUR_MS)
        y = rng.normal(100, 10, streams).astype(np.float32)
        x, future = some_covariates(rng, streams, 5)
        first = number * streams
        expected = outputs(engines[streams].step(EventBatch.of(ids, ds, y, x, future, first_offset=first)))
        for rows, one in engines.items():
            if rows == streams:
                continue
            order = rng.permutation(streams)
            named = [ids[n] for n in order]
            events = EventBatch.of(named, ds, y[order], x[order], future[order], first_offset=first)
            found = outputs(one.step(events))
            assert_same_bits(found, {name: values[order] for name, values in expected.items()})


def test_runs_and_steps_give_the_same_bits() -> None:
    by_step, by_run = engine(), engine(Batching(runs=Runs((16, 4), 64)))
    rng, slot, taken = np.random.default_rng(2), START, 0
    for length in (1, 20, 7, 16):
        ids = [f"s{stream}" for stream in range(3)] * length
        slots = np.repeat(slot + np.arange(length), 3)
        y = (100 + 10 * np.sin(slots / 3) + rng.normal(size=slots.size)).astype(np.float32)
        x, future = some_covariates(rng, slots.size, 5)
        events = EventBatch.of(ids, slots * HOUR_MS, y, x, future, first_offset=3 * slot)
        expected, found = by_step.step(events), by_run.step(events)
        assert_same_bits(outputs(found), outputs(expected))
        taken += found.stats.in_runs
        slot += length
    assert taken == 3 * (20 + 4 + 16)
    (a,), (b,) = (list(one.residents.export(0, 0)) for one in (by_step, by_run))
    assert_same_bits(dict(a.rows), dict(b.rows))


def test_padding_does_not_change_results() -> None:
    padded, plain = engine(Batching(8, (4, 8), NO_RUNS)), engine(Batching(8, runs=NO_RUNS))
    rng = np.random.default_rng(3)
    for number, n in enumerate((3, 7, 11)):
        x, future = some_covariates(rng, n, 5)
        y = rng.normal(5, 1, n).astype(np.float32)
        ids, ds = [f"s{i}" for i in range(n)], np.full(n, (START + number) * HOUR_MS)
        events = EventBatch.of(ids, ds, y, x, future, first_offset=20 * number)
        assert_same_bits(outputs(padded.step(events)), outputs(plain.step(events)))


def test_absent_covariates_are_missing_covariates() -> None:
    n, y = 4, np.ones(4, np.float32)
    events = EventBatch.of(["a", "b", "c", "d"], np.full(n, START * HOUR_MS), y)
    x, future = np.full((n, 5), np.nan, np.float32), np.full((n, 2, 5), np.nan, np.float32)
    assert_same_bits(outputs(engine().step(events)), outputs(engine().step(replace(events, x=x, future=future))))


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-45])
def test_no_covariate_makes_a_forecast_or_a_state_that_is_not_finite(odd: float) -> None:
    module = forecaster()
    rows = module.initial_rows(1)
    x, future = np.full((1, 5), odd, np.float32), np.full((1, 2, 5), odd, np.float32)
    for step in range(14):
        with torch.no_grad():
            found, rows = module.step(
                torch.tensor([(START + step) * HOUR_MS]),
                torch.tensor([float(step % 3)]),
                rows,
                1.0,
                torch.from_numpy(x),
                torch.from_numpy(future),
            )
        assert found.forecast.isfinite().all()
        assert (found.forecast.diff(dim=-1) >= 0).all()
        assert all(part.isfinite().all() for part in rows.flat())


def test_each_kind_reaches_the_forecast() -> None:
    n = 2
    x = np.tile(np.array([10, 0, 1, 100, 3], np.float32), (n, 1))
    future = np.zeros((n, 2, 5), np.float32)
    ds, y = np.full(n, START * HOUR_MS), np.ones(n, np.float32)
    events = EventBatch.of(["a", "b"], ds, y, x, future)
    for number in range(5):
        changed = x.copy()
        changed[1, number] += 1
        a, b = engine().step(replace(events, x=changed)).forecast
        assert not np.array_equal(a, b), EVERY_KIND[number].name
    for number in range(2):
        ahead: FloatArray = future.copy()
        ahead[1, number, 3] = 1
        a, b = engine().step(replace(events, future=ahead)).forecast
        assert not np.array_equal(a[3], b[3])


def test_a_bundle_without_covariates_has_no_trace_of_them() -> None:
    plain, covariate = random_forecaster(small_config()), forecaster()
    inputs = {given.name for given in to_onnx(plain).graph.input if not given.name.startswith("state.")}
    assert inputs == {"slots", "ds", "y", "calibrate"}
    weights = {name: tuple(tensor.shape) for name, tensor in plain.state_dict().items()}
    more = {name: tuple(tensor.shape) for name, tensor in covariate.state_dict().items()}
    assert {name for name in more if name not in weights} == {"covariates.vectors.0.weight"}
    assert weights["head.trunk.weight"][1] < more["head.trunk.weight"][1]


def test_a_restored_forecaster_takes_the_same_covariates() -> None:
    restored = restore(bundle())
    assert restored.config.covariates == EVERY_KIND
    assert model_id(to_onnx(restored)) == model_id(to_onnx(forecaster()))


def test_a_shorter_horizon_sees_the_same_of_what_is_known_ahead() -> None:
    module, rng = forecaster(), np.random.default_rng(4)
    shorter = shorten(module, 3)
    x, future = (torch.from_numpy(part) for part in some_covariates(rng, 2, 5))
    future[:, :, 3:] = np.nan
    event = torch.full((2,), START * HOUR_MS), torch.ones(2), module.initial_rows(2)
    with torch.no_grad():
        whole, _ = module.step(*event, 1.0, x, future)
        first, _ = shorter.step(*event[:2], shorter.initial_rows(2), 1.0, x, future[:, :, :3])
    np.testing.assert_allclose(first.forecast, whole.forecast[:, :3], rtol=1e-5)


@pytest.mark.parametrize(
    ("declared", "reason"),
    [((), "the metadata declares no covariates"), (EVERY_KIND[:2], r"x.*shape"), (EVERY_KIND[2:3], "future")],
)
def test_a_graph_that_takes_others_than_are_declared_is_refused(declared: tuple[Covariate, ...], reason: str) -> None:
    metadata = describe(forecaster(), name="m", training={}, backtest={})
    model: onnx.ModelProto = to_onnx(forecaster())
    with pytest.raises(BundleError, match=reason):
        seal(model, metadata.model_copy(update={"covariates": declared}))


def test_rows_keep_their_form() -> None:
    """Covariates come with each event, so they do not change state pages."""
    plain = random_forecaster(small_config())
    assert forecaster().state_specs() == plain.state_specs()
    assert isinstance(forecaster().initial_rows(1), Rows)


def test_a_late_event_is_applied_with_its_covariates() -> None:
    rng, n = np.random.default_rng(5), 20
    x, future = some_covariates(rng, n, 5)
    y, ds = rng.normal(20, 3, n).astype(np.float32), (START + np.arange(n)) * HOUR_MS
    late = np.array([*range(15), 16, 17, 15, 18, 19])
    ids = ["a"] * n
    in_order = engine().step(EventBatch.of(ids, ds, y, x, future))
    goes_back = engine(lateness=AllowedLateness(4, Frequency(HOUR_MS)))
    found = goes_back.step(EventBatch.of(ids, ds[late], y[late], x[late], future[late]))
    assert found.revised is not None
    assert found.revised.ds.tolist() == ds[16:18].tolist()
    np.testing.assert_array_equal(found.revised.forecast, in_order.forecast[16:18])
    np.testing.assert_array_equal(found.forecast[-3:], in_order.forecast[[15, 18, 19]])
