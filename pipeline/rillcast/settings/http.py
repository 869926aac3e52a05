"""Settings of the HTTP server."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SecretStr

from rillcast.settings.section import Section


class HttpSettings(Section):
    """The HTTP server: metrics, probes, latest forecasts, live page."""

    enabled: bool = True
    """Whether to serve at all."""
    host: str = "127.0.0.1"
    """Address to bind; `0.0.0.0` in a container."""
    port: Annotated[int, Field(ge=0, le=65535)] = 9464
    """Port to bind; 0 takes a free one and logs it."""
    cached_streams: Annotated[int, Field(ge=0)] = 10_000
    """Of so many streams at least, those published last, the newest forecast is kept for the [read API](api.md);
    0 = none."""
    token: SecretStr | None = None
    """Bearer token that every request but the probes' has to carry; never printed. Without one, whoever reaches the
    port can read."""
