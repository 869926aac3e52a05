"""Settings of the Kafka client and the consumer group."""

from __future__ import annotations

from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from rillcast.settings.section import FilePath, Positive, Section, require_no_user

_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")


class KafkaSettings(Section):
    """The connection to Kafka and the consumer group."""

    client: Literal["auto", "librdkafka", "kafka-python"] = "auto"
    """Client library. `auto` takes librdkafka (confluent-kafka) where it is installed; it is about ten times faster."""
    bootstrap_servers: str = "localhost:9092"
    """Brokers to connect to first: host:port, separated by commas."""
    group_id: str = "rillcast"
    """Consumer group. Members of one group share the partitions."""
    group_instance_id: str | None = None
    """Name of a static member (KIP-345). It stays the same when the member restarts, which avoids a rebalance."""
    auto_offset_reset: Literal["earliest", "latest"] = "earliest"
    """Position at which a group without a committed offset starts."""
    session_timeout_s: Positive = 45.0
    """Time without a heartbeat after which a member counts as dead, in seconds."""
    max_poll_interval_s: Positive = 300.0
    """Time between polls after which a member leaves the group, in seconds."""
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = "none"
    """Compression of produced records."""
    transactional_id: str | None = None
    """Identifies this member's transactions across restarts, so that a successor ends what a crash left open. By
    default it is made of `group_id` and `group_instance_id`, and random without the latter."""
    transaction_timeout_s: Positive = 10.0
    """Time after which the broker aborts an open transaction of a dead member, in seconds. Until then, readers wait."""
    max_message_bytes: Annotated[int, Field(gt=0)] = 1_000_000
    """Limits the size of a produced record, in bytes. The largest is a page of state, which has as many streams as fit;
    the state topic is created with this limit. Of other topics, their `max.message.bytes` counts where it is less."""
    max_fetch_bytes: Annotated[int, Field(gt=0)] = 52_428_800
    """Limits the size of one fetch, in bytes."""
    request_timeout_s: Positive = 30.0
    """Limits the wait for one answer of the broker, in seconds."""
    outage_timeout_s: Annotated[float, Field(ge=0)] | None = None
    """Time for which a service that has served waits for brokers that are away, in seconds; then it ends with exit
    code 5. Empty = for as long as it takes; 0 = it ends at once."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """Protocol of the brokers' listener."""
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] = "PLAIN"
    """Authentication with SASL_PLAINTEXT and SASL_SSL."""
    sasl_username: str | None = None
    """User name for SASL."""
    sasl_password: SecretStr | None = None
    """Password for SASL; never printed."""
    ssl_ca_file: FilePath | None = None
    """CA certificates (PEM) that verify the brokers; empty = the system's."""
    ssl_certificate_file: FilePath | None = None
    """Certificate (PEM) of this client, for mutual TLS."""
    ssl_key_file: FilePath | None = None
    """Private key (PEM) of this client, for mutual TLS."""
    ssl_key_password: SecretStr | None = None
    """Password of `kafka.ssl_key_file`, if it is encrypted; never printed."""
    oauth_token_url: str | None = None
    """Token endpoint of the identity provider (OAuth 2.0 client credentials), for OAUTHBEARER."""
    oauth_client_id: str | None = None
    """Client id for OAUTHBEARER."""
    oauth_client_secret: SecretStr | None = None
    """Client secret for OAUTHBEARER; never printed."""
    oauth_scope: str | None = None
    """Scope of the requested token, for OAUTHBEARER."""
    oauth_ca_file: FilePath | None = None
    """CA certificates (PEM) that verify the token endpoint; empty = the system's."""

    @field_validator("oauth_token_url")
    @classmethod
    def _secret_is_not_sent_in_the_clear(cls, value: str | None) -> str | None:
        url = urlsplit(value or "https://unset")
        if url.scheme != "https" and not (url.scheme == "http" and url.hostname in _LOOPBACK):
            raise ValueError("the client secret is sent to this address: it must begin with https://")
        require_no_user(value or "", "use kafka.oauth_client_id, .oauth_client_secret")
        return value

    @model_validator(mode="after")
    def _credentials_are_complete(self) -> KafkaSettings:
        if self.security_protocol.startswith("SASL"):
            oauth = self.sasl_mechanism == "OAUTHBEARER"
            needed = (
                ("oauth_token_url", "oauth_client_id", "oauth_client_secret")
                if oauth
                else ("sasl_username", "sasl_password")
            )
            if missing := [name for name in needed if getattr(self, name) is None]:
                raise ValueError(
                    f"security_protocol {self.security_protocol} with {self.sasl_mechanism} needs "
                    f"{', '.join(f'kafka.{name}' for name in missing)}"
                )
        return self
