"""The topic of anomalies on a real broker: exactly what the forecasts say, once, through kills; and followed live."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.kafka_cluster import KafkaCluster, unique
from tests.support.paths import ROOT
from tests.support.service_process import service
from tests.support.transports import CLIENTS

START_MS = 1_714_521_600_000
HOUR_MS = 3_600_000
STREAMS, STEPS = 40, 100
DEADLINE_S = 60.0


def observations(first: int, last: int) -> tuple[list[bytes | None], list[bytes | None]]:
    """Return noise around a daily wave, with a spike now and then."""
    rng = np.random.default_rng(first)
    values: list[bytes | None] = []
    keys: list[bytes | None] = []
    for step in range(first, last):
        for stream in range(STREAMS):
            spike = 60.0 if step > 30 and (step * 7 + stream) % 50 == 0 else 0.0
            y = 20 + 4 * np.sin(2 * np.pi * step / 24 + stream) + rng.normal(0, 0.5) + spike
            record = {"unique_id": f"s{stream}", "ds": START_MS + step * HOUR_MS, "y": y}
            values.append(json.dumps(record).encode())
            keys.append(f"s{stream}".encode())
    return values, keys


def source_of(record: bytes | None) -> tuple[int, int]:
    source = json.loads(record or b"")["source"]
    return source["partition"], source["offset"]


@pytest.mark.parametrize("client", CLIENTS)
def test_the_topic_has_each_anomaly_once_through_a_kill(kafka: KafkaCluster, client: str, tmp_path: Path) -> None:
    settings = {
        "model": "universal:1h",
        "kafka.client": client,
        "kafka.bootstrap_servers": kafka.bootstrap_servers,
        "kafka.group_id": unique("group"),
        "kafka.session_timeout_s": 6,
        "worker.delivery": "exactly_once",
        "worker.max_poll_records": 200,
        "input.topic": kafka.create_topic("observations", 2),
        "output.topic": kafka.create_topic("forecasts", 2),
        "dead_letters.topic": kafka.create_topic("dead-letters"),
        "anomalies.topic": kafka.create_topic("anomalies", 2),
        "anomalies.tail_probability": 0.02,
    }
    topic, group = str(settings["input.topic"]), str(settings["kafka.group_id"])
    kafka.produce(topic, *observations(0, STEPS // 2))

    def committed() -> int:
        return sum(kafka.committed(group, topic).values())

    def forecasts() -> list[dict[str, Any]]:
        return [json.loads(record.value or b"") for record in kafka.read_all(str(settings["output.topic"]))]

    def expected() -> list[tuple[int, int]]:
        return [
            (record["source"]["partition"], record["source"]["offset"])
            for record in forecasts()
            if record["anomaly"] is not None and np.float32(record["anomaly"]) > np.float32(0.98)
        ]

    def anomalies() -> list[tuple[int, int]]:
        return [source_of(record.value) for record in kafka.read_all(str(settings["anomalies.topic"]))]

    with service(settings, tmp_path) as process:
        process.wait_until(lambda: committed() > 0, "a first commit")
        kafka.produce(topic, *observations(STEPS // 2, STEPS))
        process.kill()
    with service(settings, tmp_path) as process:
        # The markers of transactions take offsets of the input only if it is written in transactions, which it is not.
        process.wait_until(lambda: committed() == STREAMS * STEPS, "everything committed")
        assert process.metric("rillcast_anomalies_published_total") > 0
        # What lies behind a transaction that the kill left open is not seen before that has timed out.
        process.wait_until(lambda: len(forecasts()) >= STREAMS * STEPS, "the last open transaction")
        process.wait_until(lambda: len(anomalies()) >= len(expected()), "the last open transaction")
        assert process.stop() == 0
    assert len(forecasts()) == STREAMS * STEPS
    assert len(expected()) > 20
    assert sorted(anomalies()) == sorted(expected())


def test_new_anomalies_are_followed_until_it_is_interrupted(kafka: KafkaCluster, tmp_path: Path) -> None:
    topic = kafka.create_topic("anomalies", 2)
    record = {"ds": "2024-05-01T00:00:00.000Z", "y": 9, "anomaly": 0.999, "status": "ok", "model": "m"}

    def tell(unique_id: str, offset: int) -> None:
        source = {"partition": 0, "offset": offset}
        kafka.produce(topic, [json.dumps(record | {"unique_id": unique_id, "source": source}).encode()])

    tell("old", 0)
    command = [sys.executable, "-m", "rillcast", "anomalies", "--follow", "--topic", topic, "--json"]
    said = tmp_path / "said"
    with said.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--kafka.bootstrap-servers", kafka.bootstrap_servers], stdout=output, cwd=ROOT
        )
    try:
        deadline, offset = time.monotonic() + DEADLINE_S, 0
        while not said.stat().st_size:  # when it has joined is not to be seen, so it is told until it hears
            assert process.poll() is None
            assert time.monotonic() < deadline
            offset += 1
            tell("new", offset)
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE_S) == 130
    finally:
        process.kill()
        process.wait()
    assert {json.loads(line)["unique_id"] for line in said.read_text().splitlines()} == {"new"}
