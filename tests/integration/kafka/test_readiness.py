from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.kafka_cluster import KafkaCluster, unique
from tests.support.service_process import service
from tests.support.toy import write_toy
from tests.support.transports import CLIENTS


@pytest.mark.parametrize("client", CLIENTS)
def test_a_member_without_partitions_is_ready(client: str, kafka: KafkaCluster, tmp_path: Path) -> None:
    """A spare member is ordinary (a rolling deploy has one); a pod that is never ready would block it."""
    settings = {
        "model": write_toy(tmp_path / "toy.onnx"),
        "kafka.client": client,
        "kafka.bootstrap_servers": kafka.bootstrap_servers,
        "kafka.group_id": unique("group"),
        "kafka.session_timeout_s": 6,
        "input.topic": kafka.create_topic("observations", 1),
        "output.topic": kafka.create_topic("forecasts", 1),
        "dead_letters.topic": kafka.create_topic("dead-letters", 1),
    }
    with service(settings, tmp_path) as first, service(settings, tmp_path) as second:
        first.wait_until(lambda: first.get("/readyz")[0] == 200, "ready")
        second.wait_until(lambda: second.get("/readyz")[0] == 200, "ready")
        assert first.metric("rillcast_partitions") + second.metric("rillcast_partitions") == 1
        assert (first.stop(), second.stop()) == (0, 0)
