"""A promoted model takes over under load and through kill -9: nothing is lost, doubled or wrong."""

from __future__ import annotations

import datetime as dt
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from rillcast.bundle.registry.model_registry import ModelRegistry
from rillcast.settings import Settings
from rillcast.stores.connect import reader_of
from rillcast.stores.survey import survey_directory, survey_topic
from tests.support.kafka_cluster import KafkaCluster, unique
from tests.support.rollouts import changes, expect, served_by
from tests.support.service_process import ServiceProcess, service
from tests.support.toy import toy_bundle, write_toy
from tests.support.workers import observation

PARTITIONS, STREAMS = 2, 40
WARM_UP = 12_000  # events before the first promotion
OLD, NEW = 31, 37
IDS = {m: toy_bundle(multiplier=m).metadata.model_id for m in (OLD, NEW)}
NOON = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)


def stored_models(settings: dict[str, object]) -> set[str]:
    """Return the models that have stored state."""
    given = Settings.model_validate(nested(settings))
    if given.state.store == "local":
        found = survey_directory(given.state.path)
    else:
        with closing(reader_of(given)()) as reader:
            found = survey_topic(given.state_topic, reader, range(PARTITIONS))
    return {summary.model_id for summary in found}


def nested(settings: dict[str, object]) -> dict[str, object]:
    """Return settings by section."""
    sections: dict[str, Any] = {}
    for path, value in settings.items():
        section, _, name = path.partition(".")
        if name:
            sections.setdefault(section, {})[name] = value
        else:
            sections[section] = value
    return sections


