"""Settings of the schema registry."""

from __future__ import annotations

from pathlib import Path

from pydantic import SecretStr, field_validator

from rillcast.settings.section import Positive, Section, require_no_user


class RegistrySettings(Section):
    """The schema registry (Confluent API), for the formats that need one."""

    url: str | None = None
    """Base address; of several, separated by commas, the first that answers is taken."""
    username: str | None = None
    """User name for HTTP basic authentication."""
    password: SecretStr | None = None
    """Password for HTTP basic authentication; never printed."""
    token: SecretStr | None = None
    """Bearer token instead of a user name; never printed."""
    logical_cluster: str = ""
    """Sent along with a token (Confluent Cloud)."""
    ssl_ca_file: Path | None = None
    """CA certificates (PEM) that the registry is checked against; the system's when empty."""
    ssl_certificate_file: Path | None = None
    """This client's certificate (PEM), for mutual TLS."""
    ssl_key_file: Path | None = None
    """This client's private key (PEM), for mutual TLS."""
    timeout_s: Positive = 10.0
    """Longest wait for one answer."""
    auto_register: bool = True
    """Whether `output.codec` avro registers the schema of forecasts, under `<output.topic>-value`, if it is not
    there."""
    validate_json: bool = False
    """Whether format json_schema also holds each record against the schema that its writer registered: about ten times
    as slow, and the validator fetches schemas that the schema refers to."""

    @field_validator("url")
    @classmethod
    def _no_password_in_address(cls, value: str | None) -> str | None:
        for address in (value or "").split(","):
            require_no_user(address.strip(), "use registry.username, .password")
        return value
