"""Settings of the schema registry."""

from __future__ import annotations

from typing import Annotated

from pydantic import SecretStr, field_validator

from rillcast.settings.section import MAY_BE_EMPTY, FilePath, Positive, Section, require_no_user


class RegistrySettings(Section):
    """The schema registry (Confluent API), for the formats that need one."""

    url: str | None = None
    """Base address of the registry. Of several, separated by commas, the first that answers is used."""
    username: str | None = None
    """User name for HTTP basic authentication."""
    password: SecretStr | None = None
    """Password for HTTP basic authentication; never printed."""
    token: SecretStr | None = None
    """Bearer token, as an alternative to a user name; never printed."""
    logical_cluster: Annotated[str, MAY_BE_EMPTY] = ""
    """Id of the logical cluster that is sent with a token (Confluent Cloud)."""
    ssl_ca_file: FilePath | None = None
    """CA certificates (PEM) that verify the registry; empty = the system's."""
    ssl_certificate_file: FilePath | None = None
    """Certificate (PEM) of this client, for mutual TLS."""
    ssl_key_file: FilePath | None = None
    """Private key (PEM) of this client, for mutual TLS."""
    timeout_s: Positive = 10.0
    """Limits the wait for one answer, in seconds."""
    auto_register: bool = True
    """Registers the schema of forecasts under `<output.topic>-value` if the registry lacks it. Applies to
    `output.codec` avro. Switch it off where schemas are registered by another process."""
    validate_json: bool = False
    """Validates each json_schema record against the schema of its writer. Decoding is then about ten times slower, and
    the validator fetches schemas that the schema refers to."""

    @field_validator("url")
    @classmethod
    def _no_password_in_address(cls, value: str | None) -> str | None:
        for address in (value or "").split(","):
            require_no_user(address.strip(), "use registry.username, .password")
        return value
