"""The schema registry, through confluent-kafka's client: schemas by id, and what its errors mean for a record.

Owns: the client's configuration, the frame that Confluent's serialisers put before a value, and the difference between
a record that names a schema that is not there (a dead letter) and a registry that does not answer (the service stops
and starts again; no record is given up for it). Does not know: what a schema says.
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
# Of the client's faults these are ours, not the record's: not authorised, forbidden, time-out, too many requests.
_OUR_FAULTS: Final = frozenset({401, 403, 408, 429})
_CLIENT_FAULTS: Final = range(400, 500)
# A writer registers its schema before it writes, so an unknown id stays unknown, but for a registry that lags.
_UNKNOWN_FOR_S: Final = 30.0
_MOST_UNKNOWN: Final = 10_000
_RETRIES: Final = 3
_FRAME_BYTES: Final = 6  # magic byte, schema id, and at least one byte of payload


class Registry:
    """A registry that speaks the Confluent API. Schemas are asked for once; used from one thread."""

    def __init__(self, settings: RegistrySettings, clock: Callable[[], float] = time.monotonic) -> None:
        """Make the client; nothing is asked yet.

        Raises:
            SettingsError: no address is set, or the client refuses its configuration.
        """
        from confluent_kafka.schema_registry import SchemaRegistryClient

        if settings.url is None:
            raise SettingsError("registry.url is not set, but the format needs a schema registry")
        self.url = settings.url
        self._clock = clock
        self._unknown: OrderedDict[int, float] = OrderedDict()
        try:
            self.client: Any = SchemaRegistryClient.new_client(_config(settings))
        except (ValueError, TypeError, OSError) as error:
            raise SettingsError(f"registry settings were refused: {error}") from error

    def require(self, value: bytes, schema_type: str) -> None:
        """Refuse a value whose frame is broken, or names no schema of `schema_type`; cheap for a schema that is known.

        Raises:
            RefusedError: the record is at fault.
            TransportError: the registry does not answer.
        """
        if len(value) < _FRAME_BYTES or value[0] not in (0, 1):
            raise RefusedError(Reason.NOT_FRAMED, f"{len(value)} bytes that do not begin with a schema id")
        if value[0] == 1:
            raise RefusedError(Reason.NOT_FRAMED, "schemas are taken by id (magic byte 0), not by GUID (magic byte 1)")
        number = int.from_bytes(value[1:5], "big")
        if number > _MAX_ID:
            raise RefusedError(Reason.UNKNOWN_SCHEMA, f"{number} cannot be the id of a schema")
        if (until := self._unknown.get(number)) is not None and self._clock() < until:
            raise RefusedError(Reason.UNKNOWN_SCHEMA, f"schema {number} is not in {self.url}")
        with self.asking(number):
            schema = self.client.get_schema(number)
        if (found := schema.schema_type or "AVRO") != schema_type:
            raise RefusedError(Reason.UNKNOWN_SCHEMA, f"schema {number} is of type {found}, expected {schema_type}")

    def id_of(self, subject: str, schema: str, *, register: bool) -> int:
        """Return the id of an Avro schema under a subject; with `register`, it is registered if it is not there.

        Raises:
            TransportError: the registry does not answer, or refuses us.
            SettingsError: the schema is not there, or is not compatible with the one that is.
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
                f"subject {subject!r} does not take the schema of forecasts: {error}{advice}"
            ) from error

    @contextmanager
    def asking(self, number: int | None = None) -> Iterator[None]:
        """Turn the client's errors into ours.

        Raises:
            RefusedError: the schema is not there.
            TransportError: the registry does not answer, or refuses us.
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
