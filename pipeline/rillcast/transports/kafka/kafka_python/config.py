"""The configuration of kafka-python's clients, from the settings.

Owns: kafka-python's names, and the values that are not settings. Does not know: what the clients are used for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from kafka import KafkaAdminClient
from kafka.errors import KafkaConfigurationError, KafkaError, KafkaTimeoutError

from rillcast.errors import SettingsError, TransportError
from rillcast.settings import KafkaSettings
from rillcast.transports.kafka.common import failures
from rillcast.transports.kafka.common.durations import milliseconds
from rillcast.transports.kafka.common.fetches import partition_bytes
from rillcast.transports.kafka.common.record_size import Limits, batch_bytes
from rillcast.transports.kafka.common.topic_admin import METADATA_AGE_MS
from rillcast.transports.kafka.kafka_python.oauth import ClientCredentials
from rillcast.transports.kafka.kafka_python.workarounds import NullValues, OneOwnerAssignor, keep_secrets_out_of_logs

_FETCH_WAIT_MS: Final = 500
_LINGER_MS: Final = 5
# The coordinator refuses the next transaction while it still writes the markers of the last one. With the client's
# default each commit would wait 100 ms.
_TRANSACTION_RETRY_MS: Final = 5
_BATCH_BYTES: Final = 131_072


def consumer_config(settings: KafkaSettings) -> dict[str, Any]:
    """Return the consumer's configuration in kafka-python's names."""
    session_timeout_ms = milliseconds(settings.session_timeout_s)
    return connection_config(settings) | {
        "group_id": settings.group_id,
        "group_instance_id": settings.group_instance_id,
        "partition_assignment_strategy": [OneOwnerAssignor],
        "auto_offset_reset": "none",
        "enable_auto_commit": False,
        "isolation_level": "read_committed",
        "metrics_enabled": False,
        "allow_auto_create_topics": False,
        "session_timeout_ms": session_timeout_ms,
        "heartbeat_interval_ms": min(3_000, max(1, session_timeout_ms // 3)),
        "max_poll_interval_ms": milliseconds(settings.max_poll_interval_s),
        "fetch_max_bytes": settings.max_fetch_bytes,
        "max_partition_fetch_bytes": partition_bytes(settings),
        "fetch_max_wait_ms": min(_FETCH_WAIT_MS, milliseconds(settings.request_timeout_s) // 2),
    }


def producer_config(settings: KafkaSettings, limits: Limits, transactional_id: str | None = None) -> dict[str, Any]:
    """Return the producer's configuration in kafka-python's names. Its partitioner is Java's: murmur2 of the key."""
    config = connection_config(settings) | {
        "enable_idempotence": True,
        "acks": "all",
        "allow_auto_create_topics": False,
        "compression_type": None if settings.compression == "none" else settings.compression,
        "max_request_size": settings.max_message_bytes,
        "metrics_enabled": False,
        "value_serializer": NullValues(),
        "linger_ms": _LINGER_MS,
        "batch_size": batch_bytes(limits, _BATCH_BYTES),
    }
    if transactional_id is not None:
        config |= {
            "transactional_id": transactional_id,
            "transaction_timeout_ms": milliseconds(settings.transaction_timeout_s),
            "max_block_ms": milliseconds(settings.request_timeout_s),
            "max_in_flight_requests_per_connection": 1,
            "retry_backoff_ms": _TRANSACTION_RETRY_MS,
        }
    return config


def connection_config(settings: KafkaSettings) -> dict[str, Any]:
    """Return the configuration that consumer, producer and admin client share, in kafka-python's names."""
    keep_secrets_out_of_logs()
    config: dict[str, Any] = {
        "bootstrap_servers": [server.strip() for server in settings.bootstrap_servers.split(",")],
        "client_id": "rillcast",
        "security_protocol": settings.security_protocol,
        "metadata_max_age_ms": METADATA_AGE_MS,
        "request_timeout_ms": milliseconds(settings.request_timeout_s),
        "bootstrap_timeout_ms": milliseconds(settings.request_timeout_s),
    }
    if settings.security_protocol.startswith("SASL"):
        config["sasl_mechanism"] = settings.sasl_mechanism
    if settings.security_protocol.startswith("SASL") and settings.sasl_mechanism == "OAUTHBEARER":
        config["sasl_oauth_token_provider"] = ClientCredentials(settings)
    elif settings.security_protocol.startswith("SASL"):
        config["sasl_plain_username"] = settings.sasl_username or ""
        config["sasl_plain_password"] = settings.sasl_password.get_secret_value() if settings.sasl_password else ""
    files = {
        "ssl_cafile": settings.ssl_ca_file,
        "ssl_certfile": settings.ssl_certificate_file,
        "ssl_keyfile": settings.ssl_key_file,
    }
    if settings.ssl_key_password is not None:
        config["ssl_password"] = settings.ssl_key_password.get_secret_value()
    return config | {key: str(path) for key, path in files.items() if path is not None}


def create(settings: KafkaSettings, what: str, make: Callable[[], Any]) -> Any:
    """Return the client that `make` makes; it connects at once.

    Args:
        settings: Where to connect, for messages.
        what: Name of the client, for messages.
        make: Makes it.

    Raises:
        SettingsError: The client refuses its configuration.
        TransportError: No broker answers.
    """
    try:
        return make()
    except KafkaTimeoutError as error:
        raise failures.unreachable(settings.bootstrap_servers, settings.request_timeout_s, error) from error
    except (KafkaConfigurationError, AssertionError, RuntimeError, ValueError) as error:
        # RuntimeError: the package of a compression codec is not installed.
        raise SettingsError(f"kafka {what} settings were refused by kafka-python: {error}") from error
    except (KafkaError, OSError) as error:
        raise TransportError(f"kafka {settings.bootstrap_servers}: {what} could not connect: {error}") from error


def require_topics(settings: KafkaSettings, topics: Iterable[str]) -> None:
    """Raise if a topic is missing. It lists all topics, since asking for one by name may create it.

    Raises:
        TransportError: A topic does not exist, or no broker answers.
    """
    admin = create(settings, "admin client", lambda: KafkaAdminClient(**connection_config(settings)))
    try:
        missing = set(topics) - set(admin.list_topics())
    except KafkaError as error:
        raise failures.unreachable(settings.bootstrap_servers, settings.request_timeout_s, error) from error
    finally:
        admin.close()
    if missing:
        raise failures.missing_topics(settings.bootstrap_servers, missing)
