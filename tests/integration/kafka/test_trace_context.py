from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.collector import Collector
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


def test_with_a_collector_the_forecast_names_the_span_of_the_service(kafka: KafkaCluster, tmp_path: Path) -> None:
    collector = Collector()
    settings = {
        "model": write_toy(tmp_path / "toy.onnx"),
        "kafka.bootstrap_servers": kafka.bootstrap_servers,
        "kafka.group_id": unique("group"),
        "input.topic": kafka.create_topic("observations", 1),
        "output.topic": kafka.create_topic("forecasts", 1),
        "dead_letters.topic": kafka.create_topic("dead-letters", 1),
        "publish.trace_context": "true",
        "publish.otlp_endpoint": collector.url,
    }
    try:
        kafka.produce(str(settings["input.topic"]), [observation("a", 1)], [b"a"], headers=[("traceparent", PARENT)])
        with service(settings, tmp_path) as process:
            process.wait_until(lambda: process.metric("rillcast_forecasts_total") == 1, "a forecast")
            assert process.stop() == 0, "what is left is sent at the end"
    finally:
        collector.close()
    (record,) = kafka.read_all(str(settings["output.topic"]))
    (span,) = collector.spans
    assert span.parent_span_id.hex() == PARENT.split(b"-")[2].decode()
    version, trace, parent, flags = (dict(record.headers)["traceparent"] or b"").split(b"-")
    assert (version, trace, flags) == (b"00", PARENT.split(b"-")[1], b"01")
    assert parent.decode() == span.span_id.hex()
