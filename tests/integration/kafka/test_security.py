"""Both clients get into a broker that demands TLS, a certificate or SASL, and stay out without."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from rillcast.errors import RillcastError
from rillcast.settings import KafkaSettings
from rillcast.transports.base import Channel, Records
from tests.support.secure_kafka import PASSWORD, SecureKafka, secure_kafka
from tests.support.transports import CLIENTS, Listener, kafka_sink, kafka_source, read

WAYS = ("tls", "mutual tls", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", "clear")

pytestmark = pytest.mark.kafka


@pytest.fixture(scope="module")
def secure() -> Iterator[SecureKafka]:
    with secure_kafka() as running:
        yield running


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("client", CLIENTS)
def test_records_go_in_and_come_out(
    secure: SecureKafka, client: str, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    topic = secure.cluster.create_topic()
    settings = secure.settings(way)
    sink = kafka_sink(client, settings, {Channel.FORECASTS: topic})
    source = kafka_source(client, settings, topic)
    try:
        sink.publish(Channel.FORECASTS, Records([b"k"], [b"value"]))
        sink.flush(20)
        source.open(Listener())
        assert [record.value for record in read(source, 1)] == [b"value"]
    finally:
        source.close()
        sink.close()
    assert PASSWORD not in caplog.text


def refused(client: str, settings: KafkaSettings, topic: str) -> str:
    """Return what the client says when it does not get in."""
    with pytest.raises(RillcastError) as error:
        kafka_sink(client, settings, {Channel.FORECASTS: topic}).close()
    return str(error.value)


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(
    ("way", "changes"),
    [
        ("tls", {"security_protocol": "PLAINTEXT"}),
        ("tls", {"ssl_ca_file": "other-ca.pem"}),
        ("mutual tls", {"ssl_certificate_file": None, "ssl_key_file": None, "ssl_key_password": None}),
        ("PLAIN", {"sasl_password": "wrong-password"}),
        ("SCRAM-SHA-512", {"sasl_password": "wrong-password"}),
        ("SCRAM-SHA-256", {"sasl_username": "stranger"}),
        ("OAUTHBEARER", {"oauth_client_secret": "wrong-password"}),
    ],
)
def test_without_the_right_credentials_nobody_gets_in(
    secure: SecureKafka, client: str, way: str, changes: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    if "ssl_ca_file" in changes:
        changes = {"ssl_ca_file": secure.folder / str(changes["ssl_ca_file"])}
    settings = secure.settings(way, **{"request_timeout_s": 1.0, **changes})
    message = refused(client, settings, secure.cluster.create_topic())
    for secret in (PASSWORD, "wrong-password"):
        assert secret not in message
        assert secret not in caplog.text
