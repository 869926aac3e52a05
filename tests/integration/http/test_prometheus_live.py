"""Rules and dashboards against a running service on real Kafka, scraped by a real Prometheus.

The service follows a registry: a model is in its shadow, and another is promoted and takes over while it is watched.

Every query of every panel returns data and none is an error; every rule is evaluated without one. What the dashboards
look like is drawn from the same answers into pages in `build/dashboards/`.
"""

from __future__ import annotations

import datetime as dt
import html
import json
import math
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from deploy.grafana.dashboards import DASHBOARDS
from deploy.grafana.model import Dashboard
from rillcast.bundle.registry.model_registry import ModelRegistry
from rillcast.observability.stages import STAGES
from tests.support import dashboard_page
from tests.support.ci import cannot_run
from tests.support.kafka_cluster import KafkaCluster, unique
from tests.support.paths import ROOT
from tests.support.prometheus import Prometheus, PrometheusError, programs, running_prometheus
from tests.support.service_process import ServiceProcess, service
from tests.support.unrolls import hourly_forecaster, write_bundle

HOUR_MS = 3_600_000
STREAMS = 40
SCRAPES = 15
DEADLINE_S = 180.0
OF_EXPERTS = ("rillcast_network_share_ratio", "rillcast_expert_weight_ratio")
"""Metrics that the networks served here have not; tests/unit/observability/test_expert_weights.py has theirs."""
PAUSE_S = 0.3  # a topic without a pause leaves a shadow no time to catch up
MOST_PAUSE_S = 5.0  # and a busy machine needs a longer one
COMPLETED = 'rillcast_model_swaps_total{outcome="completed"}'
NOW = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)


@dataclass
class Live:
    prometheus: Prometheus
    started: float


