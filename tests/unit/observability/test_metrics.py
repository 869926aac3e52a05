from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
from prometheus_client import CollectorRegistry

from rillcast.events import EventBatch
from rillcast.observability.metric_table import TABLE
from rillcast.observability.metrics import Metrics
from rillcast.observability.stream_alarms import AlarmCollector, StreamAlarms
from tests.support.live_views import published, stepped
from tests.support.paths import ROOT
from tests.support.toy import toy_bundle

DOCS = ROOT / "docs" / "metrics.md"
ROW = re.compile(r"^\| `(?P<name>\w+)` \| (?P<kind>\w+) \| (?P<labels>[^|]*) \| (?P<help>[^|]*) \|$", re.MULTILINE)


def test_documented_table_is_the_table_in_the_code() -> None:
    documented = [
        (row["name"], row["kind"], tuple(re.findall(r"`(\w+)`", row["labels"])), row["help"].strip())
        for row in ROW.finditer(DOCS.read_text())
    ]
    assert documented == [(m.name, m.kind, m.labels, m.help) for m in TABLE]


def test_every_metric_of_the_table_is_exposed() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry, {"": toy_bundle().metadata}, "cpu")
    AlarmCollector(StreamAlarms(), 10, registry)
    metrics.lag({0: 5})
    exposed = {family.name for family in registry.collect()}
    for row in TABLE:
        assert row.name.removesuffix("_total") in exposed, row.name


def test_names_follow_the_conventions() -> None:
    for row in TABLE:
        assert row.name.startswith("rillcast_")
        assert row.name.endswith("_total") == (row.kind == "counter"), row.name
        assert "stream" not in row.labels
        assert ("unique_id" in row.labels) == (row.name == "rillcast_stream_alarm"), "the only one, and bounded"
        assert row.help.endswith("."), row.name


def events(first_offset: int, n: int, partition: int = 0) -> EventBatch:
    ids = [f"s{number}" for number in range(n)]
    return EventBatch.of(ids, [0] * n, [0.0] * n, partition=partition, first_offset=first_offset)


def test_lag_of_partitions_that_left_is_dropped() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry, {"": toy_bundle().metadata}, "cpu")
    metrics.lag({0: 5, 1: 7})
    metrics.lag({1: 6})
    assert registry.get_sample_value("rillcast_source_lag_records", {"partition": "0"}) is None
    assert registry.get_sample_value("rillcast_source_lag_records", {"partition": "1"}) == 6


def test_model_and_build_are_named() -> None:
    registry = CollectorRegistry()
    metadata = toy_bundle().metadata
    Metrics(registry, {"": metadata}, "cpu")
    labels = {"name": "toy", "model_id": metadata.model_id, "cell": "toy", "freq": "1h", "device": "cpu"}
    assert registry.get_sample_value("rillcast_model_info", labels) == 1


def test_series_of_several_models_name_their_table_and_those_of_one_model_none() -> None:
    registry = CollectorRegistry()
    toy = toy_bundle().metadata
    metrics = Metrics(registry, {"hours": toy, "days": toy.model_copy(update={"name": "slow", "freq": "1d"})}, "cpu")
    labels = {"model_id": toy.model_id, "cell": "toy", "device": "cpu"}
    of_days = labels | {"model": "days", "name": "slow", "freq": "1d"}
    assert registry.get_sample_value("rillcast_model_info", of_days) == 1
    assert (
        registry.get_sample_value("rillcast_model_info", labels | {"model": "hours", "name": "toy", "freq": "1h"}) == 1
    )
    events = EventBatch.of(["a", "b"], [0, 0], [1.0, 1.0])
    metrics.observe(replace(published(events, stepped(2), num_streams=2), route="days"))
    counted = [
        registry.get_sample_value("rillcast_events_total", {"status": "ok", "model": name})
        for name in ("hours", "days")
    ]
    assert counted == [0, 2]
    assert registry.get_sample_value("rillcast_streams", {"model": "days"}) == 2
    for name, lag in (("hours", 5), ("days", 7)):
        metrics.of_route(name).following("next", lag, 2)  # both tables, the same model
    metrics.of_route("hours").not_following("next")
    lags = [
        registry.get_sample_value("rillcast_model_warm_up_lag_records", {"model_id": "next", "model": name})
        for name in ("hours", "days")
    ]
    assert lags == [None, 7]
    alone = CollectorRegistry()
    Metrics(alone, {"": toy}, "cpu").observe(published(events, stepped(2)))
    assert alone.get_sample_value("rillcast_events_total", {"status": "ok"}) == 2


