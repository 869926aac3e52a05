"""Our own models as if another exporter had made them: the dry run passes them, and over rows they compute the same."""

from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np
import onnx
import pytest

from rillcast.bundle import state_access
from rillcast.bundle.bundle import Bundle, seal
from rillcast.engine import dry_run
from rillcast.engine.device import Device
from rillcast.engine.step_engine import StepEngine
from rillcast.events import EventBatch
from rillcast_training.export.bundle import describe, to_onnx
from rillcast_training.export.sequence_export import sequence_to_onnx
from rillcast_training.model.forecaster import ForecasterConfig
from tests.support.covariates import config_with, some_covariates
from tests.support.forecasters import HOUR_MS, random_forecaster, small_config

CONFIGS = [small_config(cell="lstm", layers=2), config_with()]


@cache
def sealed(config: ForecasterConfig) -> Bundle:
    forecaster = random_forecaster(config)
    metadata = describe(forecaster, name="own", training={}, backtest={})
    return Bundle.from_bytes(seal(to_onnx(forecaster), metadata, sequence_to_onnx(forecaster)))


@pytest.mark.parametrize("config", CONFIGS)
def test_own_models_pass_the_dry_run(config: ForecasterConfig) -> None:
    bundle = sealed(config)
    dry_run.check(dataclasses.replace(bundle, step=dataclasses.replace(bundle.step, compared=False)))


@pytest.mark.parametrize("config", CONFIGS)
def test_over_rows_they_forecast_the_same_bits(config: ForecasterConfig) -> None:
    bundle = sealed(config)
    model = onnx.load_model_from_string(bundle.step.model)
    served = state_access.over_rows(model, bundle.metadata.states).SerializeToString()
    over_rows = dataclasses.replace(bundle, step=dataclasses.replace(bundle.step, served=served), sequence=None)
    plain = dataclasses.replace(bundle, sequence=None)
    engines = [StepEngine(one, Device("cpu")) for one in (plain, over_rows)]
    rng = np.random.default_rng(0)
    for number in range(30):
        streams = rng.permutation(5)[: rng.integers(1, 6)]
        n = streams.size
        y = rng.normal(10, 3, n).astype(np.float32)
        y[0] = np.nan if number % 7 == 3 else y[0]
        ds = np.full(n, (number + number // 9) * HOUR_MS)
        x, future = some_covariates(rng, n, config.horizon) if bundle.metadata.covariates else (None, None)
        events = EventBatch.of([f"s{i}" for i in streams], ds, y, x, future, first_offset=10 * number)
        one, other = (engine.step(events) for engine in engines)
        for name in ("outcome", "forecast", "status", "score"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
