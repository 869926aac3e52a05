"""Two models in one service on real Kafka: each forecasts its streams once, through a crash, from stored state."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

from tests.support.kafka_cluster import KafkaCluster, unique
from tests.support.service_process import service
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
        "models": json.dumps(
            [
                {"name": "even", "model": str(toys["even"]), "match": "s[02468]"},
                {"name": "odd", "model": str(toys["odd"]), "only": "kind=b"},
            ]
        ),
        "kafka.bootstrap_servers": kafka.bootstrap_servers,
        "kafka.group_id": unique("group"),
        "kafka.group_instance_id": "one",  # its successor ends the transaction that the crash leaves open
        "kafka.session_timeout_s": 6,
        "worker.delivery": "exactly_once",
        "worker.commit_interval_s": 0.05,
        "worker.max_poll_records": 20,
        "state.snapshot_interval_s": 0.2,
        "state.snapshot_events_per_stream": 0,
        "input.topic": topic,
        "output.topic": kafka.create_topic("forecasts", PARTITIONS),
        "dead_letters.topic": kafka.create_topic("dead-letters"),
    }
    with service(settings, tmp_path) as first:
        first.wait_until(lambda: first.metric('rillcast_forecasts_total{model="odd"}') > 100, "some forecasts")
        first.kill()
    with service(settings, tmp_path) as last:
        last.wait_until(
            lambda: sum(kafka.committed(str(settings["kafka.group_id"]), topic).values()) == RECORDS, "all records"
        )
        assert last.stop() == 0, last.log[-4000:]
    found = defaultdict[str, dict[str, int]](dict)
    published = [record.value or b"" for record in kafka.read_all(str(settings["output.topic"]))]
    for value in published:
        record = json.loads(value)
        found[record["unique_id"]][record["ds"]] = int(record["quantiles"]["0.5"][0])
    assert {unique_id: [at[ds] for ds in sorted(at)] for unique_id, at in found.items()} == {
        unique_id: unroll(ys, MULTIPLIERS["odd" if int(unique_id[1:]) % 2 else "even"])
        for unique_id, ys in values.items()
    }
    assert max(Counter(published).values()) == 1, "each once"
