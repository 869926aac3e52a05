"""A state topic that release 0.1.0 wrote: this service restores it and goes on with the same forecasts."""

from __future__ import annotations

from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition

from rillcast.codecs.forecasts.reader import decode_forecast
from tests.support import releases
from tests.support.kafka_cluster import KafkaCluster, unique
from tests.support.service_process import service
from tests.support.transports import CLIENTS


def commit(kafka: KafkaCluster, group: str, topic: str, positions: dict[int, int]) -> None:
    """Commit positions as a member of the group had."""
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": group, "enable.auto.commit": False})
    consumer.commit(offsets=[TopicPartition(topic, p, at) for p, at in positions.items()], asynchronous=False)
    consumer.close()


@pytest.mark.parametrize("client", CLIENTS)
def test_a_state_topic_is_restored_and_goes_on_with_the_same_forecasts(
    client: str, kafka: KafkaCluster, tmp_path: Path
) -> None:
    events, committed = releases.lines("events.jsonl.gz"), releases.committed()
    topic = kafka.create_topic("observations", len(committed), retention_ms=-1)  # the events are old
    state = kafka.create_topic("state", len(committed), cleanup_policy="compact")
    for partition in committed:
        mine = [event for event in events if event["partition"] == partition]
        # The events before the stop are unreadable: only stored state can stand for them.
        values = [event["value"].encode() if event["after"] else b"" for event in mine]
        kafka.produce(topic, values, [event["key"].encode() for event in mine], partition)
        pages = [record for record in releases.records("state-topic.jsonl.gz") if record.partition == partition]
        kafka.produce(state, [page.value for page in pages], [page.key for page in pages], partition)
    group = unique("group")
    commit(kafka, group, topic, committed)
    settings = {
        "model": releases.model(),
        "kafka.client": client,
        "kafka.bootstrap_servers": kafka.bootstrap_servers,
        "kafka.group_id": group,
        "input.topic": topic,
        "output.topic": kafka.create_topic("forecasts", len(committed)),
        "output.codec": "float32",
        "dead_letters.topic": kafka.create_topic("dead-letters"),
        "state.topic": state,
    }
    with service(settings, tmp_path) as running:
        running.wait_until(lambda: sum(kafka.committed(group, topic).values()) == len(events), "all is committed")
        assert running.stop() == 0, running.log[-4000:]
    seen = [decode_forecast(r.value or b"", r.key) for r in kafka.read_all(str(settings["output.topic"]))]
    releases.assert_same_forecasts(seen, releases.forecasts("topic"))
