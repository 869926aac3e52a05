"""Brokers that are away for longer than every time-out: no member ends, nothing is lost or doubled."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.support.kafka_cluster import restartable_cluster, unique
from tests.support.service_process import service
from tests.support.toy import unroll, write_toy
from tests.support.workers import observation

EVENTS = 200
AWAY_S = 12.0  # the time-outs below are 5 s


@pytest.mark.parametrize(("client", "delivery"), [("librdkafka", "exactly_once"), ("kafka-python", "at_least_once")])
def test_a_member_waits_for_its_brokers_and_goes_on(client: str, delivery: str, tmp_path: Path) -> None:
    with restartable_cluster() as kafka:
        assert kafka.broker is not None
        topic, output = kafka.create_topic("observations"), kafka.create_topic("forecasts")
        group = unique("group")
        settings: dict[str, object] = {
            "model": write_toy(tmp_path / "model.onnx"),
            "kafka.client": client,
            "kafka.bootstrap_servers": kafka.bootstrap_servers,
            "kafka.group_id": group,
            "kafka.session_timeout_s": 6,
            "kafka.request_timeout_s": 5,
            "input.topic": topic,
            "output.topic": output,
            "dead_letters.topic": kafka.create_topic("dead-letters"),
            "state.topic": unique("state"),
            "worker.delivery": delivery,
            "worker.commit_interval_s": 0.2,
            "worker.flush_timeout_s": 5,
        }

        def put(first: int) -> None:
            numbers = range(first, first + EVENTS)
            kafka.produce(topic, [observation("s", n + 1, ds=n) for n in numbers], [b"s"] * EVENTS)

        put(0)
        with service(settings, tmp_path) as process:
            process.wait_until(lambda: process.metric("rillcast_forecasts_total") == EVENTS, "the first forecasts")
            put(EVENTS)  # some of these are in flight when the broker dies
            kafka.broker.kill()
            away = time.monotonic()
            process.wait_until(lambda: process.metric("rillcast_brokers_away_seconds") > 0, "the outage")
            assert process.get("/livez")[0] == 200
            assert process.get("/readyz")[0] == 503
            time.sleep(max(0.0, AWAY_S - (time.monotonic() - away)))
            kafka.broker.start()
            process.wait_until(lambda: process.get("/readyz")[0] == 200, "the end of the outage")
            assert process.metric("rillcast_brokers_away_seconds") == 0
            put(2 * EVENTS)
            process.wait_until(
                lambda: sum(kafka.committed(group, topic).values()) == 3 * EVENTS, "every event committed"
            )
            assert process.stop() == 0, process.log[-4000:]
        published = [json.loads(record.value or b"") for record in kafka.read_all(output)]
    forecasts = {each["source"]["offset"]: int(each["quantiles"]["0.5"][0]) for each in published}
    assert forecasts == dict(enumerate(unroll(range(1, 3 * EVENTS + 1)))), "none is lost or wrong"
    if delivery == "exactly_once":
        assert max(Counter(each["source"]["offset"] for each in published).values()) == 1, "none is doubled"
