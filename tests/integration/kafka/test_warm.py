"""`rillcast warm` on real Kafka: the first forecasts of a new deployment know all of the history."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rillcast import cli
from rillcast.bundle.bundle import Bundle
from rillcast.codecs.forecasts.reader import decode_forecast
from rillcast.transports.kafka.kafka_python.partitioner import partition_of
from rillcast_training.export.bundle import export
from tests.support.disorder import Event, in_order, last_revisions, worst_error
from tests.support.forecasters import HOUR_MS, brief_parity, random_forecaster, small_config
from tests.support.kafka_cluster import KafkaCluster, unique
from tests.support.service_process import service
from tests.support.transports import CLIENTS

PARTITIONS, HISTORY, LIVE = 3, 30, 5
START = 475_000


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "m.onnx"
    with brief_parity():
        export(random_forecaster(small_config()), path, name="m")
    return path


def some_events(slots: range) -> list[Event]:
    return [
        Event(f"s{stream}", (START + slot) * HOUR_MS, float(np.sin(slot / 3 + stream) * (stream + 1)))
        for slot in slots
        for stream in range(7)
    ]


def as_records(events: list[Event]) -> list[bytes]:
    return [json.dumps(event._asdict()).encode() for event in events]


def produce(kafka: KafkaCluster, topic: str, events: list[Event]) -> None:
    kafka.produce(topic, as_records(events), [event.unique_id.encode() for event in events])


def new_deployment(kafka: KafkaCluster, model: Path, client: str) -> dict[str, object]:
    return {
        "model": model,
        "kafka.client": client,
        "kafka.bootstrap_servers": kafka.bootstrap_servers,
        "kafka.group_id": unique("warm"),
        "kafka.session_timeout_s": 6,
        "input.topic": kafka.create_topic("observations", PARTITIONS),
        "output.topic": kafka.create_topic("forecasts", PARTITIONS),
        "dead_letters.topic": kafka.create_topic("dead-letters"),
        "input.allowed_lateness_periods": 4,
    }


def warm(settings: dict[str, object], *arguments: str) -> int:
    flags = [part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    return cli.main(["warm", *arguments, *flags])


def served(kafka: KafkaCluster, settings: dict[str, object], folder: Path, count: int) -> list[Any]:
    """Run the service until it has published `count` forecasts, and return them."""
    with service(settings, folder) as running:
        running.wait_until(lambda: running.metric("rillcast_forecasts_total") >= count, f"{count} forecasts")
        assert running.stop() == 0
    return [decode_forecast(r.value or b"", r.key) for r in kafka.read_all(str(settings["output.topic"]))]


def check(found: list[Any], model: Path) -> None:
    """Every live event has its forecast, which knows all of the history."""
    live = some_events(range(HISTORY, HISTORY + LIVE))
    kept: dict[str, list[Event]] = {}
    for event in some_events(range(HISTORY + LIVE)):
        kept.setdefault(event.unique_id, []).append(event)
    everything = in_order(Bundle.load(model), kept)
    expected = {(event.unique_id, event.ds): everything[event.unique_id, event.ds] for event in live}
    seen = last_revisions(found)
    assert seen.keys() == expected.keys()
    assert {forecast.status for forecast in seen.values()} == {"ok"}, "none is warming up"
    assert worst_error(seen, expected, kept) < 1e-5


@pytest.mark.parametrize("client", CLIENTS)
def test_history_from_a_file(
    kafka: KafkaCluster, model: Path, client: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = new_deployment(kafka, model, client)
    history = tmp_path / "history.jsonl"
    newest_first = sorted(some_events(range(HISTORY)), key=lambda event: (event.unique_id, -event.ds))
    history.write_bytes(b"\n".join([*as_records(newest_first), b"garbage"]) + b"\n")
    assert warm(settings, "--history", str(history), "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["events"], told["refused"]) == (7 * HISTORY, {"not_json": 1})
    assert told["stepped"] == sum(told["outcomes"].values()) == 7 * HISTORY
    assert sum(row["streams"] for row in told["partitions"]) == 7
    assert sum(row["warming_up"] for row in told["partitions"]) == 0

    assert warm(settings, "--history", str(history)) == 6, "there is state now"
    assert "--force" in capsys.readouterr().err
    assert warm(settings, "--history", str(history), "--force") == 0

    produce(kafka, str(settings["input.topic"]), some_events(range(HISTORY, HISTORY + LIVE)))
    check(served(kafka, settings, tmp_path, 7 * LIVE), model)


def test_history_from_the_topic(kafka: KafkaCluster, model: Path, tmp_path: Path) -> None:
    settings = new_deployment(kafka, model, "auto")
    produce(kafka, str(settings["input.topic"]), some_events(range(HISTORY)))
    assert warm(settings, "--from-topic") == 0
    produce(kafka, str(settings["input.topic"]), some_events(range(HISTORY, HISTORY + LIVE)))
    found = served(kafka, settings, tmp_path, 7 * LIVE)
    check(found, model)


def test_a_group_that_runs_is_left_alone(
    kafka: KafkaCluster, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = new_deployment(kafka, model, "auto")
    with service(settings, tmp_path) as running:
        running.wait_until(lambda: running.get("/readyz")[0] == 200, "readiness")
        assert warm(settings, "--from-topic") == 5
        assert "members" in capsys.readouterr().err
        assert running.stop() == 0


def test_streams_are_placed_where_a_producer_places_their_keys(kafka: KafkaCluster) -> None:
    topic = kafka.create_topic("placed", PARTITIONS)
    ids = [f"stream-{number}" for number in range(50)] + ["\u20ac", "a" * 300]
    kafka.produce(topic, [b"x"] * len(ids), [unique_id.encode() for unique_id in ids])
    found = {(record.key or b"").decode(): record.partition for record in kafka.read_all(topic)}
    assert found == {unique_id: partition_of(unique_id, PARTITIONS) for unique_id in ids}
