"""Members of a service as far as their HTTP ports: servers on the loopback address with views of their own."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge

from rillcast.observability.forecast_cache import ForecastCache
from rillcast.observability.health import Health
from rillcast.observability.live_view import LiveView
from rillcast.observability.server import HttpServer
from rillcast.settings import HttpSettings
from tests.support.live_views import metadata


@dataclass
class Member:
    """A server, and what it knows."""

    server: HttpServer
    live_view: LiveView
    health: Health
    forecasts: ForecastCache

    def ask(self, path: str, token: str | None = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=10)
        try:
            connection.request("GET", path, headers={} if token is None else {"Authorization": f"Bearer {token}"})
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()


@contextmanager
def member(port: int, peers: str | None = None, token: str | None = None) -> Iterator[Member]:
    """Run a member that knows of `peers`, with a lag and dead letters that are its port."""
    registry = CollectorRegistry()
    Gauge("rillcast_source_lag_records", "Lag.", ["partition"], registry=registry).labels("0").set(port)
    Counter("rillcast_dead_letters", "Dead letters.", ["reason"], registry=registry).labels("json").inc(port)
    health, live_view = Health(started=True, assigned=True, restored=True), LiveView(metadata())
    settings = HttpSettings.model_validate({"port": port, "peers": peers, "token": token})
    forecasts = ForecastCache(10)
    server = HttpServer(settings, registry, health, live_view, forecasts)
    server.start()
    try:
        yield Member(server, live_view, health, forecasts)
    finally:
        server.stop()
