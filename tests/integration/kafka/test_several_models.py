"""Two models in one service on real Kafka: each forecasts its streams once, through a crash, from stored state."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import numpy as np

from tests.support import killed_service
from tests.support.kafka_cluster import KafkaCluster, unique
from tests.support.toy import HOUR_MS, unroll, write_toy

PARTITIONS, STREAMS, RECORDS = 2, 10, 800
START_MS = 1_714_564_800_000
MULTIPLIERS = {"even": 31, "odd": 37}


def test_each_model_forecasts_its_streams_once_through_a_crash(kafka: KafkaCluster, tmp_path: Path) -> None:
    topic, values = kafka.create_topic("mixed", PARTITIONS), defaultdict[str, list[int]](list)
    rng = np.random.default_rng(5)
    records: dict[int, list[bytes]] = {partition: [] for partition in range(PARTITIONS)}
    for at in range(RECORDS):
        stream, y = int(rng.integers(STREAMS)), int(rng.integers(1, 1_000))
        record = {"unique_id": f"s{stream}", "ds": START_MS + at * HOUR_MS, "y": y, "kind": "ab"[stream % 2]}
        records[stream // 5].append(json.dumps(record).encode())  # both partitions have streams of both models
        values[f"s{stream}"].append(y)
    for partition, encoded in records.items():
        kafka.produce(topic, encoded, partition=partition)
    toys = {name: write_toy(tmp_path / f"{name}.onnx", m) for name, m in MULTIPLIERS.items()}
    settings: dict[str, object] = {
        **killed_service.SETTINGS,
        "models": json.dumps(
            [
                {"name": "even", "model": str(toys["even"]), "match": "s[02468]"},
                {"name": "odd", "model": str(toys["odd"]), "only": "kind=b"},
            ]
        ),
        "kafka.bootstrap_servers": kafka.bootstrap_servers,
        "kafka.group_id": unique("group"),
        "input.topic": topic,
        "output.topic": kafka.create_topic("forecasts", PARTITIONS),
        "dead_letters.topic": kafka.create_topic("dead-letters"),
    }
    killed_service.serve_through_a_kill(
        kafka,
        settings,
        tmp_path,
        metric='rillcast_forecasts_total{model="odd"}',
        forecasts=100,
        records=RECORDS,
    )
    assert killed_service.medians(kafka, str(settings["output.topic"])) == {
        unique_id: unroll(ys, MULTIPLIERS["odd" if int(unique_id[1:]) % 2 else "even"])
        for unique_id, ys in values.items()
    }
