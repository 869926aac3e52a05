"""What a roll-out logs and counts; a model that does not serve never gets in the way of the one that does."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from rillcast.engine.step_engine import Outcome, StepResult, StepStats
from rillcast.errors import OtherRecordsError, RolloutRefusedError
from rillcast.events import EventBatch
from rillcast.observability.metrics import Metrics
from rillcast.rollout.comparison import Comparison
from rillcast.serving.served_model import ServedModel
from rillcast.settings import RolloutSettings, WorkerSettings
from rillcast.transports.base import Channel
from tests.property.test_oracle import fill
from tests.support import workers
from tests.support.memory import Clock, Log, MemorySource
from tests.support.rollouts import changes, expect, served_by
from tests.support.toy import toy_bundle
from tests.support.workers import forecasts_by_stream, observation

SERVING, OTHER = toy_bundle(), toy_bundle(multiplier=37)
SERVING_ID, OTHER_ID = SERVING.metadata.model_id, OTHER.metadata.model_id


class FailingEngine:
    """An engine whose step does something else first."""

    def __init__(self, engine: Any, before: Callable[[int], None]) -> None:
        self._engine = engine
        self._before = before

    def advance(self, events: EventBatch) -> Any:
        self._before(len(events))
        return self._engine.advance(events)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


class Registry(workers.MemoryModels):
    """Names one other model, whose steps do something else first."""

    before: Callable[[int], None] = staticmethod(lambda _events: None)

    def open(self, model_id: str) -> ServedModel | None:
        model = super().open(model_id)
        assert model is not None
        engine: Any = FailingEngine(model.engine, self.before)
        return dataclasses.replace(model, engine=engine)


def serve(
    registry: workers.MemoryModels, *, polls: int = 200, at_poll: Callable[[int], None] = lambda _poll: None
) -> tuple[workers.Harness, Log, dict[str, list[int]]]:
    """Serve 400 events, three at a time and a second apart, and as many polls beyond them."""
    log, expected = fill([(0, n % 4, n + 1) for n in range(400)])
    harness = workers.build(
        log,
        bundle=SERVING,
        per_poll=lambda: 3,
        settings=WorkerSettings(commit_interval_s=0.5),
        models=registry,
        rollout=RolloutSettings(warm_up="retained", events_per_iteration=10, retry_s=30),
    )

    def tick(nth: int) -> Callable[[MemorySource], None]:
        def act(_source: MemorySource) -> None:
            harness.clock.now += 1
            at_poll(nth)

        return act

    harness.source.before_poll.extend(tick(nth) for nth in range(polls))
    harness.worker.run()
    return harness, log, expected


def fail(_events: int) -> None:
    raise MemoryError("no room for another row")


def test_a_shadow_publishes_nothing_and_steps_every_event() -> None:
    stepped: list[int] = []
    registry = Registry({OTHER_ID: OTHER}, shadow=OTHER_ID)
    registry.before = stepped.append
    harness, log, expected = serve(registry)
    assert forecasts_by_stream(log) == expected
    assert len(log.published[Channel.FORECASTS]) == 400
    assert sum(stepped) == 400
    assert harness.metric("rillcast_shadow_drops_total") == 0
    assert harness.metric("rillcast_model_swap_pending_seconds") == 0
    assert harness.metric("rillcast_model_swaps_total", outcome="started") == 0


def test_a_shadow_that_raises_is_dropped_counted_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    registry = Registry({OTHER_ID: OTHER}, shadow=OTHER_ID)
    registry.before = fail
    harness, log, expected = serve(registry)
    assert forecasts_by_stream(log) == expected
    assert harness.metric("rillcast_shadow_drops_total") == len(registry.opened) == 7, "every 30 s of 200"
    assert "the shadow, failed: MemoryError: no room for another row. The model that serves goes on" in caplog.text


def test_a_slow_shadow_gets_half_of_the_time_and_is_dropped_when_it_cannot_keep_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It keeps up until its step takes three seconds; with one poll a second the serving model is never late."""
    registry = Registry({OTHER_ID: OTHER}, shadow=OTHER_ID)
    clock: list[Clock] = []
    slow: list[int] = []

    def take_time(events: int) -> None:
        if clock:
            slow.append(events)
            clock[0].now += 3

    registry.before = take_time
    log, expected = fill([(0, n % 4, n + 1) for n in range(400)])
    harness = workers.build(
        log,
        bundle=SERVING,
        per_poll=lambda: 3,
        models=registry,
        rollout=RolloutSettings(warm_up="retained", events_per_iteration=100, retry_s=30),
    )

    def tick(source: MemorySource) -> None:
        harness.clock.now += 0.25
        if source.positions()[0] >= 200 and not clock:
            clock.append(harness.clock)

    harness.source.before_poll.extend([tick] * 400)
    harness.worker.run()
    assert forecasts_by_stream(log) == expected
    assert "it cannot keep up: for 30 s it has been behind" in caplog.text
    assert harness.metric("rillcast_shadow_drops_total") >= 1
    assert Counter(slow).most_common(1)[0][0] == 8, "slices get smaller, for they take longer than they should"


