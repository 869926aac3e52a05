"""Records that are larger than their topic takes stop no partition: each has a dead letter that fits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rillcast.errors import SettingsError
from rillcast.publishing.dead_letters import DeadLetter
from rillcast.settings import Settings
from rillcast.transports.connect import open_sink
from tests.support.hostile import NOON_MS
from tests.support.kafka_cluster import KafkaCluster, unique
from tests.support.service_process import service
from tests.support.toy import unroll, write_toy

LIMIT = 2_000


@pytest.mark.parametrize(("client", "delivery"), [("librdkafka", "exactly_once"), ("kafka-python", "at_least_once")])
def test_a_record_without_room_becomes_a_dead_letter_that_has_some(
    client: str, delivery: str, kafka: KafkaCluster, tmp_path: Path
) -> None:
    long_id, source, dead = "x" * 1_900, kafka.create_topic("in"), kafka.create_topic("dead", max_message_bytes=LIMIT)
    settings = {
        "model": write_toy(tmp_path / "toy.onnx"),
        "input.topic": source,
        "input.max_id_bytes": 2_000,
        "output.topic": kafka.create_topic("out", max_message_bytes=LIMIT),
        "dead_letters.topic": dead,
        "kafka.client": client,
        "kafka.bootstrap_servers": kafka.bootstrap_servers,
        "kafka.group_id": unique("group"),
        "worker.delivery": delivery,
        "state.store": "none",
    }
    good = [json.dumps({"unique_id": "a", "ds": NOON_MS, "y": y}).encode() for y in range(1, 41)]
    unforecast = json.dumps({"unique_id": long_id, "ds": NOON_MS, "y": 1}).encode()
    garbage = b"g" * 50_000
    kafka.produce(source, [*good[:20], unforecast, garbage], [b"a"] * 21 + [b"k"])
    kafka.produce(source, [b"{"], [b"key" * 2_000], headers=[("h", b"h" * 5_000)])
    kafka.produce(source, good[20:], [b"a"] * 20)
    with service(settings, tmp_path) as running:
        running.wait_until(lambda: running.metric("rillcast_forecasts_total") == 40, "every forecast that fits")
        running.wait_until(lambda: len(kafka.read_all(dead)) == 3, "a dead letter of each other record")
        assert running.stop() == 0
    values = [json.loads(record.value or b"") for record in kafka.read_all(str(settings["output.topic"]))]
    assert [int(value["quantiles"]["0.5"][0]) for value in values] == unroll(range(1, 41))

    letters = [DeadLetter.read(r.key, r.value, r.headers) for r in kafka.read_all(dead)]
    large, cut, headless = sorted(letters, key=lambda letter: letter.offset)
    assert (large.reason, large.offset, large.cut) == ("forecast_too_large", 20, ["value"])
    assert f"and the topic of forecasts at most {LIMIT} (max.message.bytes" in large.detail
    assert (cut.reason, cut.key, cut.cut, cut.original_bytes) == ("not_json", b"k", ["value"], len(garbage))
    assert cut.value == garbage[: len(cut.value or b"")]
    assert len(cut.value or b"") > LIMIT // 4
    assert (headless.reason, headless.cut, headless.headers) == ("not_json", ["key", "headers"], [])
    assert headless.value == b"{"
    assert (headless.key or b"").startswith(b"key" * 10)


@pytest.mark.parametrize("client", ["librdkafka", "kafka-python"])
def test_a_topic_that_takes_no_dead_letter_is_refused_by_name(kafka: KafkaCluster, client: str) -> None:
    dead = kafka.create_topic("dead", max_message_bytes=500)
    given = {
        "kafka": {"client": client, "bootstrap_servers": kafka.bootstrap_servers},
        "output": {"topic": kafka.create_topic("out")},
        "dead_letters": {"topic": dead},
        "state": {"store": "none"},
    }
    with pytest.raises(SettingsError, match=rf"topic {dead} takes records of at most 500 bytes .*max\.message\.bytes"):
        open_sink(Settings.model_validate(given))
