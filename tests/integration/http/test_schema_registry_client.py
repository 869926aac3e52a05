"""The client of the schema registry: only a registry's own words make a record a dead letter."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, NamedTuple

import pytest

from rillcast.codecs.forecasts.avro import schema
from rillcast.codecs.observations.decoder import ObservationDecoder
from rillcast.codecs.observations.rejections import Reason
from rillcast.codecs.schema_registry import Registry
from rillcast.errors import SettingsError, TransportError
from rillcast.settings import RegistrySettings
from tests.support.formats import format_of
from tests.support.hostile import NOON_MS, polled

FRAMED: Final = ("avro", "protobuf", "json_schema")
RECORD: Final = b"\0\0\0\0\x07" + json.dumps({"unique_id": "a", "ds": NOON_MS, "y": 1.5}).encode()


class Answer(NamedTuple):
    """An HTTP answer."""

    status: int
    body: bytes
    kind: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


NO_REGISTRY: Final = {
    "ingress": Answer(404, b"default backend - 404", "text/html"),
    "api": Answer(404, b'{"error_code":404,"message":"HTTP 404 Not Found"}'),
    "other-api": Answer(404, b'{"detail":"Not Found"}'),
    "coded-text": Answer(404, b'{"error_code":"40403","message":"?"}'),
    "list": Answer(404, b'["not found"]'),
    "bad-request": Answer(400, b'{"message":"bad request"}'),
    "gone": Answer(410, b""),
    "login": Answer(200, b"<html>please log in</html>", "text/html"),
    "redirect": Answer(302, b"", headers=(("Location", "/login"),)),
    "empty-object": Answer(200, b"{}"),
    "empty-list": Answer(200, b"[]"),
    "null": Answer(200, b"null"),
    "no-content": Answer(204, b""),
    "no-body": Answer(200, b""),
    "other-object": Answer(200, b'{"schema":{"type":"string"}}'),
    "forbidden": Answer(403, b'{"error_code":40301,"message":"User is denied operation Read"}'),
    "unauthorised": Answer(401, b'{"error_code":40101,"message":"Unauthorized"}'),
    "busy": Answer(429, b'{"error_code":42901,"message":"Too many requests"}'),
}


@contextmanager
def answering(answer: Callable[[str], Answer]) -> Iterator[str]:
    """Serve what `answer` returns for each path, and yield the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self._answer()

        def _answer(self) -> None:
            found = answer(self.path)
            self.send_response(found.status)
            self.send_header("Content-Type", found.kind)
            self.send_header("Content-Length", str(len(found.body)))
            for name, value in found.headers:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(found.body)

        def log_message(self, *_arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rillcast.codecs.schema_registry._RETRIES", 0)


def registry_at(url: str) -> Registry:
    return Registry(RegistrySettings(url=url))


@pytest.mark.parametrize(
    ("name", "case"),
    [*(("avro", case) for case in NO_REGISTRY), *itertools.product(FRAMED[1:], ("ingress", "login"))],
)
def test_an_answer_that_is_no_registrys_is_no_fault_of_the_record(name: str, case: str) -> None:
    with answering(lambda _path: NO_REGISTRY[case]) as url:
        decoder = ObservationDecoder(form=format_of(name, registry_at(url), validate=True))
        with pytest.raises(TransportError, match="registry"):
            decoder.decode(polled([RECORD]))


@pytest.mark.parametrize(("name", "code"), [("avro", 40401), ("avro", 40402), *((name, 40403) for name in FRAMED)])
def test_a_registrys_own_code_makes_the_record_a_dead_letter(name: str, code: int) -> None:
    body = json.dumps({"error_code": code, "message": "Schema 7 not found"}).encode()
    with answering(lambda _path: Answer(404, body)) as url:
        decoder = ObservationDecoder(form=format_of(name, registry_at(url), validate=True))
        _, (rejection,) = decoder.decode(polled([RECORD]))
    assert rejection.reason is Reason.UNKNOWN_SCHEMA
    assert "schema 7" in rejection.detail
    assert "  " not in rejection.detail


@pytest.mark.parametrize("name", ["avro", "json_schema"])
@pytest.mark.parametrize("case", ["ingress", "login"])
def test_a_schema_that_another_one_refers_to_is_asked_for_like_any(name: str, case: str) -> None:
    """The deserialiser asks for it, in the middle of reading the record."""
    schema = {
        "avro": ("AVRO", '{"type":"record","name":"R","fields":[{"name":"unique_id","type":"Id"}]}'),
        "json_schema": ("JSON", '{"type":"object","properties":{"unique_id":{"$ref":"id.json"}}}'),
    }[name]
    references = [{"name": "id.json", "subject": "ids", "version": 1}]
    body = json.dumps({"schema": schema[1], "schemaType": schema[0], "references": references}).encode()

    def answer(path: str) -> Answer:
        return Answer(200, body) if path.startswith("/schemas/ids/7") else NO_REGISTRY[case]

    with answering(answer) as url:
        decoder = ObservationDecoder(form=format_of(name, registry_at(url), validate=True))
        with pytest.raises(TransportError, match="registry"):
            decoder.decode(polled([RECORD]))


def test_a_registry_that_does_not_answer_is_no_fault_of_the_record() -> None:
    registry = Registry(RegistrySettings(url="http://127.0.0.1:9", timeout_s=1))
    with pytest.raises(TransportError, match=r"127\.0\.0\.1:9 does not answer"):
        ObservationDecoder(form=format_of("avro", registry)).decode(polled([RECORD]))


@pytest.mark.parametrize("register", [False, True])
def test_the_schema_of_forecasts_is_refused_only_by_a_registry(register: bool) -> None:
    incompatible = Answer(409, b'{"error_code":409,"message":"Schema being registered is incompatible"}')
    unknown = Answer(404, b'{"error_code":40403,"message":"Schema not found"}')
    with (
        answering(lambda _path: incompatible if register else unknown) as url,
        pytest.raises(SettingsError, match="subject 'f-value' does not accept") as raised,
    ):
        registry_at(url).id_of("f-value", schema(), register=register)
    assert "  " not in str(raised.value)
    with (
        answering(lambda _path: NO_REGISTRY["ingress"]) as url,
        pytest.raises(TransportError, match="no registry does"),
    ):
        registry_at(url).id_of("f-value", schema(), register=register)
