"""Raw events on real Kafka: a crash, a rebalance and a restart leave the offline group-by and unroll, each once."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from rillcast.bundle.frequency import Frequency
from rillcast.engine.periods import Aggregation, Close, Kind
from tests.support.aggregation import BEGIN_MS, MINUTE_MS, Raw, expected, offline, published
from tests.support.kafka_cluster import KafkaCluster, unique
from tests.support.service_process import ServiceProcess, json_lines, service
from tests.support.toy import HOUR_MS, unroll, write_toy
from tests.support.transports import CLIENTS
from tests.support.workers import observation

PARTITIONS, STREAMS, EVENTS = 3, 40, 6_000


def raw_events(seed: int) -> list[Raw]:
    """Return events of an hour's walk a hundred events, out of order by up to an hour and a half."""
    rng, found = np.random.default_rng(seed), []
    for at in range(EVENTS):
        stream = int(rng.integers(STREAMS))
        late = int(rng.choice([0, 0, 10, 45, 90]))
        found.append(
            Raw(stream % PARTITIONS, f"s{stream}", BEGIN_MS + (at // 2 - late) * MINUTE_MS, int(rng.integers(1, 1000)))
        )
    return found


def produce(kafka: KafkaCluster, topic: str, events: list[Raw]) -> None:
    for partition in range(PARTITIONS):
        own = [event for event in events if event.partition == partition]
        values = [observation(event.unique_id, event.y, event.ds) for event in own]
        kafka.produce(topic, values, [event.unique_id.encode() for event in own], partition)


@pytest.mark.parametrize(
    ("client", "kind", "close", "correctable"),
    [(CLIENTS[0], "sum", "partition", 0), (CLIENTS[1], "last", "stream", 1)],
)
def test_raw_events_are_aggregated_once_through_a_crash_and_rebalances(
    client: str, kind: Kind, close: Close, correctable: int, kafka: KafkaCluster, tmp_path: Path
) -> None:
    """With `correctable` periods, late events correct closed ones, and the forecasts since are revised."""
    grace_s = 1_800 if close == "partition" else 0
    events, topic = raw_events(7), kafka.create_topic("raw", PARTITIONS)
    settings: dict[str, object] = {
        "model": write_toy(tmp_path / "toy.onnx"),
        "kafka.client": client,
        "kafka.bootstrap_servers": kafka.bootstrap_servers,
        "kafka.group_id": unique("group"),
        "kafka.session_timeout_s": 6,
        "worker.delivery": "exactly_once",
        "worker.commit_interval_s": 0.05,
        "worker.max_poll_records": 50,
        "state.snapshot_interval_s": 0.2,
        "state.snapshot_events_per_stream": 0,
        "input.topic": topic,
        "input.aggregate": kind,
        "input.close": close,
        "input.grace_s": grace_s,
        "input.empty": "zero",
        "input.late": "drop",
        "input.allowed_lateness_periods": correctable,
        "output.topic": kafka.create_topic("forecasts", PARTITIONS),
        "dead_letters.topic": kafka.create_topic("dead-letters"),
    }

    def committed() -> int:
        return sum(kafka.committed(str(settings["kafka.group_id"]), topic).values())

    def member(name: str) -> AbstractContextManager[ServiceProcess]:
        """Start a member; the next of its name ends the transaction that a kill left open."""
        return service(settings | {"kafka.group_instance_id": name}, tmp_path)

    third = EVENTS // 3
    produce(kafka, topic, events[:third])
    with member("killed") as first:
        first.wait_until(lambda: committed() >= third // 2, "a sixth of the events are committed")
        with member("survivor") as second:
            second.wait_until(lambda: kafka.members(str(settings["kafka.group_id"])) == 2, "both are members")
            produce(kafka, topic, events[third : 2 * third])
            first.kill()
            second.wait_until(lambda: committed() == 2 * third, "the survivor has taken over")
            assert second.stop() == 0, second.log[-4000:]
    produce(kafka, topic, events[2 * third :])
    with member("killed") as last:
        last.wait_until(lambda: committed() == EVENTS, "all events are committed")
        assert last.stop() == 0, last.log[-4000:]
    aggregation = Aggregation(kind, Frequency(HOUR_MS), close, grace_s * 1000, 0.0, correctable=correctable)
    values = [record.value or b"" for record in kafka.read_all(str(settings["output.topic"]))]
    assert published(values) == expected(events, aggregation)
    assert max(Counter(values).values()) == 1, "each once"
    assert any(b'"revision"' in value for value in values) == bool(correctable)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_file_of_raw_events_is_aggregated_to_its_end(suffix: str, tmp_path: Path) -> None:
    events = [Raw(0, "a", BEGIN_MS + at * 17 * MINUTE_MS, at + 1) for at in range(100)]
    frame = pl.DataFrame([(e.unique_id, e.ds, e.y) for e in events], schema=["unique_id", "ds", "y"], orient="row")
    source, sink = tmp_path / f"raw.{suffix}", tmp_path / "forecasts.jsonl"
    if suffix == "csv":
        frame.write_csv(source)
    else:
        frame.write_parquet(source)
    settings = {
        "model": write_toy(tmp_path / "toy.onnx"),
        "input.path": source,
        "input.aggregate": "sum",
        "output.path": sink,
        "dead_letters.path": tmp_path / "dead.jsonl",
    }
    with service(settings, tmp_path) as process:
        assert process.wait() == 0, process.log[-4000:]
    sentinel = Raw(0, "a", events[-1].ds + HOUR_MS, 1)
    whole = offline([*events, sentinel], Aggregation("sum", Frequency(HOUR_MS), empty=0.0))["a"]
    found = published(json.dumps(record).encode() for record in json_lines(sink))["a"]
    assert found == list(zip(whole, unroll(int(y) for y in whole.values()), strict=True))
