"""The HTTP server of one worker: metrics, probes, read API, live page.

Owns: a listening socket, its threads, the routes and the headers of every answer. Does not know: what the loop
does; it reads `Health`, `LiveView`, `ForecastCache` and the metrics registry, which are all safe to read from
any thread.

Invariants: only GET and HEAD are answered; with a token set, all but the probes require it; no request can name a file
on the disk, because the page's files are read once, at the start, into a table; the page loads nothing from
anywhere else, and a header says so to the browser.

The probes answer 200 or 503 with the conditions by name:

    {"status": "failing", "conditions": {"started": true, "assigned": false, "restored": false, "live": true}, ...}
"""

from __future__ import annotations

import errno
import hmac
import logging
import socket
import socketserver
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from importlib import resources
from typing import TYPE_CHECKING, Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import orjson
from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import choose_encoder

from rillcast import threads
from rillcast.errors import SettingsError
from rillcast.observability.api import ReadApi
from rillcast.observability.expert_weights import ExpertWeights
from rillcast.observability.forecast_cache import ForecastCache
from rillcast.observability.group_api import GroupApi
from rillcast.observability.group_page import MEMBER_STREAMS, GroupPage
from rillcast.observability.health import Health
from rillcast.observability.live_views import View
from rillcast.observability.member_figures import MemberFigures
from rillcast.observability.openapi import ROOT
from rillcast.observability.page_data import PageData
from rillcast.observability.peers import MEMBER_HEADER, Peers
from rillcast.observability.stream_alarms import StreamAlarms
from rillcast.settings import HttpSettings
from rillcast.settings.http import addresses_of

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

log = logging.getLogger(__name__)

