"""An alias that comes to name a model of another kind costs no state, while members run or when they start.

The commands are those of the drill in docs/how-to/drills.md.
"""

from __future__ import annotations

import json
from pathlib import Path

from rillcast.bundle.bundle import seal
from rillcast.bundle.registry.model_registry import ModelRegistry
from tests.support import pages
from tests.support.kafka_cluster import KafkaCluster, unique
from tests.support.page_shell import PageShell
from tests.support.paths import ROOT
from tests.support.service_process import service
from tests.support.toy import ToyGraph
from tests.support.workers import observation

EVENTS = 300


def toy(multiplier: int, freq: str) -> bytes:
    graph = ToyGraph(multiplier=multiplier)
    return seal(graph.model(), graph.metadata().model_copy(update={"freq": freq}))


def test_a_restart_goes_on_with_the_model_that_serves_until_an_operator_names_another(
    kafka: KafkaCluster, tmp_path: Path
) -> None:
    drill = pages.section(ROOT / "docs" / "how-to" / "drills.md", "A model of another kind is promoted")
    push, refused, insist, shown, rollback, shown_again = drill
    for name, multiplier, freq in (("hourly", 31, "1h"), ("half-hourly", 37, "30min")):
        (tmp_path / f"{name}.onnx").write_bytes(toy(multiplier, freq))
    shell = PageShell(tmp_path)
    assert shell.succeeds(push)
    registry = ModelRegistry.at(str(tmp_path / "models"))
    hourly, half_hourly = (each.model_id for each in registry.models())
    if registry.target("live") != hourly:  # both were pushed within a second
        hourly, half_hourly = half_hourly, hourly
    shell.variables["OTHER_ID"] = half_hourly
    assert shell.run(refused).returncode == 3
    assert registry.target("live") == hourly
    topic, output = kafka.create_topic("observations", 1), kafka.create_topic("forecasts", 1)
    settings: dict[str, object] = {
        "model": f"{tmp_path / 'models'}@live",
        "model_cache": tmp_path / "cache",
        "kafka.bootstrap_servers": kafka.bootstrap_servers,
        "kafka.group_id": unique("group"),
        "kafka.session_timeout_s": 6,
        "input.topic": topic,
        "output.topic": output,
        "dead_letters.topic": kafka.create_topic("dead-letters", 1),
        "worker.delivery": "exactly_once",
        "worker.commit_interval_s": 0.1,
        "state.topic": unique("state"),
        "rollout.poll_interval_s": 0.2,
    }

    def put(rounds: int) -> None:
        kafka.produce(topic, [observation("s", 1 + rounds * EVENTS + n, ds=n) for n in range(EVENTS)], [b"s"] * EVENTS)

    put(0)
    with service(settings, tmp_path) as process:
        process.wait_until(lambda: process.metric("rillcast_forecasts_total") == EVENTS, "all of the past")
        shell.variables["SERVICE"] = f"http://127.0.0.1:{process.port}"
        assert shell.succeeds(insist)
        process.wait_until(lambda: shell.succeeds(shown), "the refusal")
        assert process.stop() == 0, process.log[-4000:]
    put(1)
    with service(settings, tmp_path) as process:
        process.wait_until(lambda: process.metric("rillcast_forecasts_total") == EVENTS, "the events since then")
        assert f"@live is not served: going on with {hourly}" in process.log
        assert process.metric("rillcast_replayed_events_total") == 0, "its state was kept"
        process.wait_until(lambda: process.metric("rillcast_model_refused") == 1, "the refusal again")
        shell.variables["SERVICE"] = f"http://127.0.0.1:{process.port}"
        assert shell.succeeds(rollback)
        process.wait_until(lambda: shell.succeeds(shown_again), "the end of the alarm")
        assert process.stop() == 0, process.log[-4000:]
    put(2)
    named = settings | {"model": f"{tmp_path / 'models'}@{half_hourly}"}
    with service(named, tmp_path) as process:
        process.wait_until(lambda: process.metric("rillcast_forecasts_total") == EVENTS, "the rest")
        assert process.metric("rillcast_replayed_events_total") == 2 * EVENTS, "a new model steps what is retained"
        assert process.stop() == 0, process.log[-4000:]
    models = [json.loads(record.value or b"")["model"] for record in kafka.read_all(output)]
    assert models == [f"toy@{hourly}"] * 2 * EVENTS + [f"toy@{half_hourly}"] * EVENTS
