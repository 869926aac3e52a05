"""What looks at records or requests before anybody has described them, as targets: `init`, `rekey`, HTTP.

A refusal has a reason of its own, settings that are proposed can be read back, a record is copied byte for byte or is a
dead letter, and a request gets an answer that is no failure of the server.
"""

from __future__ import annotations

import socket
import socketserver
import tomllib
from collections.abc import Callable
from functools import cache
from typing import Final
from unittest import mock

import msgspec
import numpy as np
from prometheus_client import CollectorRegistry

from rillcast.codecs.observations.decoder import ObservationDecoder
from rillcast.codecs.observations.expansion import Expansion
from rillcast.discovery import layout as layouts
from rillcast.discovery.proposal import propose, settings_with
from rillcast.discovery.sample import Sample
from rillcast.discovery.settings_file import write
from rillcast.errors import DataError, SettingsError
from rillcast.observability.expert_weights import ExpertWeights
from rillcast.observability.forecast_cache import ForecastCache
from rillcast.observability.health import Health
from rillcast.observability.live_view import LiveView
from rillcast.observability.server import HttpServer
from rillcast.observability.stream_alarms import StreamAlarms
from rillcast.publishing.dead_letters import DeadLetter, DeadLetters
from rillcast.service.rekeyer import Rekeyer, RekeyParts
from rillcast.settings import HttpSettings, Settings, WorkerSettings
from rillcast.transports.base import Channel, Polled
from tests.fuzz.target import Target
from tests.support.hostile import NOON_MS, record
from tests.support.live_views import metadata, publish
from tests.support.memory import Clock, Log, MemorySink, MemorySource

_HOUR_MS: Final = 3_600_000


def targets() -> dict[str, Target]:
    """Return the targets by name."""
    metric = b'{"metrics":[{"name":"cpu","tags":{"host":"a"},"fields":{"v":1},"timestamp":1714564800}]}'
    nested = msgspec.json.encode({"meta": {"id": "a b"}, "at": "2024-05-01 12:00", "v": [{"k": "x", "n": 1.5}]})
    deleted = msgspec.json.encode({"meter\x7f": "a", "at": NOON_MS, "kWh\x7f": 1.5})  # it broke the settings file
    topics = [record(), record(ds="2024-05-01", y="1,5"), nested, deleted, metric, b"a b=1i 3"]
    requests = [
        b"GET /api/v1/streams/a%2Fb?limit=3&prefix=a HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer t\r\n\r\n",
        b"HEAD /metrics HTTP/1.0\r\nAccept: application/openmetrics-text; version=1.0.0\r\n\r\n",
        b"GET /api/streams?page=2&trouble=late&search=%E2%98%82 HTTP/1.1\r\n\r\n",
        b"GET /api/v1/streams?after=a&limit=1&trouble=silent HTTP/1.1\r\nX-Rillcast-Member: 1\r\n\r\n",
        b"GET /api/v1/alarms HTTP/1.1\r\n\r\n",
        b"GET /api/v1/mixture?unique_id=a HTTP/1.1\r\n\r\n",
        b"GET /static/../server.py HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nabcde",
        b"GET /\r\n",
    ]
    return {
        "init": Target(_init, topics, 0.01, 60),
        "rekey": Target(_rekeyed(), [record(host="h"), record(host=7, y=None), record(host="\n"), b"[1"], 0.05, 300),
        "http": Target(_http, requests, 0.01, 200),
    }


def _init(data: bytes) -> None:
    """Propose settings for a topic in which every third record is `data`, at other times."""
    honest = [record(ds=NOON_MS + _HOUR_MS * hour, y=hour) for hour in range(6)]
    for values in ([data] * 3, [*honest, data, *honest, data]):
        settings, polled = Settings(), _polled(values)
        try:
            proposal = propose(
                settings,
                layouts.of_topic(settings, polled),
                lambda _settings, polled=polled: Sample("topic", polled, 1, None),  # type: ignore[misc]  # mypy infers no type of a lambda with a default
            )
        except (DataError, SettingsError):
            continue
        written = tomllib.loads(write(proposal.choice.values, proposal.choice.why, ["head"]))
        tables = {path: value for path, value in proposal.choice.values.items() if isinstance(value, list)}
        given = {path: value for path, value in proposal.choice.values.items() if path not in tables}
        Settings.model_validate(written)
        assert settings_with(Settings.model_validate(written), given) == Settings.model_validate(written)


def _polled(values: list[bytes]) -> Polled:
    n = len(values)
    stamps = NOON_MS + _HOUR_MS * np.arange(n, dtype=np.int64)
    return Polled(np.zeros(n, np.int64), np.arange(n, dtype=np.int64), stamps, [None] * n, values)


def _rekeyed() -> Callable[[bytes], None]:
    decoders = [
        ObservationDecoder(),
        ObservationDecoder(expansion=Expansion("unique_id,r[].id", "ds", "y,r[].cpu")),
    ]

    def run(data: bytes) -> None:
        for decoder in decoders:
            log = Log()
            more = [{"id": "q", "cpu": 1}]
            values = [record(unique_id="x", r=more), data, record(unique_id="z", r=more)]
            for value in values:
                log.append(0, value, b"old")
            parts = RekeyParts(MemorySource(log), MemorySink(log), decoder, DeadLetters("memory", 1_000))
            Rekeyer(parts, WorkerSettings(commit_interval_s=3.0), clock=Clock()).run()
            assert log.committed == {0: 3}
            copies = log.published.get(Channel.FORECASTS, [])
            letters = [DeadLetter.read(*each) for each in log.published.get(Channel.DEAD_LETTERS, [])]
            assert all(value in values and key for key, value, _ in copies)
            neighbours = [(key or b"")[:1] for key, value, _ in copies if value != data]
            assert neighbours == [b"x", b"z"], "a neighbour was harmed"
            assert len(copies) + len(letters) <= 3
            assert all(letter.offset == 1 and letter.detail for letter in letters)

    return run


@cache
def _port() -> int:
    """Return the port of a server that has streams, and runs until the process ends."""
    forecasts, view = ForecastCache(100), LiveView(metadata())
    publish(forecasts, ["a", "a/b", "☂\u202e<b>"], first=0)
    weights = ExpertWeights(view.charted)
    server = HttpServer(HttpSettings(port=0), CollectorRegistry(), Health(), view, forecasts, StreamAlarms(), weights)
    server.start()
    return server.port


def _http(data: bytes) -> None:
    with mock.patch.object(socketserver.BaseServer, "handle_error", autospec=True) as failed:
        answer = _asked(_port(), data)
        alive = _asked(_port(), b"GET /livez HTTP/1.0\r\n\r\n")
    assert not failed.called, "a request ended in an exception of the server"
    assert b" 500 " not in answer.split(b"\r\n", 1)[0], answer[:200]
    assert alive.startswith(b"HTTP/1.0 "), "the server does not answer any more"


def _asked(port: int, data: bytes) -> bytes:
    """Send bytes and return all of the answer."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(1 << 16):
                answer += part
        except ConnectionError:
            pass  # it hung up before it had read everything
    return answer
