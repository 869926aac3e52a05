"""Routes, probes and headers, asked for over a real loopback socket."""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import re
import select
import socket
import socketserver
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest
from prometheus_client import CollectorRegistry, Counter

from rillcast.errors import SettingsError
from rillcast.observability.health import Health
from rillcast.observability.live_view import LiveView
from rillcast.observability.server import HttpServer
from rillcast.settings import HttpSettings
from tests.support.live_views import SettableClock, metadata, put


@dataclass
class Running:
    server: HttpServer
    live_view: LiveView
    health: Health
    clock: SettableClock

    def ask(self, path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=10)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def ask_json(self, path: str) -> tuple[int, Any]:
        status, headers, body = self.ask(path)
        assert headers["content-type"] == "application/json"
        return status, json.loads(body)


@pytest.fixture
def running() -> Iterator[Running]:
    clock = SettableClock()
    registry = CollectorRegistry()
    Counter("rillcast_events", "Events.", registry=registry).inc(7)
    live_view, health = LiveView(metadata()), Health(liveness_timeout_s=60.0, clock=clock)
    server = HttpServer(HttpSettings(port=0), registry, health, live_view)
    server.start()
    try:
        yield Running(server, live_view, health, clock)
    finally:
        server.stop()


def test_metrics_come_from_the_given_registry(running: Running) -> None:
    status, headers, body = running.ask("/metrics")

    assert status == 200
    assert headers["content-type"].startswith("text/plain")
    assert b"rillcast_events_total 7.0" in body
    assert b"python_info" not in body


def test_a_scrape_whose_wanted_version_is_no_number_is_answered_in_the_usual_form(running: Running) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", running.server.port, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", "/metrics", headers={"Accept": "application/openmetrics-text; version=1x.0"})
        answer = connection.getresponse()
        assert answer.status == 200
        assert b"rillcast_events_total 7.0" in answer.read()


@pytest.mark.parametrize("path", ["/api/streams", "/api/members/streams", "/api/v1/streams"])
def test_too_many_parameters_are_refused(running: Running, path: str) -> None:
    status, document = running.ask_json(f"{path}?{'&'.join(['find=a'] * 17)}")
    assert (status, document) == (400, {"error": "more than 16 parameters"})


def test_readiness_names_the_condition_that_fails(running: Running) -> None:
    running.health.started = running.health.assigned = True

    status, document = running.ask_json("/readyz")

    assert status == 503
    assert document["status"] == "failing"
    assert document["conditions"] == {"started": True, "assigned": True, "restored": False, "live": True}

    running.health.restored = True
    status, document = running.ask_json("/readyz")
    assert (status, document["status"]) == (200, "ok")


def test_startup_waits_for_the_start(running: Running) -> None:
    assert running.ask_json("/startupz")[0] == 503
    running.health.started = True
    assert running.ask_json("/startupz")[0] == 200


def test_liveness_depends_on_the_loop_alone(running: Running) -> None:
    assert running.ask_json("/livez")[0] == 200  # neither started nor assigned: no reason to kill it
    running.clock.now += 61.0
    status, document = running.ask_json("/livez")
    assert (status, document["conditions"], document["beat_age_s"]) == (503, {"live": False}, 61.0)

    running.health.beat()
    assert running.ask_json("/livez")[0] == 200


def test_the_streams_and_the_summary_are_served_as_json(running: Running) -> None:
    put(running.live_view, ["JFK/temp", "zürich ☂"], [0, 0], [1.0, 2.0])

    status, document = running.ask_json("/api/streams")

    assert status == 200
    assert [stream["unique_id"] for stream in document["streams"]] == ["JFK/temp", "zürich ☂"]
    assert running.ask_json("/api/summary")[1]["events"] == 2