class Load:
    """Appends observations until `stop`; each stream's values differ."""

    def __init__(self, kafka: KafkaCluster, topic: str) -> None:
        self._kafka = kafka
        self._topic = topic
        self._number = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def put(self, count: int) -> None:
        """Append `count` events, each stream's in order."""
        numbers = range(self._number, self._number + count)
        ids = [f"s{number % STREAMS}" for number in numbers]
        values: list[bytes | None] = [
            observation(name, 1 + number * 7 % 9_973, ds=number * 1_000)
            for name, number in zip(ids, numbers, strict=True)
        ]
        self._kafka.produce(self._topic, values, [name.encode() for name in ids])
        self._number += count

    @contextmanager
    def running(self) -> Iterator[None]:
        """Append about 400 events a second."""
        self._thread.start()
        try:
            yield
        finally:
            self.stop()

    def stop(self) -> None:
        """Append no more, and wait for the last."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(0.1):
            self.put(40)


@pytest.mark.parametrize(
    ("client", "delivery", "store", "models"),
    [
        ("librdkafka", "exactly_once", "kafka", "folder"),
        ("kafka-python", "exactly_once", "kafka", "folder"),
        ("librdkafka", "at_least_once", "local", "mlflow"),
        ("kafka-python", "at_least_once", "kafka", "folder"),
    ],
)
def test_a_swap_under_load_and_through_kills_loses_doubles_and_mixes_nothing(
    client: str, delivery: str, store: str, models: str, mlflow: str, kafka: KafkaCluster, tmp_path: Path
) -> None:
    address = f"mlflow://{mlflow}/{unique('load')}" if models == "mlflow" else str(tmp_path / "registry")
    registry = ModelRegistry.at(address)
    for multiplier in (OLD, NEW):
        registry.push(write_toy(tmp_path / f"{multiplier}.onnx", multiplier).read_bytes(), NOON)
    registry.promote(IDS[OLD], NOON)
    topic, output = kafka.create_topic("observations", PARTITIONS), kafka.create_topic("forecasts", PARTITIONS)
    group = unique("group")
    settings: dict[str, object] = {
        "model": f"{address}@live",
        "model_cache": tmp_path / "cache",
        "kafka.client": client,
        "kafka.bootstrap_servers": kafka.bootstrap_servers,
        "kafka.group_id": group,
        "kafka.group_instance_id": "member-0",
        "kafka.session_timeout_s": 6,
        "input.topic": topic,
        "output.topic": output,
        "dead_letters.topic": kafka.create_topic("dead-letters", 1),
        "worker.delivery": delivery,
        "worker.commit_interval_s": 0.1,
        "state.store": store,
        "state.topic": unique("state"),
        "state.path": tmp_path / "state",
        "state.snapshot_interval_s": 1,
        "state.snapshot_events_per_stream": 0,
        "rollout.poll_interval_s": 0.2,
        "rollout.warm_up": "retained",
        "rollout.events_per_iteration": 200,
    }
    load = Load(kafka, topic)
    load.put(WARM_UP)

    def is_ready(process: ServiceProcess) -> bool:
        return process.get("/readyz")[0] == 200

    def swapped(process: ServiceProcess, to: int) -> bool:
        """Return whether it serves a model, and no other is pending."""
        info = [line for line in process.get("/metrics")[1].splitlines() if line.startswith("rillcast_model_info{")]
        is_default = any(f'model_id="{IDS[to]}"' in line for line in info)
        return is_default and process.metric("rillcast_model_swap_pending_seconds") == 0

    with load.running():
        with service(settings, tmp_path) as process:
            process.wait_until(lambda: process.metric("rillcast_forecasts_total") >= WARM_UP, "all of the past")
            # A process that finds no stored state begins with the wanted model, and there is nothing to take over.
            stored = "rillcast_state_pages_written_total"
            process.wait_until(lambda: process.metric(stored) > PARTITIONS, "state of the model that serves")
            registry.promote(IDS[NEW], NOON)
            process.wait_until(lambda: f"model {IDS[NEW]} follows" in process.log, "the warm-up")
            process.wait_until(lambda: "following from offset" in process.log, "the warm-up")
            process.kill()
            assert "takes over" not in process.log, "in the middle of the warm-up"
        with service(settings, tmp_path) as process:
            process.wait_until(lambda: "takes over" in process.log, "a take-over")
            process.kill()
        with service(settings, tmp_path) as process:
            process.wait_until(lambda: is_ready(process) and swapped(process, NEW), "the swap")
            done = process.metric("rillcast_forecasts_total")
            process.wait_until(lambda: process.metric("rillcast_forecasts_total") > done + 500, "forecasts after it")
            registry.rollback(NOON)
            process.wait_until(lambda: swapped(process, OLD), "the roll-back")
            assert "(kept state)" in process.log, "it goes back to the state that was kept"
            done = process.metric("rillcast_forecasts_total")
            process.wait_until(lambda: process.metric("rillcast_forecasts_total") > done + 200, "forecasts after it")
            assert process.metric('rillcast_model_swaps_total{outcome="failed"}') == 0
            assert process.metric('rillcast_model_swaps_total{outcome="refused"}') == 0
            load.stop()
            events = kafka.read_all(topic)
            process.wait_until(
                lambda: sum(kafka.committed(group, topic).values()) == len(events), "every event committed"
            )
            assert process.stop() == 0, process.log[-4000:]
    with service(settings | {"state.superseded_ttl_s": 0.5}, tmp_path) as process:
        process.wait_until(lambda: process.metric("rillcast_state_retired_total") == PARTITIONS, "the end of its state")
        load.put(100)  # the rest of the state goes on
        events = kafka.read_all(topic)
        process.wait_until(lambda: sum(kafka.committed(group, topic).values()) == len(events), "every event committed")
        assert process.stop() == 0, process.log[-4000:]
    assert stored_models(settings) == {IDS[OLD]}
    expected = expect((((e.partition, e.offset), e.value or b"") for e in events), {IDS[m]: m for m in (OLD, NEW)})
    forecasts = [(f.key, f.value or b"") for f in kafka.read_all(output)]
    served = served_by(forecasts, expected)
    assert served.keys() == expected.keys(), "none is lost"
    if delivery == "exactly_once":
        assert max(Counter(value for _, value in forecasts).values()) == 1, "none is doubled"
    assert changes(served) == {p: [IDS[OLD], IDS[NEW], IDS[OLD]] for p in range(PARTITIONS)}, "at one offset each"
