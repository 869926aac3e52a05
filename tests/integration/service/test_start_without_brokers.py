"""A start while no broker answers: probes and scrapes are answered meanwhile, and the end says why."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.kafka_broker import free_ports
from tests.support.service_process import service
from tests.support.toy import write_toy


def test_metrics_are_served_before_a_broker_answers(tmp_path: Path) -> None:
    settings: dict[str, object] = {
        "model": write_toy(tmp_path / "toy.onnx"),
        "kafka.bootstrap_servers": f"127.0.0.1:{free_ports(1)[0]}",
        "kafka.request_timeout_s": 5,
        "http.port": 0,
        "log.format": "json",
    }
    with service(settings, tmp_path) as process:
        process.wait_until(lambda: process.get("/metrics")[0] == 200, "metrics")
        assert process.get("/livez")[0] == 200, "a broker that is away is no reason for a restart"
        assert process.get("/readyz")[0] == 503
        assert process.exit_code is None
        assert process.wait() == 5
    last = json.loads(process.log.splitlines()[-1])
    assert "no broker answered" in json.dumps(last)