def test_a_model_that_does_not_catch_up_in_time_takes_over_later_and_not_an_event_short() -> None:
    """A step of it takes longer than the loop stands still: it comes closer by an event at each attempt."""
    registry = Registry({OTHER_ID: OTHER}, wanted=OTHER_ID, records_per_read=1)
    log, _ = fill([(0, n % 4, n + 1) for n in range(60)])
    harness = workers.build(
        log,
        bundle=SERVING,
        per_poll=lambda: 3,
        settings=WorkerSettings(commit_interval_s=0.5),
        models=registry,
        rollout=RolloutSettings(warm_up="retained", events_per_iteration=8),
    )

    def take_time(_events: int) -> None:
        harness.clock.now += 0.3

    def tick(nth: int) -> Callable[[MemorySource], None]:
        def act(_source: MemorySource) -> None:
            harness.clock.now += 1
            if nth >= 150:
                log.append(0, observation(f"0/{nth % 4}", nth))

        return act

    registry.before = take_time
    harness.source.before_poll.extend(tick(nth) for nth in range(200))
    harness.worker.run()
    events = (((0, offset), value or b"") for offset, (_, value) in enumerate(log.partitions[0]))
    expected = expect(events, {SERVING_ID: 31, OTHER_ID: 37})
    served = served_by(((key, value) for key, value, _ in log.published[Channel.FORECASTS]), expected)
    assert served.keys() == expected.keys()
    assert changes(served) == {0: [SERVING_ID, OTHER_ID]}


def test_a_slow_model_is_never_stepped_by_more_events_at_once_than_the_setting_says() -> None:
    registry = Registry({OTHER_ID: OTHER}, shadow=OTHER_ID)
    log, _ = fill([(0, n % 4, n + 1) for n in range(60)])
    harness = workers.build(
        log,
        bundle=SERVING,
        models=registry,
        rollout=RolloutSettings(warm_up="retained", events_per_iteration=2),
    )
    slices: list[int] = []

    def take_time(events: int) -> None:
        slices.append(events)
        harness.clock.now += 0.3

    def tick(_source: MemorySource) -> None:
        harness.clock.now += 1

    registry.before = take_time
    harness.source.before_poll.extend([tick] * 60)
    harness.worker.run()
    assert sum(slices) == 60
    assert max(slices) == 2


def test_a_refusal_is_logged_once_and_the_model_not_tried_again_until_the_alias_moves(
    caplog: pytest.LogCaptureFixture,
) -> None:
    registry = Registry({OTHER_ID: OTHER}, wanted=OTHER_ID)
    tried: list[str] = []

    def refuse(model_id: str) -> None:
        tried.append(model_id)
        if len(tried) == 1:
            raise RolloutRefusedError("its freq is 30min, that of the serving model 1h")

    def move(nth: int) -> None:
        if nth == 100:
            registry.wanted = SERVING_ID
        elif nth == 110:
            assert tried == [OTHER_ID]
            registry.wanted = OTHER_ID

    registry.fail_open = refuse
    harness, log, _ = serve(registry, at_poll=move)
    assert tried == [OTHER_ID, OTHER_ID]
    assert harness.metric("rillcast_model_swaps_total", outcome="refused") == 1
    assert harness.metric("rillcast_model_refused") == 0, "the alias moved"
    assert harness.metric("rillcast_model_swaps_total", outcome="completed") == 1
    assert len(log.published[Channel.FORECASTS]) == 400
    refused = "which is to take over, was refused: its freq is 30min, that of the serving model 1h"
    assert caplog.text.count(refused) == 1
    assert "Promote another one, or roll the alias back" in caplog.text


