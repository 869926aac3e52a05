"""The two graphs of a bundle agree, and a stream is independent of the batches that it is stepped in."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest
import torch

from rillcast.arrays import AnyArray
from rillcast.bundle.bundle import Bundle, seal
from rillcast.engine.batcher import Batching, Runs
from rillcast.engine.device import Device
from rillcast.engine.step_engine import Outcome, StepEngine, StepResult
from rillcast.events import EventBatch
from rillcast_training.export.bundle import describe, to_onnx
from rillcast_training.export.experts import describe_experts, experts_to_onnx
from rillcast_training.export.sequence_export import sequence_to_onnx
from rillcast_training.model.cells import CELLS
from rillcast_training.model.experts.config import ExpertsConfig, NetworkShape
from rillcast_training.model.experts.forecaster import ExpertForecaster
from tests.support.forecasters import HOUR_MS, random_forecaster, small_config

BATCH_SIZES = (1, 2, 3, 4, 5, 6, 7, 8, 15, 16, 17, 31, 64)
NEVER = Runs()
Outputs = dict[str, AnyArray]


@cache
def bundle(cell: str, layers: int = 1) -> Bundle:
    """A small forecaster, or experts alone, with odd sizes everywhere, so that no row is aligned like its neighbour.

    But for the sLSTM: ONNX Runtime's softplus treats groups of four apart from what is left over.
    """
    hidden = 8 if cell == "slstm" else 9
    if cell.startswith("experts"):
        network = NetworkShape("gru", 9) if cell == "experts and gru" else None
        experts = ExpertForecaster(ExpertsConfig("1h", 7, (5, 11), (0.1, 0.3, 0.5, 0.7, 0.9), network=network))
        if experts.network is not None:
            torch.manual_seed(0)
            torch.nn.init.normal_(experts.network.head.weight, std=0.1)
        return Bundle.from_bytes(seal(experts_to_onnx(experts), describe_experts(experts, name="m")))
    config = small_config(cell=cell, layers=layers, context=15, seasons=(5, 11), max_gap=15, horizon=7, hidden=hidden,
                          quantiles=(0.1, 0.3, 0.5, 0.7, 0.9), alarms=cell != "elman")  # fmt: skip
    forecaster = random_forecaster(config)
    metadata = describe(forecaster, name="m", training={}, backtest={})
    return Bundle.from_bytes(seal(to_onnx(forecaster), metadata, sequence_to_onnx(forecaster)))


def engine(cell: str, *, batch_rows: int = 256, runs: Runs = NEVER, layers: int = 1) -> StepEngine:
    return StepEngine(bundle(cell, layers), Device("cpu"), batching=Batching(batch_rows, runs=runs))


def step(one: StepEngine, ids: list[str], hours: AnyArray, y: AnyArray, offset: int) -> StepResult:
    ds, values = (hours * HOUR_MS).astype(np.int64), y.astype(np.float32)
    return one.step(EventBatch.of(ids, ds, values, first_offset=offset))


def outputs(result: StepResult) -> Outputs:
    assert result.score is not None
    assert result.anomaly is not None
    found: Outputs = {
        "forecast": result.forecast,
        "status": result.status,
        "score": result.score,
        "anomaly": result.anomaly,
    }
    return found | ({} if result.alarm is None else {"alarm": result.alarm})


def state(one: StepEngine, streams: int) -> Outputs:
    (page,) = one.residents.export(0, 0)
    assert len(page.unique_ids) == streams
    return dict(page.rows)


def assert_same_bits(found: Outputs, expected: Outputs) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


def polls(streams: int, rounds: int) -> Iterator[tuple[list[str], AnyArray, AnyArray, int]]:
    """Yield one event of every stream at a time: gaps, repeats, late ones and missing values among them."""
    rng = np.random.default_rng(0)
    ids = [f"s{number}" for number in range(streams)]
    level = 10.0 ** rng.uniform(-2, 5, streams)
    clock = np.full(streams, 473_000)
    for number in range(rounds):
        gap = rng.choice([1, 1, 1, 1, 1, 1, 0, -1, 3, 40], streams) if number else np.ones(streams, int)
        hours, clock = clock + gap, np.maximum(clock, clock + gap)
        y = level * (1 + 0.3 * rng.normal(size=streams))
        yield ids, hours, np.where(rng.random(streams) < 0.05, np.nan, y), number * streams


@pytest.mark.parametrize("cell", [*sorted(CELLS), "experts", "experts and gru"])
def test_a_forecast_depends_neither_on_the_batch_size_nor_on_the_neighbours(cell: str) -> None:
    streams = BATCH_SIZES[-1]
    engines = {rows: engine(cell, batch_rows=rows) for rows in BATCH_SIZES}
    shuffle = np.random.default_rng(1)
    for ids, hours, y, offset in polls(streams, 8):
        expected = outputs(step(engines[streams], ids, hours, y, offset))
        for rows in BATCH_SIZES[:-1]:
            order = shuffle.permutation(streams)
            found = outputs(step(engines[rows], [ids[n] for n in order], hours[order], y[order], offset))
            assert_same_bits(found, {name: values[order] for name, values in expected.items()})
    slots = {rows: one.residents.admit(np.zeros(streams, np.int64), ids) for rows, one in engines.items()}
    expected = {name: values[slots[streams] - 256] for name, values in state(engines[streams], streams).items()}
    for rows in BATCH_SIZES[:-1]:
        found = {name: values[slots[rows] - 256] for name, values in state(engines[rows], streams).items()}
        assert_same_bits(found, expected)


@pytest.mark.parametrize(("cell", "layers"), [*((cell, 1) for cell in sorted(CELLS)), ("gru", 2)])
def test_runs_equal_the_step_bit_for_bit(cell: str, layers: int) -> None:
    by_step, by_run = engine(cell, layers=layers), engine(cell, layers=layers, runs=Runs((16, 4), 64))
    rng = np.random.default_rng(2)
    hour, taken = 473_000, 0
    for length in (1, 4, 40, 7, 16, 90):
        ids = [f"s{stream}" for stream in range(3)] * length
        hours = np.repeat(hour + np.arange(length), 3)
        y = 100 + 10 * np.sin(hours / 3) + rng.normal(size=hours.size)
        y[-9:] += 1_000 if length == 90 else 0
        expected, found = (step(one, ids, hours, y, 3 * hour) for one in (by_step, by_run))
        assert_same_bits(outputs(found), outputs(expected))
        taken += found.stats.in_runs
        assert expected.stats.in_runs == 0
        hour += length
    assert taken == 3 * (4 + 40 + 4 + 16 + 88)
    assert found.alarm is None or np.flatnonzero(found.alarm[:, 0] == 1).tolist() == list(range(261, 264))
    assert_same_bits(state(by_run, 3), state(by_step, 3))


def test_a_run_with_an_odd_event_in_it_is_stepped_and_gives_the_same() -> None:
    by_step, by_run = engine("gru"), engine("gru", runs=Runs((8,), 64))
    for hours, y in (
        ([0, 1, 2, 3, 4, 5, 6, 7, 8], [1.0] * 9),
        ([9, 10, 11, 12, 13, 14, 15, 16], [1.0, 2.0, 1.0, 2.0, 1e30, 1.0, 2.0, 3.0]),  # 1e30 is quarantined
        ([17, 18, 19, 20, 21, 22, 23, 24], [1.0, 2.0, 1.0, 2e30, 3.0, 1.0, 2.0, 3.0]),  # 2e30 counts as missing
    ):
        ids = ["a"] * len(hours)
        expected, found = (step(one, ids, np.array(hours), np.array(y), hours[0]) for one in (by_step, by_run))
        assert found.outcome.tolist() == expected.outcome.tolist()
        stepped = expected.outcome == Outcome.STEPPED
        kept = ({name: values[stepped] for name, values in outputs(result).items()} for result in (found, expected))
        assert_same_bits(*kept)
    assert_same_bits(state(by_run, 1), state(by_step, 1))