@pytest.fixture(scope="module")
def live(kafka: KafkaCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A service at work for some seconds, and the Prometheus that has watched it."""
    try:
        programs()
    except PrometheusError as error:
        cannot_run(str(error))
    folder = tmp_path_factory.mktemp("live")
    registry = ModelRegistry.at(str(folder / "registry"))
    first, shadow, second = (
        registry.push(write_bundle(hourly_forecaster(hidden=16, seed=seed), folder / str(seed)).read_bytes(), NOW)[0]
        for seed in range(3)
    )
    registry.promote(first.model_id, NOW)
    registry.promote(shadow.model_id, NOW, alias="shadow")
    settings = {
        "model": f"{folder / 'registry'}@live",
        "model_cache": folder / "cache",
        "rollout.shadow": f"{folder / 'registry'}@shadow",
        "rollout.poll_interval_s": 0.2,
        "kafka.bootstrap_servers": kafka.bootstrap_servers,
        "kafka.group_id": unique("group"),
        "input.topic": kafka.create_topic("observations", 2),
        "output.topic": kafka.create_topic("forecasts", 2),
        "dead_letters.topic": kafka.create_topic("dead-letters", 1),
        "state.snapshot_interval_s": 1,
    }
    started = time.time()
    with service(settings, folder) as process:
        process.wait_until(lambda: process.get("/readyz")[0] == 200, "ready")
        with running_prometheus(configuration(folder, process), folder) as prometheus:
            promote = partial(registry.promote, second.model_id, NOW)
            feed(kafka, str(settings["input.topic"]), process, prometheus, promote)
            yield Live(prometheus, started)


def configuration(folder: Path, process: ServiceProcess) -> Path:
    """Copy the configuration of deploy/prometheus: the same, but with the process's address, and in a hurry."""
    shutil.copytree(ROOT / "deploy" / "prometheus", folder / "prometheus")
    path = folder / "prometheus" / "prometheus.yml"
    document = yaml.safe_load(path.read_text())
    (scrape,) = document["scrape_configs"]
    assert scrape["static_configs"] == [{"targets": ["rillcast:9464"]}]
    scrape["static_configs"] = [{"targets": [f"127.0.0.1:{process.port}"]}]
    document["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    path.write_text(yaml.safe_dump(document))
    recording = folder / "prometheus" / "rules" / "recording.yml"
    recording.write_text(recording.read_text().replace("interval: 15s", "interval: 1s"))
    return path


def feed(
    kafka: KafkaCluster, topic: str, process: ServiceProcess, prometheus: Prometheus, promote: Callable[[], object]
) -> None:
    """Send hours of observations, good, late and bad, until enough scrapes have seen them at work.

    Half way a model is promoted; the rest is for it.
    """
    noise = np.random.default_rng(0)
    deadline = time.monotonic() + DEADLINE_S
    hour, sent, promoted, pause_s = 0, 0, False, PAUSE_S
    while True:
        values: list[bytes | None] = []
        keys: list[bytes | None] = []
        for _ in range(24):
            hour += 1
            for stream in range(STREAMS):
                y = 10 + 3 * math.sin(2 * math.pi * hour / 24 + stream) + noise.normal(0, 0.3)
                at = hour - 5 if stream == 3 and hour % 24 == 7 else hour
                values.append(json.dumps({"unique_id": f"s{stream}", "ds": at * HOUR_MS, "y": y}).encode())
                keys.append(f"s{stream}".encode())
        values.append(b"not an observation")
        keys.append(b"s0")
        kafka.produce(topic, values, keys)
        sent += 24 * STREAMS
        process.wait_until(lambda sent=sent: events(process) >= sent, f"{sent} events stepped")  # type: ignore[misc]
        time.sleep(pause_s)  # the shadow catches up only while no event comes; what it reached is looked at below
        watched = prometheus.query('count_over_time(rillcast_events_total{status="ok"}[5m] )')
        scrapes = float(watched[0]["value"][1]) if watched else 0
        models = counted(prometheus, "model_id", "rillcast_scored_forecasts_total")
        roles = counted(prometheus, "role", "rillcast_compared_scored_forecasts_total")
        stages = counted(prometheus, "stage", "rillcast_stage_seconds_count")
        if roles < 2 or (promoted and models < 2):  # a model has not caught up yet
            pause_s = min(MOST_PAUSE_S, 1.1 * pause_s)
        if scrapes >= SCRAPES / 2 and roles == 2 and not promoted:
            promoted = True
            promote()
            process.wait_until(lambda: process.metric(COMPLETED) == 1, "the promoted model serves")
        if scrapes >= SCRAPES and models == 2 and stages == len(STAGES):
            return
        seen = (
            f"{scrapes:g} of {SCRAPES} scrapes, scores of {models} of 2 models, {roles} of 2 roles compared, "
            f"{stages} of {len(STAGES)} stages timed"
        )
        assert time.monotonic() < deadline, f"within {DEADLINE_S:g} s only {seen}"


def counted(prometheus: Prometheus, label: str, counter: str) -> int:
    """Return for how many values of a label a counter has been seen to grow."""
    return len(prometheus.query(f"sum by ({label}) (increase({counter}[5m])) > 0"))


def events(process: ServiceProcess) -> float:
    text = process.get("/metrics")[1]
    return sum(float(x.rsplit(" ", 1)[1]) for x in text.splitlines() if x.startswith("rillcast_events_total{"))


def asked(expression: str) -> str:
    """Fill in Grafana's variables."""
    return expression.replace("$job", "rillcast").replace("$__rate_interval", "10s").replace("$__range", "5m")


def answers(live: Live, dashboard: Dashboard) -> dict[str, list[tuple[str, list[dict[str, Any]]]]]:
    """Return by panel what its queries return."""
    now = time.time()
    return {
        place.panel.title: [
            (query.legend, live.prometheus.query_range(asked(query.expr), live.started, now, 0.5))
            for query in place.panel.queries
        ]
        for place in dashboard.places()
    }


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda dashboard: dashboard.uid)
def test_every_query_of_every_panel_returns_numbers(dashboard: Dashboard, live: Live) -> None:
    found = answers(live, dashboard)
    empty = []
    for place in dashboard.places():
        for query, (_, series) in zip(place.panel.queries, found[place.panel.title], strict=True):
            values = [float(value) for one in series for _, value in one["values"]]
            of_experts = any(metric in query.expr for metric in OF_EXPERTS)
            if any(math.isfinite(value) for value in values) == of_experts:
                empty.append(f"{place.panel.title}: {query.expr}")
            if query.legend == "{{horizon}} ahead":
                horizons = [int(one["metric"]["horizon"]) for one in series]
                assert horizons == sorted(horizons), "in the order of numbers, not of texts"
    assert not empty, "no data, or data of experts that nobody serves:\n" + "\n".join(empty)
    picture = ROOT / "build" / "dashboards" / f"{dashboard.uid}.png"
    dashboard_page.render(dashboard, found, picture)
    page = dashboard_page.write_page(dashboard, picture).read_text()
    assert all(html.escape(place.panel.title) in page for place in dashboard.places())


def test_annotations_show_the_start_and_the_roll_out(live: Live) -> None:
    """For one service and for all, as Grafana asks when several are chosen."""
    for chosen in ("rillcast", "(rillcast|other)"):
        seen = {
            annotation.name: live.prometheus.query_range(
                annotation.query.expr.replace("$job", chosen), live.started, time.time(), 1
            )
            for annotation in DASHBOARDS[0].annotations
        }
        assert [one["metric"] for one in seen["Starts"]] == [{"job": "rillcast"}]
        assert [one["metric"] for one in seen["Roll-outs"]] == [{"job": "rillcast"}]


def test_the_panels_say_what_happened(live: Live) -> None:
    assert float(live.prometheus.query('sum(up{job="rillcast"})')[0]["value"][1]) == 1
    (refused,) = live.prometheus.query('rillcast_dead_letters_total{reason="not_json"}')
    assert float(refused["value"][1]) > 0
    (late,) = live.prometheus.query('rillcast_events_total{status="late"}')
    assert float(late["value"][1]) > 0
    by_model = live.prometheus.query("sum by (model_id) (rillcast_scored_forecasts_total) > 0")
    assert len(by_model) == 2, "the forecasts of the model before are not those of the model after"
    compared = live.prometheus.query("sum by (role, model_id) (rillcast_compared_scored_forecasts_total) > 0")
    assert {each["metric"]["role"] for each in compared} == {"live", "shadow"}
    (coverage,) = live.prometheus.query('job_horizon:rillcast_coverage:ratio_rate1h{horizon="1"}')
    assert 0 <= float(coverage["value"][1]) <= 1


def test_every_rule_is_evaluated_without_an_error(live: Live) -> None:
    rules = live.prometheus.rules()
    assert rules
    broken = {rule["name"]: rule.get("lastError") for rule in rules if rule["health"] != "ok"}
    assert not broken


def test_nothing_alerts_while_all_is_well(live: Live) -> None:
    firing = [rule["name"] for rule in live.prometheus.rules() if rule.get("state") == "firing"]
    assert not firing