_STREAMS: Final = "/api/streams"
_STATIC: Final = "/static/"
_PROBES: Final = ("/livez", "/readyz", "/startupz")
_MEDIA_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_SECURITY_HEADERS: Final = [
    (
        "Content-Security-Policy",
        (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        ),
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-store"),
]
_IDLE_CONNECTION_S: Final = 10
_MOST_CONNECTIONS: Final = 64
_NO_DESCRIPTOR_PAUSE_S: Final = 0.1
_MOST_PARAMETERS: Final = 16
_STOP_POLL_S: Final = 0.1
_STOP_TIMEOUT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class _Answer:
    """Status, media type and body of one response."""

    status: HTTPStatus
    media_type: str
    body: bytes
    headers: list[tuple[str, str]] = field(default_factory=list)


class HttpServer:
    """Answers on `settings.host`:`settings.port` from threads of its own, between `start` and `stop`."""

    def __init__(
        self,
        settings: HttpSettings,
        registry: CollectorRegistry,
        health: Health,
        live_view: View | None,
        forecast_cache: ForecastCache | None = None,
        alarms: StreamAlarms | None = None,
        weights: ExpertWeights | None = None,
    ) -> None:
        """Prepare; nothing is bound yet.

        Args:
            settings: Where to listen.
            registry: The series of `/metrics`.
            health: The conditions of the probes.
            live_view: The view that the page shows; None = metrics and probes only.
            forecast_cache: The forecasts of the read API; None = there is no read API.
            alarms: The alarms of streams; None = there are none.
            weights: The weights of experts; None = there are none.
        """
        self._settings = settings
        self._health = health
        alarms, weights = alarms or StreamAlarms(), weights or ExpertWeights(list)
        page = None if live_view is None else PageData(live_view, alarms, weights, forecast_cache)
        token = None if settings.token is None else settings.token.get_secret_value()
        self._token = None if token is None else token.encode()
        self._peers = Peers(addresses_of(settings.peers), token)
        self._group = None
        if page is not None:
            self._group = GroupPage(page, MemberFigures(registry, health), self._peers)
        self._metrics = make_wsgi_app(registry)
        self._files = _page_files() if live_view is not None else {}
        self._api = None
        if live_view is not None and forecast_cache is not None:
            self._api = GroupApi(ReadApi(forecast_cache, live_view, health, alarms, weights), self._peers)
        self._server: _ThreadingServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The port that is bound, also where the settings ask for any free one (0)."""
        if self._server is None:
            raise RuntimeError("the HTTP server has no port before start() and after stop()")
        return self._server.server_port

    @property
    def url(self) -> str:
        """The page's address for a browser on this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._settings.host, self._settings.host)  # noqa: S104
        return f"http://[{host}]:{self.port}/" if ":" in host else f"http://{host}:{self.port}/"

    def start(self) -> None:
        """Bind and answer.

        Raises:
            SettingsError: The address cannot be bound.
        """
        if self._server is not None:
            raise RuntimeError("the HTTP server has been started already")
        host, port = self._settings.host, self._settings.port
        try:
            self._server = _ThreadingServer(host, port)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise SettingsError(
                f"cannot listen on {host}:{port}: {reason}; set http.host and http.port to a free address"
                " (port 0 takes any free one)"
            ) from error
        self._server.set_app(self._application)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_STOP_POLL_S,), name="rillcast-http", daemon=True
        )
        threads.start(self._thread)
        log.info("listening on %s", self.url)

    def stop(self) -> None:
        """Close the socket; may be called twice. The end of the process cuts off an answer that is under way."""
        if self._server is None or self._thread is None:
            return
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=_STOP_TIMEOUT_S)
        self._peers.close()
        self._server = self._thread = None

    def _application(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request (WSGI, PEP 3333)."""
        method = environ["REQUEST_METHOD"]
        # WSGI decodes the path as Latin-1, but an id may be any Unicode text.
        path = environ.get("PATH_INFO", "").encode("latin-1").decode("utf-8", errors="replace")
        if not self._allowed(path, environ):
            answer = _json(HTTPStatus.UNAUTHORIZED, {"error": "expected a bearer token, see http.token"})
            answer.headers.append(("WWW-Authenticate", 'Bearer realm="rillcast"'))
        elif method in ("GET", "HEAD") and path == "/metrics":
            return self._scrape(environ, start_response)
        elif method in ("GET", "HEAD"):
            answer = self._route(path, environ.get("QUERY_STRING", ""))
        else:
            answer = _json(HTTPStatus.METHOD_NOT_ALLOWED, {"error": f"found method {method}, expected GET or HEAD"})
            answer.headers.append(("Allow", "GET, HEAD"))
        start_response(
            f"{answer.status.value} {answer.status.phrase}",
            [
                ("Content-Type", answer.media_type),
                ("Content-Length", str(len(answer.body))),
                *answer.headers,
                (MEMBER_HEADER, self._peers.own_id),
                *_SECURITY_HEADERS,
            ],
        )
        return [] if method == "HEAD" else [answer.body]

    def _scrape(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer with the metrics; HEAD has the headers of GET (RFC 9110, section 9.3.2)."""
        began: list[Any] = []

        def begin(status: str, headers: list[tuple[str, str]], *_error: Any) -> Any:
            began[:] = status, headers

        accept = _readable(environ.get("HTTP_ACCEPT", ""))
        body = b"".join(self._metrics({**environ, "REQUEST_METHOD": "GET", "HTTP_ACCEPT": accept}, begin))
        status, headers = began
        start_response(status, [*headers, ("Content-Length", str(len(body)))])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def _allowed(self, path: str, environ: WSGIEnvironment) -> bool:
        """Return whether a request may be answered: the probes always, because a kubelet has no token."""
        if self._token is None or path in _PROBES:
            return True
        scheme, _, given = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        # Compared as bytes and in constant time, so that the time reveals nothing about the token.
        return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode("latin-1"), self._token)

    def _route(self, path: str, query: str) -> _Answer:
        match path:
            case "/livez":
                return self._probe(self._health.liveness())
            case "/readyz":
                return self._probe(self._health.readiness())
            case "/startupz":
                return self._probe(self._health.startup())
        if self._group is None:
            return _not_found(path, "this server has metrics and probes only")
        if query.count("&") >= _MOST_PARAMETERS:
            return _json(HTTPStatus.BAD_REQUEST, {"error": f"more than {_MOST_PARAMETERS} parameters"})
        if path == "/":
            return self._files["index.html"]
        if path.startswith(_STATIC):
            return self._files.get(path.removeprefix(_STATIC)) or _not_found(path)
        if path.startswith(ROOT + "/"):
            return self._read(path, query)
        return self._page_document(self._group, path, query) or _not_found(path)

    def _page_document(self, group: GroupPage, path: str, query: str) -> _Answer | None:
        if path == "/api/summary":
            return _json(HTTPStatus.OK, group.summary())
        if path == _STREAMS:
            return _json(HTTPStatus.OK, group.streams(query, self.port))
        if path == MEMBER_STREAMS:
            return _json(HTTPStatus.OK, group.member(query, self.port))
        if path.startswith(_STREAMS + "/"):
            return _found(*group.stream(path.removeprefix(_STREAMS + "/")))
        if path.startswith(MEMBER_STREAMS + "/"):
            return _found(*group.member_stream(path.removeprefix(MEMBER_STREAMS + "/")))
        return None

    def _read(self, path: str, query: str) -> _Answer:
        if self._api is None:
            return _not_found(path, "the read API is off (http.cached_streams is 0)")
        reply = self._api.answer(path.removeprefix(ROOT), query)
        return _not_found(path) if reply is None else _Answer(reply.status, "application/json", reply.body)

    def _probe(self, conditions: Mapping[str, bool]) -> _Answer:
        good = all(conditions.values())
        document = {
            "status": "ok" if good else "failing",
            "conditions": conditions,
            "beat_age_s": round(self._health.beat_age_s, 3),
            "liveness_timeout_s": self._health.liveness_timeout_s,
        }
        return _json(HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE, document)


