from __future__ import annotations

import re
from pathlib import Path

from prometheus_client import CollectorRegistry

from pipeline.metrics import TABLE, Metrics
from tests.support.toy import toy_bundle

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"
ROW = re.compile(r"^\| `(?P<name>\w+)` \| (?P<kind>\w+) \| (?P<labels>[^|]*) \| (?P<help>[^|]*) \|$", re.MULTILINE)


def test_documented_table_is_the_table_in_the_code() -> None:
    documented = [
        (row["name"], row["kind"], tuple(re.findall(r"`(\w+)`", row["labels"])), row["help"].strip())
        for row in ROW.finditer(DOCS.read_text())
    ]
    assert documented == [(m.name, m.kind, m.labels, m.help) for m in TABLE]


def test_every_metric_of_the_table_is_exposed() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry, toy_bundle().metadata, "cpu")
    metrics.lag({0: 5})
    exposed = {family.name for family in registry.collect()}
    for row in TABLE:
        assert row.name.removesuffix("_total") in exposed, row.name


def test_names_follow_the_conventions() -> None:
    for row in TABLE:
        assert row.name.startswith("rillcast_")
        assert row.name.endswith("_total") == (row.kind == "counter"), row.name
        assert "unique_id" not in row.labels
        assert "stream" not in row.labels, "a stream id is never a label"
        assert row.help.endswith("."), row.name


def test_lag_of_partitions_that_left_is_dropped() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry, toy_bundle().metadata, "cpu")
    metrics.lag({0: 5, 1: 7})
    metrics.lag({1: 6})
    assert registry.get_sample_value("rillcast_source_lag_records", {"partition": "0"}) is None
    assert registry.get_sample_value("rillcast_source_lag_records", {"partition": "1"}) == 6


def test_model_and_build_are_named() -> None:
    registry = CollectorRegistry()
    metadata = toy_bundle().metadata
    Metrics(registry, metadata, "cpu")
    labels = {"name": "toy", "model_id": metadata.model_id, "cell": "toy", "freq": "1h", "device": "cpu"}
    assert registry.get_sample_value("rillcast_model_info", labels) == 1
