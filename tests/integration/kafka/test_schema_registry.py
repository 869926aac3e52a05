"""Formats through a real schema registry; and the whole service over TLS, SASL and Avro."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from confluent_kafka.schema_registry import Schema
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

from rillcast.codecs.connect import open_encoder
from rillcast.codecs.forecasts.columns import ForecastColumns
from rillcast.codecs.observations.decoder import ObservationDecoder
from rillcast.codecs.observations.rejections import Reason
from rillcast.codecs.schema_registry import Registry
from rillcast.errors import SettingsError
from rillcast.settings import RegistrySettings, Settings
from tests.support.formats import SCHEMAS, format_of, writer_of
from tests.support.hostile import NOON_MS, polled
from tests.support.schema_registry import running_registry
from tests.support.secure_kafka import PASSWORD, USER, secure_kafka
from tests.support.service_process import service
from tests.support.toy import toy_bundle, unroll, write_toy

FRAMED = ("avro", "protobuf", "json_schema")

pytestmark = pytest.mark.kafka  # what a broker needs, Java and Maven, a registry needs too


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running_registry() as address:
        yield address


@pytest.mark.parametrize("name", FRAMED)
def test_a_reader_of_its_own_reads_what_a_writer_registered(url: str, name: str) -> None:
    write = writer_of(name, Registry(RegistrySettings(url=url)), topic=f"t-{name}")
    reader = Registry(RegistrySettings(url=url))
    decoder = ObservationDecoder(form=format_of(name, reader, validate=True))
    good = write({"unique_id": "a", "ds": NOON_MS, "y": 1.5})
    unknown = b"\0\x00\xff\xff\xff" + good[5:]
    events, rejections = decoder.decode(polled([good, unknown, write({"unique_id": "b", "ds": NOON_MS}), good[:7]]))
    assert (events.unique_ids, events.ds.tolist()) == (["a", "b"], [NOON_MS, NOON_MS])
    assert rejections[0].reason is Reason.UNKNOWN_SCHEMA
    assert [r.row for r in rejections] == [1, 3]


def test_the_published_schemas_are_taken_by_a_registry(url: str) -> None:
    client = Registry(RegistrySettings(url=url)).client
    for file, kind in [
        ("observation.avsc", "AVRO"),
        ("observation.proto", "PROTOBUF"),
        ("observation.schema.json", "JSON"),
        ("forecast.schema.json", "JSON"),
        ("forecast.avsc", "AVRO"),
    ]:
        assert client.register_schema(f"published-{file}", Schema((SCHEMAS / file).read_text(), kind)) > 0


def test_the_service_reads_avro_over_tls_and_scram(url: str, tmp_path: Path) -> None:
    """Every garbage record is in the dead letters, every other one in the forecasts."""
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "kafka.sasl_password").write_text(PASSWORD + "\n")
    streams = {f"s{i}": list(range(i + 1, i + 21)) for i in range(5)}
    with secure_kafka() as kafka:
        topics = {name: kafka.cluster.create_topic(name, 2) for name in ("observations", "forecasts", "dead")}
        write = writer_of("avro", Registry(RegistrySettings(url=url)), topic=topics["observations"])
        for step in range(20):
            events = [{"unique_id": name, "ds": NOON_MS, "y": float(ys[step])} for name, ys in streams.items()]
            keys: list[bytes | None] = [name.encode() for name in streams]
            kafka.cluster.produce(topics["observations"], [write(event) for event in events], keys)
            kafka.cluster.produce(topics["observations"], [b"garbage %d" % step])
        settings = {
            "model": write_toy(tmp_path / "toy.onnx"),
            "secrets_dir": secrets,
            "input.topic": topics["observations"],
            "input.format": "avro",
            "registry.url": url,
            "output.topic": topics["forecasts"],
            "dead_letters.topic": topics["dead"],
            "kafka.bootstrap_servers": kafka.broker.address("SASL"),
            "kafka.group_id": "secure",
            "kafka.security_protocol": "SASL_SSL",
            "kafka.sasl_mechanism": "SCRAM-SHA-512",
            "kafka.sasl_username": USER,
            "kafka.ssl_ca_file": kafka.folder / "ca.pem",
            "worker.delivery": "exactly_once",
            "log.level": "debug",
        }
        with service(settings, tmp_path) as running:
            running.wait_until(lambda: running.metric("rillcast_forecasts_total") == 100, "every forecast")
            reason = 'rillcast_dead_letters_total{reason="not_framed"}'
            running.wait_until(lambda: running.metric(reason) == 20, "every dead letter")
            metrics = running.get("/metrics")[1]
            assert running.stop() == 0
            log = running.log
        assert PASSWORD not in log
        assert PASSWORD not in metrics
        found: dict[str, list[int]] = {name: [] for name in streams}
        for record in kafka.cluster.read_all(topics["forecasts"]):
            document = json.loads(record.value or b"")
            found[document["unique_id"]].append(int(document["quantiles"]["0.5"][0]))
        assert found == {name: unroll(ys) for name, ys in streams.items()}
        dead = {record.value for record in kafka.cluster.read_all(topics["dead"])}
        assert dead == {b"garbage %d" % step for step in range(20)}


def test_forecasts_in_avro_are_read_by_a_consumer_of_the_registry(url: str) -> None:
    settings = Settings.model_validate({
        "model": "m.onnx", "registry": {"url": url}, "output": {"codec": "avro", "topic": "forecasts-avro"},
    })  # fmt: skip
    bundle = toy_bundle()
    columns = ForecastColumns(
        unique_ids=["a", "\u20ac"],
        ds=np.array([NOON_MS, NOON_MS + 1]),
        status=np.array([0, 3], np.int8),
        forecast=np.arange(12, dtype=np.float32).reshape(2, 2, 3),
        anomaly=np.array([np.nan, 0.5], np.float32),
        partitions=np.array([0, 70]),
        offsets=np.array([0, 2**40]),
    )
    unregistered = settings.registry.model_copy(update={"auto_register": False})
    strict = open_encoder(settings.model_copy(update={"registry": unregistered}), bundle.metadata)
    with pytest.raises(SettingsError, match="auto_register"):
        strict.encode(columns)
    keys, values = open_encoder(settings, bundle.metadata).encode(columns)
    assert keys == [b"a", "\u20ac".encode()]
    read = AvroDeserializer(Registry(RegistrySettings(url=url)).client)
    context = SerializationContext("forecasts-avro", MessageField.VALUE)
    first, second = (read(value, context) for value in values)
    assert first["unique_id"] == "a"
    assert first["ds"] == dt.datetime.fromtimestamp(NOON_MS / 1000, dt.UTC)
    assert first["quantiles"] == {"0.1": [0.0, 3.0], "0.5": [1.0, 4.0], "0.9": [2.0, 5.0]}
    assert (first["anomaly"], first["status"], first["revision"]) == (None, "ok", 0)
    assert (second["anomaly"], second["status"]) == (0.5, "gap")
    assert second["source"] == {"partition": 70, "offset": 2**40}
    assert Registry(RegistrySettings(url=url)).client.get_latest_version("forecasts-avro-value").version == 1
