"""Tokens for SASL OAUTHBEARER (KIP-255). librdkafka fetches its own; kafka-python does not.

Owns: the request for a token (OAuth 2.0 client credentials, RFC 6749, section 4.4) and its reuse until shortly before
it expires. Does not know: what the token says.
"""

from __future__ import annotations

import base64
import ssl
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Final

import msgspec
from kafka.net.sasl.oauth import AbstractTokenProvider

from rillcast.errors import TransportError
from rillcast.settings import KafkaSettings

_REUSED_SHARE: Final = 0.8  # of a token's lifetime
_DEFAULT_LIFE_S: Final = 300.0  # if the answer does not say
_MAX_ANSWER_BYTES: Final = 1_048_576


class _Answer(msgspec.Struct):
    access_token: str
    expires_in: float = _DEFAULT_LIFE_S


class ClientCredentials(AbstractTokenProvider):  # type: ignore[misc]  # kafka-python ships no types
    """Asks the token endpoint as this client. May be used from any thread."""

    def __init__(self, settings: KafkaSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._lock = threading.Lock()
        self._token = ""
        self._good_until = -1.0

    def token(self) -> str:
        """Return a token that stays valid for a while.

        Raises:
            TransportError: The endpoint does not answer, refuses, or returns no token.
        """
        with self._lock:
            if self._clock() >= self._good_until:
                answer = self._ask()
                self._token = answer.access_token
                self._good_until = self._clock() + answer.expires_in * _REUSED_SHARE
            return self._token

    def _ask(self) -> _Answer:
        settings = self._settings
        assert settings.oauth_token_url is not None  # the settings require it, and a safe scheme
        secret = settings.oauth_client_secret.get_secret_value() if settings.oauth_client_secret is not None else ""
        pair = f"{urllib.parse.quote_plus(settings.oauth_client_id or '')}:{urllib.parse.quote_plus(secret)}"
        fields = {"grant_type": "client_credentials"}
        if settings.oauth_scope is not None:
            fields["scope"] = settings.oauth_scope
        request = urllib.request.Request(  # noqa: S310  the settings allow https, and http to this machine
            settings.oauth_token_url,
            data=urllib.parse.urlencode(fields).encode(),
            headers={
                "Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}",
                "Accept": "application/json",
            },
        )
        ca_file = str(settings.oauth_ca_file) if settings.oauth_ca_file is not None else None
        context = ssl.create_default_context(cafile=ca_file)
        try:
            with urllib.request.urlopen(request, timeout=settings.request_timeout_s, context=context) as answer:  # noqa: S310
                return msgspec.json.decode(answer.read(_MAX_ANSWER_BYTES), type=_Answer)
        except (OSError, msgspec.MsgspecError) as error:
            raise TransportError(f"kafka.oauth_token_url {settings.oauth_token_url}: no token: {error}") from error
