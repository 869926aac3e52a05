"""Settings of the HTTP server."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SecretStr

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
    token: SecretStr | None = None
    """Bearer token that every request except probes must carry; never printed. Without a token, anyone who reaches the
    port can read."""
