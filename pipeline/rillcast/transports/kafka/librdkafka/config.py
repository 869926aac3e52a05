"""The configuration of librdkafka's clients, from the settings.

Owns: librdkafka's names, and the values that are not settings. Does not know: what the clients are used for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer

from rillcast.errors import SettingsError
from rillcast.settings import KafkaSettings
from rillcast.transports.kafka.common import failures
from rillcast.transports.kafka.common.durations import milliseconds
from rillcast.transports.kafka.common.fetches import partition_bytes
from rillcast.transports.kafka.common.record_size import Limits, batch_bytes
from rillcast.transports.kafka.common.topic_admin import METADATA_AGE_MS
from rillcast.transports.kafka.librdkafka import workarounds

# The coordinator refuses the next transaction while it still writes the markers of the last one. The default of 100 ms
# makes small transactions slow (confluent-kafka-python issue 967).
_TRANSACTION_RETRY_MS: Final = 5
# With one request in flight records gather by themselves while the brokers are busy. The default of 5 ms would delay
# every forecast, and would be most of its latency.
_LINGER_MS: Final = 1
_BATCH_BYTES: Final = 1_000_000  # the default
_LOG_LEVEL: Final = 2  # critical: the error callback reports everything below


def consumer_config(settings: KafkaSettings, on_error: Callable[[KafkaError], None]) -> dict[str, Any]:
    """Return the consumer's configuration in librdkafka's names."""
    config = connection_config(settings, on_error) | {
        "group.id": settings.group_id,
        "partition.assignment.strategy": "cooperative-sticky",
        "auto.offset.reset": "error",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "enable.partition.eof": True,
        "isolation.level": "read_committed",
        "allow.auto.create.topics": False,
        "session.timeout.ms": milliseconds(settings.session_timeout_s),
        "heartbeat.interval.ms": min(3_000, max(1, milliseconds(settings.session_timeout_s) // 3)),
        "max.poll.interval.ms": milliseconds(settings.max_poll_interval_s),
        "fetch.max.bytes": settings.max_fetch_bytes,
        "max.partition.fetch.bytes": partition_bytes(settings),
        "message.max.bytes": min(settings.max_fetch_bytes, settings.max_message_bytes),
        "receive.message.max.bytes": settings.max_fetch_bytes + 1_000_000,
        "fetch.queue.backoff.ms": workarounds.FETCH_QUEUE_BACKOFF_MS,
    }
    if settings.group_instance_id is not None:
        config["group.instance.id"] = settings.group_instance_id
    return config


def producer_config(
    settings: KafkaSettings,
    on_delivery: Callable[[KafkaError | None, Message], None],
    on_error: Callable[[KafkaError], None],
    limits: Limits,
    transactional_id: str | None = None,
) -> dict[str, Any]:
    """Return the producer's configuration in librdkafka's names."""
    config = connection_config(settings, on_error) | {
        # Without idempotence a lost answer may repeat records outside of transactions.
        "enable.idempotence": transactional_id is not None or workarounds.IDEMPOTENT_OUTSIDE_TRANSACTIONS,
        "acks": "all",
        "max.in.flight.requests.per.connection": workarounds.MAX_IN_FLIGHT,
        "linger.ms": _LINGER_MS,
        "partitioner": "murmur2_random",  # as Java and kafka-python: a key has one partition, whichever client writes
        "compression.type": settings.compression,
        "message.max.bytes": settings.max_message_bytes,
        "batch.size": batch_bytes(limits, _BATCH_BYTES),  # the client splits no batch that a topic refuses
        "delivery.report.only.error": True,
        "on_delivery": on_delivery,
    }
    if transactional_id is not None:
        timeout_ms = milliseconds(settings.transaction_timeout_s)
        config |= {
            "transactional.id": transactional_id,
            "transaction.timeout.ms": timeout_ms,
            "message.timeout.ms": timeout_ms,
            "socket.timeout.ms": min(timeout_ms, milliseconds(settings.request_timeout_s)),
            "retry.backoff.ms": _TRANSACTION_RETRY_MS,
            "linger.ms": workarounds.TRANSACTION_LINGER_MS,
        }
        config = workarounds.without_delivery_reports(config)
    return config


def connection_config(settings: KafkaSettings, on_error: Callable[[KafkaError], None]) -> dict[str, Any]:
    """Return the configuration that consumer, producer and admin client share, in librdkafka's names."""
    config: dict[str, Any] = {
        "bootstrap.servers": settings.bootstrap_servers,
        "client.id": "rillcast",
        "security.protocol": settings.security_protocol,
        "socket.timeout.ms": milliseconds(settings.request_timeout_s),
        "topic.metadata.refresh.interval.ms": METADATA_AGE_MS,
        "error_cb": on_error,
        "log_level": _LOG_LEVEL,
    }
    if settings.security_protocol.startswith("SASL"):
        config["sasl.mechanism"] = settings.sasl_mechanism
    if settings.security_protocol.startswith("SASL") and settings.sasl_mechanism == "OAUTHBEARER":
        config |= _client_credentials(settings)
    elif settings.security_protocol.startswith("SASL"):
        config["sasl.username"] = settings.sasl_username or ""
        config["sasl.password"] = settings.sasl_password.get_secret_value() if settings.sasl_password else ""
    files = {
        "ssl.ca.location": settings.ssl_ca_file,
        "ssl.certificate.location": settings.ssl_certificate_file,
        "ssl.key.location": settings.ssl_key_file,
    }
    if settings.ssl_key_password is not None:
        config["ssl.key.password"] = settings.ssl_key_password.get_secret_value()
    return config | {key: str(path) for key, path in files.items() if path is not None}


def _client_credentials(settings: KafkaSettings) -> dict[str, Any]:
    """Return the options with which librdkafka fetches its tokens itself (OAuth 2.0, RFC 6749, section 4.4)."""
    secret = settings.oauth_client_secret
    config: dict[str, Any] = {
        "sasl.oauthbearer.method": "oidc",
        "sasl.oauthbearer.token.endpoint.url": settings.oauth_token_url,
        "sasl.oauthbearer.client.id": settings.oauth_client_id,
        "sasl.oauthbearer.client.secret": secret.get_secret_value() if secret is not None else "",
    }
    if settings.oauth_scope is not None:
        config["sasl.oauthbearer.scope"] = settings.oauth_scope
    if settings.oauth_ca_file is not None:
        config["https.ca.location"] = str(settings.oauth_ca_file)
    return config


def create(make: Callable[[], Any], what: str) -> Any:
    """Return the client that `make` makes; it connects in the background.

    Raises:
        SettingsError: The client refuses its configuration.
    """
    try:
        return make()
    except (KafkaException, TypeError, ValueError) as error:
        cause = error.args[0] if error.args else error
        raise SettingsError(f"{what} were refused by librdkafka: {cause}") from error


def require_topics(client: Consumer | Producer, settings: KafkaSettings, topics: Iterable[str]) -> Mapping[str, int]:
    """Return the number of partitions of each topic; raise if one is missing.

    It lists all topics, since asking for one by name may create it.

    Raises:
        TransportError: A topic does not exist, or no broker answers.
    """
    try:
        present = client.list_topics(timeout=settings.request_timeout_s).topics
    except KafkaException as error:
        cause = error.args[0]
        raise failures.unreachable(settings.bootstrap_servers, settings.request_timeout_s, cause) from error
    if missing := set(topics) - set(present):
        raise failures.missing_topics(settings.bootstrap_servers, missing)
    return {topic: len(present[topic].partitions) for topic in topics}
