"""A whole deployment on a broker that demands a certificate or a token, and the operator's commands beside it.

What each client does by itself is in `test_security.py`; here it is every connection that is opened with the same
settings: consumer, transactional producer, administration, state store, readers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import polars as pl
import pytest
from pydantic import SecretStr

from rillcast import cli, settings
from rillcast.cli import topic_table
from rillcast.discovery.check import check
from rillcast.errors import DeliveryError
from rillcast.transports.base import Channel, Records, TransactionalSink
from rillcast.transports.connect import open_transactional_sink
from tests.support.hostile import NOON_MS
from tests.support.secure_kafka import KEY_PASSWORD, PASSWORD, SecureKafka, secure_kafka
from tests.support.service_process import service
from tests.support.toy import unroll, write_toy
from tests.support.transports import CLIENTS

TOKEN = "tell-nobody"  # noqa: S105  of a port that is open for some seconds
EVENTS = list(range(1, 31))

pytestmark = pytest.mark.kafka


@pytest.fixture(scope="module")
def secure() -> Iterator[SecureKafka]:
    with secure_kafka() as running:
        yield running


def deployment(secure: SecureKafka, way: str, client: str, folder: Path) -> dict[str, object]:
    """Return the settings of a service, whose secrets stand in files."""
    secrets = folder / "secrets"
    secrets.mkdir()
    (secrets / "http.token").write_text(TOKEN)
    flags: dict[str, object] = {
        "model": write_toy(folder / "toy.onnx"),
        "secrets_dir": secrets,
        "input.topic": secure.cluster.create_topic("observations", 2),
        "output.topic": secure.cluster.create_topic("forecasts", 2),
        "dead_letters.topic": secure.cluster.create_topic("dead"),
        "worker.delivery": "exactly_once",
        "log.level": "debug",
        "kafka.client": client,
    }
    for name, value in secure.settings(way).model_dump(exclude_unset=True).items():
        if isinstance(value, SecretStr):
            (secrets / f"kafka.{name}").write_text(value.get_secret_value() + "\n")
        else:
            flags[f"kafka.{name}"] = value
    return flags


@pytest.mark.parametrize("client", CLIENTS)
def test_a_right_that_is_missing_under_exactly_once_is_told_with_its_topic(secure: SecureKafka, client: str) -> None:
    out, dead = secure.cluster.create_topic("forecasts"), secure.cluster.create_topic("dead")
    secure.may_only_describe(dead)
    given = secure.settings("clear", client=client)
    topics = {Channel.FORECASTS: out, Channel.DEAD_LETTERS: dead}

    def commit_until_refused(sink: TransactionalSink) -> None:
        for _ in range(200):  # a rule is in force shortly after the broker has taken it
            for channel in topics:
                sink.publish(channel, Records([b"k"], [b"v"]))
            sink.commit({}, None)

    with closing(open_transactional_sink(given, topics, "in")) as sink:
        with pytest.raises(DeliveryError) as refused:
            commit_until_refused(sink)
        assert f"(topic {dead}" in str(refused.value)
        assert out not in str(refused.value)


@pytest.mark.parametrize("client", CLIENTS)
def test_rights_that_are_missing_are_found_without_a_start(secure: SecureKafka, client: str) -> None:
    topics = [secure.cluster.create_topic(name) for name in ("in", "out", "dead")]
    given = settings.Settings(
        kafka=secure.settings("SCRAM-SHA-256", client=client),
        input=settings.InputSettings(topic=topics[0]),
        output=settings.OutputSettings(topic=topics[1]),
        dead_letters=settings.DeadLetterSettings(topic=topics[2]),
    )
    secure.cluster.produce(topics[0], [b'{"unique_id": "a", "ds": 1764547200000, "y": 1}'])
    assert not [each for each in check(given, seconds=5, records=10) if each.level == "error"]
    for topic in topics[:2]:
        secure.may_only_describe(topic)
    found = {each.about: each.text for each in check(given, seconds=5, records=10) if each.level == "error"}
    assert found == {
        topics[0]: "this user lacks the right READ",
        topics[1]: "this user lacks the right WRITE",
    }


@pytest.mark.parametrize(("way", "client"), [("mutual tls", "kafka-python"), ("OAUTHBEARER", "librdkafka")])
def test_a_service_and_its_commands_get_in_and_tell_no_secret(
    secure: SecureKafka, way: str, client: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = deployment(secure, way, client, tmp_path)
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    told: list[str] = []

    def rillcast(*arguments: str) -> str:
        assert cli.main([*arguments, *flags]) == 0, capsys.readouterr().err
        out, err = capsys.readouterr()
        told.extend((out, err))
        return out

    records = [json.dumps({"unique_id": "s", "ds": NOON_MS, "y": y}).encode() for y in EVENTS]
    topic = str(given["input.topic"])
    secure.cluster.produce(topic, [*records[:20], b"garbage"], [b"s"] * 21)
    rillcast("warm", "--from-topic", "--json")
    secure.cluster.produce(topic, [*records[20:], b"garbage too"], [b"s"] * 11)
    with service(given, tmp_path) as running:
        running.wait_until(lambda: len(secure.cluster.read_all(str(given["output.topic"]))) == 10, "every forecast")
        assert running.get("/metrics")[0] == 401
        assert running.get("/livez")[0] == 200
        assert running.stop() == 0
        told.append(running.log)
    published = secure.cluster.read_all(str(given["output.topic"]))
    found = [int(json.loads(record.value or b"")["quantiles"]["0.5"][0]) for record in published]
    assert found == unroll(EVENTS)[20:], "what came before the service knows from `warm`"

    letter = json.loads(rillcast("dlq", "list", "--json"))
    assert "garbage too" in rillcast("dlq", "show", letter["place"])
    assert json.loads(rillcast("dlq", "replay", "--json"))["sent"] == 1
    (tmp_path / "rillcast.toml").write_text(rillcast("config"))
    table = topic_table.write(settings.load(tmp_path / "rillcast.toml"), tmp_path / "table.parquet")
    assert (table.events, table.refused) == (30, {"not_json": 3}), "the garbage, and what was replayed"
    assert pl.read_parquet(tmp_path / "table.parquet")["y"].to_list() == EVENTS
    everything = "".join(told)
    assert len(everything) > 1_000
    for secret in (PASSWORD, KEY_PASSWORD, TOKEN):
        assert secret not in everything
