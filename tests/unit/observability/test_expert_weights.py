"""What forecasts are made of, read from the states of a shipped bundle that has stepped real events."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import pytest

from rillcast.bundle.bundle import Bundle
from rillcast.bundle.mixture import MEMBER, STATE, Mixture
from rillcast.bundle.shipped import locate
from rillcast.engine.device import Device
from rillcast.engine.step_engine import StepEngine
from rillcast.events import EventBatch
from rillcast.observability.expert_weights import ExpertWeights
from tests.support.live_views import HOUR_MS, START_MS, metadata
from tests.support.toy import toy_bundle


@pytest.fixture(scope="module")
def engine() -> StepEngine:
    """Two streams with a day's season and one that wanders, in partition 0."""
    engine, rng = StepEngine(Bundle.load(locate("universal:1h")), Device("cpu")), np.random.default_rng(0)
    hours = np.arange(24 * 15)
    wave = 20 + 5 * np.sin(2 * math.pi * hours / 24) + 0.1 * rng.normal(size=hours.size)
    for name, values in (("a", wave), ("b", wave + 3), ("walk", np.cumsum(rng.normal(size=hours.size)))):
        engine.step(EventBatch.of([name] * hours.size, START_MS + HOUR_MS * hours, values.astype(np.float32)))
    return engine


def seen(engine: StepEngine, charted: Iterable[str]) -> tuple[ExpertWeights, dict[str, float]]:
    reported: dict[str, float] = {}
    weights = ExpertWeights(lambda: list(charted), reported.update)
    weights.look(engine, [0, 7])
    return weights, reported


def test_a_wave_is_made_of_its_season_and_a_walk_of_its_last_value(engine: StepEngine) -> None:
    weights, _ = seen(engine, ["a", "walk", "nobody"])
    sample = weights.sample
    assert sample is not None
    assert set(sample.by_stream) == {"a", "walk"}
    assert [one.step for one in sample.shares("a")] == sample.mixture.anchors
    for unique_id in ("a", "walk"):
        for one in sample.shares(unique_id):
            assert sum(one.shares.values()) == pytest.approx(1, abs=1e-5)
    seasonal = [sum(share for what, share in one.shares.items() if "day" in what) for one in sample.shares("a")]
    assert min(seasonal) > 0.5
    plain = [sum(share for what, share in one.shares.items() if "day" not in what) for one in sample.shares("walk")]
    assert plain[0] > 0.8
    with pytest.raises(KeyError, match="nobody"):
        sample.shares("nobody")


def test_the_mean_is_over_streams_and_reported_by_base(engine: StepEngine) -> None:
    weights, reported = seen(engine, ["a", "b", "walk"])
    sample = weights.sample
    assert sample is not None
    assert sample.streams == 3
    assert sample.mean == pytest.approx(np.mean(list(sample.by_stream.values()), axis=0), abs=1e-6)
    assert set(reported) == set(sample.mixture.bases)
    assert sum(reported.values()) == pytest.approx(1, abs=1e-5)


def test_another_model_begins_without_weights(engine: StepEngine) -> None:
    weights, reported = seen(engine, [])
    weights.serve(engine.bundle.metadata)
    assert weights.sample is not None
    assert reported
    weights.serve(metadata())
    assert weights.sample is None


def test_a_model_without_experts_has_none() -> None:
    plain = StepEngine(toy_bundle(), Device("cpu"))
    plain.step(EventBatch.of(["a"], [START_MS], [1.0]))
    assert seen(plain, ["a"])[0].sample is None


def test_a_state_of_another_layout_is_not_taken_for_weights(engine: StepEngine) -> None:
    right = Mixture.of(engine.bundle.metadata)
    assert right is not None
    rows = engine.residents.state.slab.gather(engine.residents.newest(0)[0], [STATE])[STATE]
    assert right.weights(rows) is not None
    assert right.weights(rows[:, 1:]) is None
    assert right.weights(rows[:, :40]) is None
    fewer = dict(engine.bundle.metadata.training[MEMBER]) | {"quantiles": [0.1, 0.9]}
    assert Mixture(fewer).weights(rows) is None