@pytest.mark.parametrize("unique_id", ["JFK/temp", "zürich ☂", "a b?c#d&e%2F", "..%2f", "../../etc/passwd"])
def test_a_stream_is_found_by_its_url_encoded_id(running: Running, unique_id: str) -> None:
    put(running.live_view, [unique_id], [0], [1.0])

    status, document = running.ask_json(f"/api/streams/{quote(unique_id, safe='')}")

    assert (status, document["unique_id"]) == (200, unique_id)


def test_an_unknown_stream_is_not_found_and_followed_from_then_on(running: Running) -> None:
    crowd = [f"s{i}" for i in range(24)]
    put(running.live_view, [*crowd, "late"], [0] * 25, [0.0] * 25)
    status, document = running.ask_json("/api/streams/late")
    assert status == 404
    assert "'late'" in document["error"]

    put(running.live_view, ["late"], [1], [5.0])

    assert running.ask_json("/api/streams/late")[1]["y"] == [5.0]


def test_the_page_and_all_that_it_names_are_served_from_here(running: Running) -> None:
    status, headers, page = running.ask("/")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    named = re.findall(r'(?:src|href)="([^"]+)"', page.decode())
    scripts = [path for path in named if path.endswith(".js")]
    for path in scripts:
        named += re.findall(r'from "([^"]+)"', running.ask(path)[2].decode())

    assert len(named) >= 4
    for path in named:
        assert path.startswith("/static/")
        assert running.ask(path)[0] == 200


def test_headers_forbid_loading_from_elsewhere(running: Running) -> None:
    for path in ("/", "/static/page.js", "/api/summary", "/livez", "/nowhere"):
        headers = running.ask(path)[1]
        policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert set(policy.values()) <= {"'none'", "'self'"}
        assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path",
    [
        "/static/../server.py",
        "/static/..%2fserver.py",
        "/static/%2e%2e/server.py",
        "/static//etc/passwd",
        "/static/",
        "/static/page.css/",
        "/static/..\\server.py",
        "/server.py",
    ],
)
def test_no_path_leads_out_of_the_pages_files(running: Running, path: str) -> None:
    status, _, body = running.ask(path)

    assert status == 404
    assert b"import" not in body


@pytest.mark.parametrize("path", ["/", "/metrics", "/livez", "/api/summary", "/nowhere"])
def test_head_has_the_status_and_length_of_get_and_no_body(running: Running, path: str) -> None:
    status, headers, body = running.ask(path, "HEAD")
    got_status, got_headers, got_body = running.ask(path)

    assert (status, body) == (got_status, b"")
    assert got_body
    assert headers["content-length"] == got_headers["content-length"] == str(len(got_body))


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
@pytest.mark.parametrize("path", ["/", "/metrics", "/api/streams/a"])
def test_other_methods_are_not_allowed(running: Running, method: str, path: str) -> None:
    status, headers, _ = running.ask(path, method)

    assert (status, headers["allow"]) == (405, "GET, HEAD")


def test_without_a_live_view_there_are_metrics_and_probes_only() -> None:
    server = HttpServer(HttpSettings(port=0), CollectorRegistry(), Health(), None)
    server.start()
    try:
        running = Running(server, LiveView(metadata()), Health(), SettableClock())
        assert running.ask("/livez")[0] == 200
        assert running.ask("/metrics")[0] == 200
        assert [running.ask(path)[0] for path in ("/", "/api/summary", "/static/page.css")] == [404] * 3
    finally:
        server.stop()


def test_a_port_in_use_is_a_settings_error_that_names_it() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server = HttpServer(HttpSettings(port=port), CollectorRegistry(), Health(), None)

        with pytest.raises(SettingsError, match=rf"127\.0\.0\.1:{port}.*http\.port"):
            server.start()


def test_the_port_is_free_again_after_stop() -> None:
    server = HttpServer(HttpSettings(port=0), CollectorRegistry(), Health(), None)
    server.start()
    port = server.port
    server.stop()
    server.stop()

    again = HttpServer(HttpSettings(port=port), CollectorRegistry(), Health(), None)
    again.start()
    try:
        assert again.port == port
    finally:
        again.stop()


