"""The schema registry, through confluent-kafka's client: schemas by id, and the meaning of its errors for a record.

A record that names an unknown schema becomes a dead letter. Only a registry's own error code says so: any other answer
(a proxy's 404, a login page, an empty object) and no answer stop the service, which restarts; no record is lost.

Source of the codes: Confluent Schema Registry API reference, "Errors".

Owns: the client's configuration, the frame of Confluent's serialisers, and that distinction.
Does not know: the content of a schema.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

from rillcast.codecs.observations.rejections import Reason, RefusedError
from rillcast.errors import SettingsError, TransportError
from rillcast.settings import RegistrySettings

_MAX_ID: Final = 2**31 - 1
# The first three digits of the five of a registry's own error codes: subject, version or schema not found; invalid.
_NOT_THERE: Final = frozenset({404, 422})
_INCOMPATIBLE: Final = 409  # the only code of three digits that is the registry's own
# Writers register a schema before they use it, so an unknown id stays unknown unless the registry lags.
_UNKNOWN_FOR_S: Final = 30.0
_MOST_UNKNOWN: Final = 10_000
_RETRIES: Final = 3
_UNREADABLE: Final = -1  # the client's code for an error answer that it cannot read
_SHOWN_CHARACTERS: Final = 200
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
        self.asked: Any = _Asked(self)
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
        try:
            schema = self.asked.get_schema(number)
        except RefusedError as error:
            self._remember_unknown(number)
            raise RefusedError(error.reason, f"schema {number}: {error.detail}") from error
        if not isinstance(schema.schema_str, str):
            raise self.no_registry("get_schema", f"an object without a schema for the id {number}")
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
            if register:
                return int(self.asked.register_schema(subject, wanted))
            return int(self.asked.lookup_schema(subject, wanted).schema_id)
        except RefusedError as error:
            advice = "" if register else "; register it, or set registry.auto_register"
            raise SettingsError(
                f"subject {subject!r} does not accept the schema of forecasts: {error}{advice}"
            ) from error

    def no_registry(self, asked: str, answer: object) -> TransportError:
        """Return the error for an answer that no registry gives."""
        return TransportError(
            f"schema registry {self.url} answers {asked} with {answer}, which no registry does; check registry.url and "
            f"what stands between (a proxy, a login page)"
        )

    def _remember_unknown(self, number: int) -> None:
        self._unknown[number] = self._clock() + _UNKNOWN_FOR_S
        self._unknown.move_to_end(number)
        if len(self._unknown) > _MOST_UNKNOWN:
            self._unknown.popitem(last=False)


class _Asked:
    """The registry's client; the failures of its methods are translated. A deserialiser takes it for the client.

    Raises:
        RefusedError: The registry says that it does not have a schema, or does not accept one.
        TransportError: No registry answers, or it denies access.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._registry.client, name)

        def ask(*arguments: Any, **options: Any) -> Any:
            try:
                return method(*arguments, **options)
            except Exception as error:  # also of the client's, at an answer that it does not expect
                raise self._translated(name, error) from error

        return ask

    def _translated(self, asked: str, error: Exception) -> Exception:
        import httpx2
        from confluent_kafka.schema_registry.error import SchemaRegistryError

        url = self._registry.url
        if isinstance(error, httpx2.HTTPError):
            return TransportError(f"schema registry {url} does not answer: {error}")
        if not isinstance(error, SchemaRegistryError):
            return self._registry.no_registry(asked, f"{type(error).__name__}: {_cut(error)}")
        code = error.error_code if isinstance(error.error_code, int) else _UNREADABLE
        if code == _INCOMPATIBLE or code // 100 in _NOT_THERE:
            return RefusedError(Reason.UNKNOWN_SCHEMA, f"{url} says: {error}")
        if code == _UNREADABLE:
            return self._registry.no_registry(asked, f"HTTP {error.http_status_code}: {_cut(error)}")
        return TransportError(f"schema registry {url}: {_cut(error)}; check registry.url")


def _cut(error: Exception) -> str:
    """Return an error's text without the rest of a long page."""
    text = str(error)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]} ..."


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
