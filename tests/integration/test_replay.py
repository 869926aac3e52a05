from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline import cli
from tests.support.kafka_cluster import KafkaCluster
from tests.support.transports import CLIENTS


@pytest.mark.parametrize("client", CLIENTS)
def test_replay_sends_every_record_keyed_by_its_stream(
    client: str, kafka: KafkaCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    topic, letters = kafka.create_topic("observations", 3), kafka.create_topic("dead-letters")
    lines = [json.dumps({"unique_id": f"s{n % 5}", "ds": n, "y": n}).encode() for n in range(500)]
    lines.insert(250, b"not a record")
    data = tmp_path / "data.jsonl"
    data.write_bytes(b"\n".join(lines) + b"\n")
    flags = ["--kafka.bootstrap-servers", kafka.bootstrap_servers, "--kafka.client", client]
    code = cli.main(["replay", str(data), "--topic", topic, "--json", "--dead-letters.topic", letters, *flags])
    assert code == 0
    assert json.loads(capsys.readouterr().out)["events"] == 501
    records = kafka.read_all(topic)
    assert sorted(record.value or b"" for record in records) == sorted(lines)
    for n in range(5):
        mine = [record for record in records if record.key == f"s{n}".encode()]
        assert len({record.partition for record in mine}) == 1
        assert [json.loads(record.value or b"")["y"] for record in mine] == list(range(n, 500, 5))
    assert [record.value for record in records if record.key is None] == [b"not a record"]