def test_scores_are_counted_by_their_names_and_unknown_ones_left_alone() -> None:
    registry = CollectorRegistry()
    names = ("pinball", "covered", "bias", "naive", "covered_6", "bias_6", "covered_late", "mine")
    metadata = toy_bundle().metadata.model_copy(update={"scores": names})
    metrics = Metrics(registry, {"": metadata}, "cpu")
    nan = np.nan
    score = np.array(
        [
            [0.5, 1.0, 0.25, 1.0, 0.0, -2.0, 1.0, 9.0],
            [0.25, 0.0, -0.5, 2.0, nan, nan, 1.0, 9.0],
            [nan, nan, nan, nan, 1.0, 3.0, 1.0, 9.0],
        ],
        dtype=np.float32,
    )
    metrics.observe(published(events(0, 3), stepped(3, score=score, anomaly=[0.98, 0.995, nan]), model=metadata))

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, {"model_id": metadata.model_id, **labels})

    assert value("rillcast_scored_forecasts_total", horizon="1") == 2
    assert value("rillcast_covered_forecasts_total", horizon="1") == 1
    assert value("rillcast_scored_forecasts_total", horizon="6") == 2
    assert value("rillcast_covered_forecasts_total", horizon="6") == 1
    assert value("rillcast_pinball_loss_total", horizon="1") == 0.75
    assert value("rillcast_naive_error_total", horizon="1") == 3.0
    assert value("rillcast_forecast_error_total", horizon="1", side="over") == 0.25
    assert value("rillcast_forecast_error_total", horizon="1", side="under") == 0.5
    assert value("rillcast_forecast_error_total", horizon="6", side="over") == 3.0
    assert value("rillcast_forecast_error_total", horizon="6", side="under") == 2.0
    assert value("rillcast_scored_forecasts_total", horizon="late") is None
    assert value("rillcast_rated_events_total") == 2
    assert value("rillcast_anomalous_events_total") == 1


def counted(batches: list[EventBatch]) -> list[float]:
    """Return how many events have been counted after each batch."""
    registry = CollectorRegistry()
    metrics, seen = Metrics(registry, {"": toy_bundle().metadata}, "cpu"), []
    for batch in batches:
        metrics.observe(published(batch, stepped(len(batch)), model=toy_bundle().metadata))
        seen.append(registry.get_sample_value("rillcast_events_total", {"status": "ok"}) or 0.0)
    return seen


def test_an_event_that_comes_again_is_not_counted_again() -> None:
    assert counted([events(5, 2), events(2, 1, partition=1), events(5, 3), events(3, 1, partition=1)]) == [2, 3, 4, 5]


def test_partitions_may_be_mixed_and_offsets_missing() -> None:
    def mixed(*where: tuple[int, int]) -> EventBatch:
        partitions, offsets = (np.array(column, np.int64) for column in zip(*where, strict=True))
        return replace(events(0, len(where)), partitions=partitions, offsets=offsets)

    assert counted([mixed((0, 1), (1, 1), (0, 4), (1, 2)), mixed((0, 3), (1, 2), (0, 5), (1, 3))]) == [4, 6]


def test_going_far_back_and_no_events_forget_nothing() -> None:
    assert counted([events(9, 1), events(1, 1), events(0, 0), events(9, 2)]) == [1, 1, 1, 2]