class _RequestHandler(WSGIRequestHandler):
    """One request; logs at level debug only, and gives up on a silent peer."""

    timeout = _IDLE_CONNECTION_S

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the name is http.server's
        log.debug("%s " + format, self.client_address[0], *args)

    def handle(self) -> None:
        try:
            super().handle()
        except (ConnectionError, TimeoutError) as error:
            # A browser closed its tab, a probe gave up, a peer was silent: nothing to report.
            log.debug("%s went away: %s", self.client_address[0], error)


class _ThreadingServer(socketserver.ThreadingMixIn, WSGIServer):
    """wsgiref's server with a thread per request."""

    daemon_threads = True

    def __init__(self, host: str, port: int) -> None:
        self._room = threading.BoundedSemaphore(_MOST_CONNECTIONS)
        if ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, port), _RequestHandler)

    def get_request(self) -> tuple[Any, Any]:
        """Accept a connection; it stays in the queue while there is no descriptor for it.

        The caller drops the error and asks again at once, which without a pause takes a whole processor.

        Raises:
            OSError: No connection was accepted.
        """
        try:
            return super().get_request()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                # No event tells that a descriptor is free; the thread does nothing but accept.
                time.sleep(_NO_DESCRIPTOR_PAUSE_S)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread of its own; hang up if there are too many already, or no room for another."""
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            threads.require_room()
            super().process_request(request, client_address)
        except BaseException:
            self._room.release()  # no thread does it
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, and make room for the next connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def server_bind(self) -> None:
        """Bind without http.server's look-up of the host's name, which asks a name server and may take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()


def _page_files() -> dict[str, _Answer]:
    """Return the page's files by name: the only ones that a request can name."""
    files = {}
    for file in resources.files("rillcast.observability").joinpath("static").iterdir():
        suffix = file.name[file.name.rfind(".") :]
        if suffix in _MEDIA_TYPES:
            files[file.name] = _Answer(HTTPStatus.OK, _MEDIA_TYPES[suffix], file.read_bytes())
    return files


def _readable(accept: str) -> str:
    """Return the `Accept` header of a scrape; one with a version that is no number counts as none at all."""
    try:
        choose_encoder(accept)
    except (TypeError, ValueError):  # prometheus_client compares the version without a look at it
        return ""
    return accept


def _found(found: bool, document: Mapping[str, Any]) -> _Answer:
    return _json(HTTPStatus.OK if found else HTTPStatus.NOT_FOUND, document)


def _not_found(path: str, why: str = "no such page") -> _Answer:
    return _json(HTTPStatus.NOT_FOUND, {"error": f"{path}: {why}"})


def _json(status: HTTPStatus, document: Mapping[str, Any]) -> _Answer:
    return _Answer(status, "application/json", orjson.dumps(document))
