"""Brokers that are away for longer than every time-out, by the commands of the drill: no event is lost or doubled."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.support import pages
from tests.support.kafka_broker import free_ports
from tests.support.kafka_cluster import restartable_cluster, unique
from tests.support.page_shell import PageShell
from tests.support.paths import ROOT
from tests.support.service_process import service
from tests.support.toy import unroll, write_toy
from tests.support.workers import observation

EVENTS = 200
DRILLS = ROOT / "docs" / "how-to" / "drills.md"
AWAY_S = 12.0  # the time-outs below are 5 s


@pytest.mark.parametrize(
    ("client", "delivery", "idle"), [("librdkafka", "exactly_once", True), ("kafka-python", "at_least_once", False)]
)
def test_a_member_waits_for_its_brokers_and_goes_on(client: str, delivery: str, idle: bool, tmp_path: Path) -> None:
    """A member that is idle when they go has nothing to commit, and no request of its own fails."""
    working, kill, waiting = pages.section(DRILLS, "The brokers go away")
    shell = PageShell(tmp_path)
    with restartable_cluster() as kafka:
        assert kafka.broker is not None
        topic, output = kafka.create_topic("observations"), kafka.create_topic("forecasts")
        group, (port,) = unique("group"), free_ports(1)
        settings: dict[str, object] = {
            "model": write_toy(tmp_path / "model.onnx"),
            "http.port": port,  # one that stays when a worker replaces another
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
            shell.variables = {"SERVICE": f"http://127.0.0.1:{port}", "BROKER_PID": str(kafka.broker.pid)}
            assert shell.succeeds(working)
            if not idle:
                put(EVENTS)  # some of these may be in flight when the broker dies
            assert shell.succeeds(kill)
            kafka.broker.kill()  # for its parent, this test: the process has to be waited for
            away = time.monotonic()
            process.wait_until(lambda: shell.succeeds(waiting), "the outage")
            time.sleep(max(0.0, AWAY_S - (time.monotonic() - away)))
            kafka.broker.start()
            process.wait_until(lambda: process.get("/readyz")[0] == 200, "the end of the outage")
            assert shell.succeeds(working)
            for first in range(EVENTS, 3 * EVENTS, EVENTS)[0 if idle else 1 :]:
                put(first)
            process.wait_until(
                lambda: sum(kafka.committed(group, topic).values()) == 3 * EVENTS, "every event committed"
            )
            assert process.stop() == 0, process.log[-4000:]
        published = [json.loads(record.value or b"") for record in kafka.read_all(output)]
    forecasts = {each["source"]["offset"]: int(each["quantiles"]["0.5"][0]) for each in published}
    assert forecasts == dict(enumerate(unroll(range(1, 3 * EVENTS + 1)))), "none is lost or wrong"
    if delivery == "exactly_once":
        assert max(Counter(each["source"]["offset"] for each in published).values()) == 1, "none is doubled"
