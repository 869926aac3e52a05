"""The page of performance: each figure has a target, and the default bundle is in every table."""

from __future__ import annotations

from typing import Any

from tests.benchmarks.page import TARGETS, page
from tests.benchmarks.suite import FIGURES, PARTS, figures

MACHINE = {"cpu": "CPU", "cores": 2, "python": "3", "onnxruntime": "1", "numpy": "2"}
RUN = {
    "events": 10,
    "events_per_second": 1_000.0,
    "cpu_us_per_event": 7.0,
    "peak_rss_mib": 99.0,
    "stages_us_per_event": {"encode": 3.25},
    "rillcast_is_faster_by": 21.0,
    "workers_cores": 1.0,
    "rest_us_per_event": 2.5,
    "rate_ratio": 1.75,
    "cpu_per_event_ratio": 1.25,
    "cores": 2.0,
}


def results() -> dict[str, Any]:
    case: dict[str, Any] = {
        "client": "librdkafka",
        "bytes_per_forecast": 912.4,
        "ratio_to_echo": 0.5,
        "busy_ratio": 0.4,
    }
    runs = {"service": RUN, "echo": RUN, "file": RUN}
    kafka: dict[str, Any] = {
        "streams": 10,
        "delivery": "at_least_once",
        "cases": [case | {"codec": codec, "runs": runs, "file_to_topic_ratio": 0.8} for codec in ("json", "float32")],
    }
    file: dict[str, Any] = {
        "streams": 10,
        "events": 100,
        "format": "csv",
        "bytes_per_forecast": 4_437.0,
        "file_sorted_ratio": 1.25,
        "runs": {"interleaved": RUN, "sorted": RUN},
    }
    peers = "rillcast", "quix", "flink", "kafka_streams", "kafka_streams_batched"
    latency: dict[str, Any] = {
        "rate": 5.0,
        "events": 10,
        "p50_ms": 4,
        "p99_ms": 20,
        "p999_ms": 30,
        "max_ms": 40,
        "mean_ms": 7.0,
        "handed_over_mean_ms": 4.5,
        "poll_mean_ms": 2.0,
        "poll_mean_events": 90.0,
        "commit_mean_ms": 3.0,
        "measured": {"commit": "0123abc", "load": 1.26},
        "runs": [
            {"p50_ms": 4, "p99_ms": 20, "p999_ms": 30, "max_ms": 40},
            {"p50_ms": 5, "p99_ms": 25, "p999_ms": 50, "max_ms": 60},
        ],
    }
    one: dict[str, dict[str, Any]] = {
        "step": {"steps": [{"batch": 1, "min": 1, "max": 2, "steps_per_second": 1, "us_per_step": 1}]},
        "kafka": kafka,
        "file": file,
        "peers": {"runs": dict.fromkeys(peers, RUN)},
        "latency": latency,
        "workers": {"runs": [RUN | {"workers": 1, "pinned": False}, RUN | {"workers": 2, "pinned": True}]},
        "memory": {"streams": 10, "rss_bytes": 100.0},
    }
    found = {part.name: one.get(part.name.removesuffix("_selected").removesuffix("_default")) for part in PARTS}
    return {name: result | {"machine": MACHINE} for name, result in found.items() if result is not None}


def test_every_figure_has_a_target_and_the_default_bundle_is_in_every_table() -> None:
    assert set(TARGETS) == set(FIGURES)
    text = page(results())
    titles = "Engine alone", "From a file to a file", "Whole service over Kafka", "Several workers against one"
    for title in (*titles, "Latency", "Memory", "Neighbours"):
        assert f"## {title}\n" in text
        assert f"### {title}: the default bundle\n" in text
    assert "### Whole service over Kafka: the default bundle, 3 levels and 24 steps published\n" in text
    assert "| json | 912 | service | 1,000 | 0.50 | 7.0 | encode 3.25 |" in text
    assert "of which a poll took 2.0 ms from decoding to hand-over, with 90 events on average." in text
    assert "| p99_ms | 20 | 20 to 25 |" in text
    assert "| latency | 0123abc | 1.3 |" in text
    assert "| peers | not noted | not noted |" in text
    assert "| sorted | 1,000 | 7.0 | encode 3.25 |" in text
    assert "| 2 | a core each | 1,000 | 1.75 | 7.0 | 1.25 | 2.5 | 1.00 of 2 |" in text


def test_figures_come_from_the_part_that_measures_them() -> None:
    found = figures(results())
    expected = {
        "file_sorted_ratio": 1.25, "file_sorted_ratio_default": 1.25, "file_to_topic_ratio": 0.8,
        "ratio_to_echo_json_default": 0.5, "ratio_to_kafka_streams": 21.0, "ratio_to_flink": 21.0,
        "ratio_to_kafka_streams_batched": 21.0, "latency_p50_ms_default": 4, "peak_share_h128": None,
    }  # fmt: skip
    assert {name: found[name] for name in expected} == expected
