"""The schema registry, through confluent-kafka's client: schemas by id, and the meaning of its errors for a record.

A record that names an unknown schema becomes a dead letter. A registry that does not answer stops the service, which
restarts; no record is lost.

Owns: the client's configuration, the frame of Confluent's serialisers, and that distinction.
Does not know: the content of a schema.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from rillcast.codecs.observations.rejections import Reason, RefusedError
from rillcast.errors import SettingsError, TransportError
from rillcast.settings import RegistrySettings

_MAX_ID: Final = 2**31 - 1
# Status codes of the 4xx range that no record causes: unauthorised, forbidden, time-out, too many requests.
_OUR_FAULTS: Final = frozenset({401, 403, 408, 429})
_CLIENT_FAULTS: Final = range(400, 500)
# Writers register a schema before they use it, so an unknown id stays unknown unless the registry lags.
_UNKNOWN_FOR_S: Final = 30.0
_MOST_UNKNOWN: Final = 10_000
_RETRIES: Final = 3
_FRAME_BYTES: Final = 6  # magic byte, schema id, and at least one byte of payload


class Registry:
    """A registry with the Confluent API. Each schema is fetched once. Used from one thread."""

    def __init__(self, settings: RegistrySettings, clock: Callable[[], float] = time.monotonic) -> None:
        """Create the client; it sends no request yet.

        Raises:
            SettingsError: No address is set, or the client refuses its configuration.
        """
        from confluent_kafka.schema_registry import SchemaRegistryClient

        if settings.url is None:
            raise SettingsError("registry.url is not set, but the format needs a schema registry; set it")
        self.url = settings.url
        self._clock = clock
        self._unknown: OrderedDict[int, float] = OrderedDict()
        try:
            self.client: Any = SchemaRegistryClient.new_client(_config(settings))
        except (ValueError, TypeError, OSError) as error:
            raise SettingsError(f"registry settings were refused: {error}") from error

    def require(self, value: bytes, schema_type: str) -> None:
        """Refuse a value whose frame is broken or names no schema of `schema_type`; cheap for a known schema.

        Raises:
            RefusedError: The record's frame or schema is wrong.
            TransportError: The registry does not answer.
        """
        if len(value) < _FRAME_BYTES or value[0] not in (0, 1):
            raise RefusedError(Reason.NOT_FRAMED, f"{len(value)} bytes that do not begin with a schema id")
        if value[0] == 1:
            raise RefusedError(Reason.NOT_FRAMED, "found a GUID (magic byte 1), expected a schema id (magic byte 0)")
        number = int.from_bytes(value[1:5], "big")
        if number > _MAX_ID:
            raise RefusedError(Reason.UNKNOWN_SCHEMA, f"{number} cannot be a schema id")
        if (until := self._unknown.get(number)) is not None and self._clock() < until:
            raise RefusedError(Reason.UNKNOWN_SCHEMA, f"schema {number} is not in {self.url}")
        with self.asking(number):
            schema = self.client.get_schema(number)
        if (found := schema.schema_type or "AVRO") != schema_type:
            raise RefusedError(Reason.UNKNOWN_SCHEMA, f"schema {number} is of type {found}, expected {schema_type}")

    def id_of(self, subject: str, schema: str, *, register: bool) -> int:
        """Return the id of an Avro schema under a subject; with `register`, register the schema if needed.

        Raises:
            TransportError: The registry does not answer, or denies access.
            SettingsError: The subject does not have the schema, or has one that is not compatible.
        """
        from confluent_kafka.schema_registry import Schema

        wanted = Schema(schema, "AVRO")
        try:
            with self.asking():
                if register:
                    return int(self.client.register_schema(subject, wanted))
                return int(self.client.lookup_schema(subject, wanted).schema_id)
        except RefusedError as error:
            advice = "" if register else "; register it, or set registry.auto_register"
            raise SettingsError(
                f"subject {subject!r} does not accept the schema of forecasts: {error}{advice}"
            ) from error

    @contextmanager
    def asking(self, number: int | None = None) -> Iterator[None]:
        """Translate the client's errors.

        Raises:
            RefusedError: The registry does not have the schema.
            TransportError: The registry does not answer, or denies access.
        """
        import httpx2
        from confluent_kafka.schema_registry.error import SchemaRegistryError

        try:
            yield
        except SchemaRegistryError as error:
            if error.http_status_code in _CLIENT_FAULTS and error.http_status_code not in _OUR_FAULTS:
                if number is not None:
                    self._remember_unknown(number)
                raise RefusedError(Reason.UNKNOWN_SCHEMA, f"schema {number or ''} in {self.url}: {error}") from error
            raise TransportError(f"schema registry {self.url}: {error}") from error
        except httpx2.HTTPError as error:
            raise TransportError(f"schema registry {self.url} does not answer: {error}") from error

    def _remember_unknown(self, number: int) -> None:
        self._unknown[number] = self._clock() + _UNKNOWN_FOR_S
        self._unknown.move_to_end(number)
        if len(self._unknown) > _MOST_UNKNOWN:
            self._unknown.popitem(last=False)


def _config(settings: RegistrySettings) -> dict[str, Any]:
    config: dict[str, Any] = {"url": settings.url, "timeout": settings.timeout_s, "max.retries": _RETRIES}
    if settings.username is not None:
        password = settings.password.get_secret_value() if settings.password is not None else ""
        config["basic.auth.user.info"] = f"{settings.username}:{password}"
    if settings.token is not None:
        config |= {
            "bearer.auth.credentials.source": "STATIC_TOKEN",
            "bearer.auth.token": settings.token.get_secret_value(),
            "bearer.auth.logical.cluster": settings.logical_cluster,
        }
    files = {
        "ssl.ca.location": settings.ssl_ca_file,
        "ssl.certificate.location": settings.ssl_certificate_file,
        "ssl.key.location": settings.ssl_key_file,
    }
    return config | {key: str(path) for key, path in files.items() if path is not None}
