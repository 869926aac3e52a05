"""Settings of the HTTP server."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator

from rillcast.settings.section import Section


class HttpSettings(Section):
    """The HTTP server: metrics, probes, latest forecasts, live page."""

    enabled: bool = True
    """Starts the server."""
    host: str = "127.0.0.1"
    """Address to bind; use `0.0.0.0` in a container."""
    port: Annotated[int, Field(ge=0, le=65535)] = 9464
    """Port to bind; 0 = a free one, which the log names."""
    cached_streams: Annotated[int, Field(ge=0)] = 10_000
    """Keeps the newest forecast of at least this many streams for the [read API](api.md), those published last;
    0 = none. Raise it if the API must answer for more streams."""
    charted_streams: Annotated[int, Field(ge=0)] = 96
    """Charts this many streams on the [live page](live-page.md), those that appear first; each takes about 10 KiB."""
    peers: str | None = None
    """Other members of the service, as `host:port` separated by commas; page and API then show all members. A host may
    be a name with the addresses of all members, such as that of a headless service: it is looked up again every 5 s.
    This member may be among them. See [live-page.md](live-page.md#all-members-on-one-page)."""
    token: SecretStr | None = None
    """Bearer token that every request except probes must carry; never printed. Without a token, anyone who reaches the
    port can read."""

    @field_validator("peers")
    @classmethod
    def _peers_are_addresses(cls, value: str | None) -> str | None:
        addresses_of(value)
        return value


def addresses_of(peers: str | None) -> list[tuple[str, int]]:
    """Return hosts and ports of the setting `http.peers`.

    Raises:
        ValueError: A part of it is not `host:port`.
    """
    return [] if peers is None else [_address(each.strip()) for each in peers.split(",")]


def _address(text: str) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    try:
        port = parts.port
    except ValueError:
        port = None
    if not parts.hostname or port is None or parts.path or parts.query or "@" in text:
        raise ValueError(f"{text!r} is not the address of a member; expected host:port")
    return parts.hostname, port
