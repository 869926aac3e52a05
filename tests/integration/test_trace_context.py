from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.kafka_cluster import KafkaCluster, unique
from tests.support.service_process import service
from tests.support.toy import write_toy
from tests.support.transports import CLIENTS
from tests.support.workers import observation

PARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize("client", CLIENTS)
def test_a_forecast_has_the_trace_context_of_its_observation(client: str, kafka: KafkaCluster, tmp_path: Path) -> None:
    settings = {
        "model": write_toy(tmp_path / "toy.onnx"),
        "kafka.client": client,
        "kafka.bootstrap_servers": kafka.bootstrap_servers,
        "kafka.group_id": unique("group"),
        "input.topic": kafka.create_topic("observations", 1),
        "output.topic": kafka.create_topic("forecasts", 1),
        "dead_letters.topic": kafka.create_topic("dead-letters", 1),
        "publish.trace_context": "true",
    }
    traced = [("traceparent", PARENT), ("tracestate", b"vendor=1"), ("other", b"stays here")]
    kafka.produce(str(settings["input.topic"]), [observation("a", 1)], [b"a"])
    kafka.produce(str(settings["input.topic"]), [observation("a", 2)], [b"a"], headers=traced)
    with service(settings, tmp_path) as process:
        process.wait_until(lambda: process.metric("rillcast_forecasts_total") == 2, "two forecasts")
        assert process.stop() == 0
    first, second = kafka.read_all(str(settings["output.topic"]))
    assert first.headers == ()
    assert second.headers == (("traceparent", PARENT), ("tracestate", b"vendor=1"))
