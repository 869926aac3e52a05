"""A stream of milliseconds that has run, or been silent, for a month: counts beyond 2^31.

ONNX Runtime 1.31 clips int64 between 2^31 and 2^32 wrongly on the CPU where a batch has four rows or more. So no graph
may clip such a number: a network saw a stream without a past then, and experts one that was never silent.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rillcast.arrays import FloatArray
from rillcast.bundle.bundle import Bundle
from rillcast.engine import device
from rillcast.engine.step_engine import StepEngine
from rillcast.events import EventBatch
from rillcast_training.export.bundle import export
from rillcast_training.export.experts import export_experts
from rillcast_training.export.parity import InPlaceSession
from rillcast_training.model.experts.config import ExpertsConfig
from tests.support.forecasters import random_forecaster, small_config

STREAMS = 6
START = 1_704_067_200_000
MONTH = 2_400_000_000  # milliseconds, between 2^31 and 2^32
pytestmark = pytest.mark.usefixtures("brief_parity")


def after_a_silence(path: Path, silence: int) -> FloatArray:
    """Return the forecasts of streams whose newest event, after a silence, has no value."""
    engine, rng = StepEngine(Bundle.load(path), device.choose("cpu")), np.random.default_rng(0)
    ids = [f"s{number}" for number in range(STREAMS)]
    for event in range(60):
        y = 5 + np.sin(event + np.arange(STREAMS)) + 0.1 * rng.normal(size=STREAMS)
        ds = np.full(STREAMS, START + event)
        engine.step(EventBatch.of(ids, ds, y.astype(np.float32), first_offset=STREAMS * event))
    missing = np.full(STREAMS, np.nan, np.float32)
    late = EventBatch.of(ids, np.full(STREAMS, START + 59 + silence), missing, first_offset=1_000)
    return engine.step(late).forecast.copy()


def test_experts_know_that_a_stream_was_silent_for_a_month(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    export_experts(ExpertsConfig("1ms", 4, (6,)), path, name="m")
    np.testing.assert_allclose(after_a_silence(path, MONTH), after_a_silence(path, 600_000), rtol=1e-5)


def test_a_network_counts_no_more_periods_than_it_asks_for(tmp_path: Path) -> None:
    forecaster, path = random_forecaster(small_config(freq="1ms")), tmp_path / "m.onnx"
    export(forecaster, path, name="m")
    session, slots = InPlaceSession(path, forecaster, STREAMS + 1), np.arange(1, STREAMS + 1)
    most = forecaster.most_known
    assert most > max(forecaster.config.context, forecaster.config.horizon)
    for event in range(most + 20):
        session.run(slots, np.full(STREAMS, START + event), np.full(STREAMS, 1.0 + event % 5, np.float32))
        np.testing.assert_array_equal(session.state("clock")[slots, 1], min(event + 1, most) + 1)