def test_a_refused_model_is_shown_for_as_long_as_the_alias_names_it() -> None:
    registry = Registry({OTHER_ID: OTHER}, wanted=OTHER_ID)

    def refuse(_model_id: str) -> None:
        raise OtherRecordsError("its freq is 30min")

    registry.fail_open = refuse
    harness, log, expected = serve(registry)
    assert forecasts_by_stream(log) == expected
    assert harness.metric("rillcast_model_refused") == 1


def test_a_model_that_is_wanted_and_fails_is_pending_until_it_takes_over() -> None:
    registry = Registry({OTHER_ID: OTHER}, wanted=OTHER_ID)
    registry.before = fail
    harness, log, expected = serve(registry)
    assert forecasts_by_stream(log) == expected
    assert harness.metric("rillcast_model_swaps_total", outcome="failed") == 7
    assert harness.metric("rillcast_model_swap_pending_seconds") > 190


def result_of(scores: list[list[float]], outcomes: list[Outcome]) -> StepResult:
    rows = len(outcomes)
    return StepResult(
        outcome=np.array(outcomes, np.int8),
        forecast=np.zeros((rows, 2, 3), np.float32),
        status=np.zeros(rows, np.int8),
        score=np.array(scores, np.float32),
        anomaly=None,
        stats=StepStats(rows, 1, 0, 0, 0.0),
    )


def test_the_same_events_are_scored_for_both_from_where_the_shadow_has_caught_up() -> None:
    series = CollectorRegistry()
    metadata = SERVING.metadata.model_copy(update={"scores": ("pinball", "covered", "bias", "naive")})
    comparison = Comparison(Metrics(series, {"": metadata}, "cpu").of_route(""))
    live, shadow = model_of(metadata), model_of(metadata.model_copy(update={"model_id": OTHER_ID}))
    ok, refused = Outcome.STEPPED, Outcome.QUARANTINED
    events = EventBatch.of(["a", "b", "c"], np.zeros(3, np.int64), np.zeros(3, np.float32), first_offset=9)
    first = result_of([[1, 1, 1, 1], [2, 0, -3, 4], [4, 1, 1, 2]], [ok, ok, ok])
    comparison.live_stepped(live, events, first)
    assert value(series, "pinball_loss", "live", SERVING_ID) is None, "there is no shadow yet"
    comparison.caught_up(OTHER_ID, {0: 10})
    comparison.live_stepped(live, events, first)
    comparison.shadow_stepped(shadow, events, result_of([[1] * 4, [0.5, 1, 1, 4], [9] * 4], [ok, ok, refused]))
    assert value(series, "scored_forecasts", "live", SERVING_ID) == 2
    assert value(series, "pinball_loss", "live", SERVING_ID) == 6
    assert value(series, "covered_forecasts", "live", SERVING_ID) == 1
    assert value(series, "naive_error", "live", SERVING_ID) == 6
    assert value(series, "forecast_error", "live", SERVING_ID, side="under") == 3
    assert value(series, "scored_forecasts", "shadow", OTHER_ID) == 1, "one was refused"
    assert value(series, "pinball_loss", "shadow", OTHER_ID) == 0.5
    comparison.end(OTHER_ID)
    comparison.live_stepped(live, events, first)
    assert value(series, "scored_forecasts", "live", SERVING_ID) == 2


def model_of(metadata: Any) -> Any:
    """Return as much of a served model as a comparison reads."""
    bundle = type("Bundle", (), {"metadata": metadata})
    return type("ServedModel", (), {"model_id": metadata.model_id, "engine": type("Engine", (), {"bundle": bundle})})


def value(series: CollectorRegistry, what: str, role: str, model_id: str, **labels: str) -> float | None:
    return series.get_sample_value(
        f"rillcast_compared_{what}_total", {"role": role, "model_id": model_id, "horizon": "1", **labels}
    )