def test_liveness_needs_a_positive_time() -> None:
    with pytest.raises(ValueError, match="liveness_timeout_s"):
        Health(liveness_timeout_s=0)


@pytest.fixture
def guarded() -> Iterator[Running]:
    health, live_view = Health(), LiveView(metadata())
    settings = HttpSettings.model_validate({"port": 0, "token": "s3cret"})
    server = HttpServer(settings, CollectorRegistry(), health, live_view)
    server.start()
    try:
        yield Running(server, live_view, health, SettableClock())
    finally:
        server.stop()


def ask_with(running: Running, path: str, authorization: str | None) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", running.server.port, timeout=10)
    try:
        connection.request("GET", path, headers={} if authorization is None else {"Authorization": authorization})
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.parametrize("path", ["/", "/metrics", "/api/streams", "/api/summary", "/static/page.js", "/nowhere"])
def test_with_a_token_set_nothing_is_answered_without_it(guarded: Running, path: str) -> None:
    status, headers, body = guarded.ask(path)
    assert (status, headers["www-authenticate"]) == (401, 'Bearer realm="rillcast"')
    assert b"s3cret" not in body
    for wrong in ("Bearer s3cre", "Bearer s3crett", "Bearer", "Basic s3cret", "s3cret", "Bearer \xe9"):
        assert ask_with(guarded, path, wrong) == 401, wrong
    assert ask_with(guarded, path, "Bearer s3cret") == (404 if path == "/nowhere" else 200)
    assert ask_with(guarded, path, "bearer s3cret") == (404 if path == "/nowhere" else 200)


@pytest.mark.parametrize("path", ["/livez", "/startupz", "/readyz"])
def test_probes_need_no_token(guarded: Running, path: str) -> None:
    assert guarded.ask(path)[0] in (200, 503)


def test_a_crowd_of_connections_is_turned_away_and_the_next_one_answered(running: Running) -> None:
    crowd = [socket.create_connection(("127.0.0.1", running.server.port), timeout=10) for _ in range(80)]
    try:
        # Those beyond the limit are closed at once; the others would wait ten seconds for a request.
        turned_away = select.select(crowd, [], [], 5)[0]
        assert turned_away
        with contextlib.suppress(ConnectionError):
            assert turned_away[0].recv(1) == b""
    finally:
        for each in crowd:
            each.close()
    deadline = time.monotonic() + 10
    while True:
        try:
            assert running.ask("/livez")[0] == 200
            break
        except (ConnectionError, http.client.HTTPException):
            assert time.monotonic() < deadline, "no room again"


def test_connections_that_there_is_no_room_for_are_closed_and_leave_their_places(
    running: Running, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def exhausted() -> None:
        raise MemoryError("there is no room for another thread")

    with monkeypatch.context() as patch:
        patch.setattr("rillcast.threads.require_room", exhausted)
        for _ in range(70):  # more than there are places
            with pytest.raises((ConnectionError, http.client.HTTPException)):
                running.ask("/livez")
    assert running.ask("/livez")[0] == 200
    assert "no room for another thread" in capsys.readouterr().err


def test_a_server_without_descriptors_waits_for_one_instead_of_asking_all_the_time(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[float] = []

    def refuse(_self: object) -> None:
        refused.append(time.monotonic())
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(socketserver.TCPServer, "get_request", refuse)
        with contextlib.closing(socket.create_connection(("127.0.0.1", running.server.port))) as waiting:
            time.sleep(0.5)  # what is counted is how often it asks in that time: without its pause, thousands of times
            assert 1 <= len(refused) <= 10
            patched.undo()
            waiting.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
            waiting.settimeout(10)
            assert waiting.recv(100).startswith(b"HTTP/1.0 200"), "accepted in the end"
