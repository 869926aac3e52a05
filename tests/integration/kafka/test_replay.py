"""Data sets into a topic."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from rillcast import cli
from tests.support.kafka_cluster import KafkaCluster
from tests.support.paths import ROOT
from tests.support.transports import CLIENTS


@pytest.mark.parametrize("client", CLIENTS)
def test_replay_sends_every_record_keyed_by_its_stream(
    client: str, kafka: KafkaCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    topic = kafka.create_topic("observations", 3)
    lines = [json.dumps({"unique_id": f"s{n % 5}", "ds": 1_714_521_600_000 + n, "y": n}).encode() for n in range(500)]
    lines.insert(250, b"not a record")
    data = tmp_path / "data.jsonl"
    data.write_bytes(b"\n".join(lines) + b"\n")
    flags = ["--kafka.bootstrap-servers", kafka.bootstrap_servers, "--kafka.client", client]
    code = cli.main(["replay", str(data), "--topic", topic, "--json", "--dead-letters.topic", "no-such-topic", *flags])
    assert code == 0
    assert json.loads(capsys.readouterr().out)["events"] == 501
    records = kafka.read_all(topic)
    assert sorted(record.value or b"" for record in records) == sorted(lines)
    for n in range(5):
        mine = [record for record in records if record.key == f"s{n}".encode()]
        assert len({record.partition for record in mine}) == 1
        assert [json.loads(record.value or b"")["y"] for record in mine] == list(range(n, 500, 5))
    assert [record.value for record in records if record.key is None] == [b"not a record"]


def test_the_replayer_of_the_compose_file_fills_the_topic(kafka: KafkaCluster) -> None:
    """Its own command, but for the places of the programs, the broker and the topics, and a hundredfold rate."""
    compose = yaml.safe_load((ROOT / "deploy" / "compose" / "compose.yml").read_text())["services"]["replayer"]
    (script,) = compose["command"]
    topic, letters = kafka.create_topic("observations", 4), kafka.create_topic("dead-letters")
    for written, here in {
        "python /data": f"{sys.executable} {ROOT}/deploy/compose",
        "rillcast replay": f"{sys.executable} -m rillcast replay --dead-letters.topic {letters}",
        "kafka:9092": kafka.bootstrap_servers,
        "topic observations": f"topic {topic}",
        "--rate 35": "--rate 3500",
    }.items():
        assert script.count(written) == 1, written
        script = script.replace(written, here)
    done = subprocess.run([*compose["entrypoint"], script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    records = kafka.read_all(topic)
    assert f"sent {len(records):,} events" in done.stdout
    times: dict[bytes, list[int]] = {}
    for record in records:
        times.setdefault(record.key or b"", []).append(json.loads(record.value or b"")["ds"])
    assert len(times) == 6
    assert all(found == sorted(set(found)) and len(found) > 900 for found in times.values()), "each stream in order"
