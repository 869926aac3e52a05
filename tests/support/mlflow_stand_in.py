"""A small MLflow server for tests, in this process and in memory: experiments, runs, artefacts, registered models.

Owns: the answers of MLflow's REST API to what Rillcast asks. Does not know: Rillcast. `make test-mlflow` runs the same
tests against a real server, so that this one cannot drift from it.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

_ARTEFACTS = "/api/2.0/mlflow-artifacts/artifacts/"
_API = "/api/2.0/mlflow/"
_TAG = re.compile(r"tags\.`(?P<key>[^`]+)` = '(?P<value>[^']*)'")
_NAME = re.compile(r"name = '(?P<name>[^']*)'")


class RefusedError(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, code: str, message: str = "") -> None:
        super().__init__(message)
        self.status, self.code = status, code


class MlflowStandIn:
    """The server's data. `user` and `password` are asked for if set; `fails` is a status for every request."""

    def __init__(self) -> None:
        self.experiments: dict[str, dict[str, Any]] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self.models: dict[str, dict[str, Any]] = {}
        self.artefacts: dict[str, bytes] = {}
        self.authorization: str | None = None
        self.fails = 0
        self.root = "mlflow-artifacts:"
        self._lock = threading.Lock()

    def answer(self, method: str, target: str, body: bytes) -> bytes:
        """Answer a request."""
        parts = urlsplit(target)
        if parts.path.startswith(_ARTEFACTS):
            return self._artefact(method, unquote(parts.path.removeprefix(_ARTEFACTS)), body)
        asked = dict(parse_qsl(parts.query)) if method == "GET" else json.loads(body)
        does = getattr(self, parts.path.removeprefix(_API).replace("/", "_").replace("-", "_"), None)
        if does is None:
            raise RefusedError(404, "ENDPOINT_NOT_FOUND", parts.path)
        with self._lock:
            return json.dumps(does(asked) or {}).encode()

    def _artefact(self, method: str, path: str, body: bytes) -> bytes:
        if method == "PUT":
            self.artefacts[path] = body
            return b"{}"
        if path not in self.artefacts:
            raise RefusedError(404, "RESOURCE_DOES_NOT_EXIST", f"No such artifact: '{path}'")
        return self.artefacts[path]

    def experiments_create(self, asked: dict[str, Any]) -> None:
        if asked["name"] in self.experiments:
            raise RefusedError(400, "RESOURCE_ALREADY_EXISTS")
        number = str(len(self.experiments) + 1)
        self.experiments[asked["name"]] = {"experiment_id": number, "name": asked["name"], "lifecycle_stage": "active"}

    def experiments_get_by_name(self, asked: dict[str, Any]) -> dict[str, Any]:
        return {"experiment": self.experiments[asked["experiment_name"]]}

    def runs_create(self, asked: dict[str, Any]) -> dict[str, Any]:
        run_id = uuid.uuid4().hex
        info = {
            "run_id": run_id,
            "run_name": asked["run_name"],
            "status": "RUNNING",
            "lifecycle_stage": "active",
            "artifact_uri": f"{self.root}/{asked['experiment_id']}/{run_id}/artifacts",
        }
        run = {"info": info, "data": {"tags": list(asked["tags"]), "params": [], "metrics": []}}
        self.runs[run_id] = run
        return {"run": run}

    def runs_get(self, asked: dict[str, Any]) -> dict[str, Any]:
        if asked["run_id"] not in self.runs:
            raise RefusedError(404, "RESOURCE_DOES_NOT_EXIST")
        return {"run": self.runs[asked["run_id"]]}

    def runs_update(self, asked: dict[str, Any]) -> None:
        self.runs[asked["run_id"]]["info"] |= {"status": asked["status"], "end_time": asked["end_time"]}

    def runs_log_batch(self, asked: dict[str, Any]) -> None:
        for kind in ("params", "metrics", "tags"):
            self.runs[asked["run_id"]]["data"][kind] += asked.get(kind, [])

    def registered_models_create(self, asked: dict[str, Any]) -> None:
        if asked["name"] in self.models:
            raise RefusedError(400, "RESOURCE_ALREADY_EXISTS")
        self.models[asked["name"]] = {"versions": [], "tags": {}, "aliases": {}}

    def registered_models_get(self, asked: dict[str, Any]) -> dict[str, Any]:
        model = self._model(asked)
        return {
            "registered_model": {
                "name": asked["name"],
                "last_updated_timestamp": time.time_ns() // 1_000_000,
                "tags": [{"key": key, "value": value} for key, value in model["tags"].items()],
                "aliases": [{"alias": each, "version": number} for each, number in model["aliases"].items()],
            }
        }

    def registered_models_alias(self, asked: dict[str, Any]) -> None:
        if re.fullmatch(r"v\d+|latest", asked["alias"]):
            raise RefusedError(400, "INVALID_PARAMETER_VALUE", f"Version alias name '{asked['alias']}' is reserved.")
        self._model(asked)["aliases"][asked["alias"]] = asked["version"]

    def registered_models_set_tag(self, asked: dict[str, Any]) -> None:
        self._model(asked)["tags"][asked["key"]] = asked["value"]

    def registered_models_delete_tag(self, asked: dict[str, Any]) -> None:
        self._model(asked)["tags"].pop(asked["key"], None)

    def model_versions_create(self, asked: dict[str, Any]) -> dict[str, Any]:
        if not asked["source"].startswith(self.runs[asked["run_id"]]["info"]["artifact_uri"]):
            raise RefusedError(400, "INVALID_PARAMETER_VALUE", "Invalid model version source")
        versions = self._model(asked)["versions"]
        versions.append(asked | {"version": str(len(versions) + 1)})
        return {"model_version": versions[-1]}

    def model_versions_get(self, asked: dict[str, Any]) -> dict[str, Any]:
        for each in self._model(asked)["versions"]:
            if each["version"] == asked["version"]:
                return {"model_version": each}
        raise RefusedError(404, "RESOURCE_DOES_NOT_EXIST")

    def model_versions_search(self, asked: dict[str, Any]) -> dict[str, Any]:
        (name,) = _NAME.findall(asked["filter"])
        wanted = [{"key": key, "value": value} for key, value in _TAG.findall(asked["filter"])]
        versions = self.models.get(name, {"versions": []})["versions"]
        found = [each for each in versions if all(tag in each["tags"] for tag in wanted)]
        page = int(asked.get("page_token", "0"))  # pages of two, so that every client has to turn them
        more = {"next_page_token": str(page + 2)} if len(found) > page + 2 else {}
        return {"model_versions": found[page : page + 2]} | more

    def _model(self, asked: dict[str, Any]) -> dict[str, Any]:
        if asked["name"] not in self.models:
            raise RefusedError(404, "RESOURCE_DOES_NOT_EXIST", f"Registered Model with name={asked['name']} not found")
        return self.models[asked["name"]]


@contextlib.contextmanager
def running_stand_in() -> Iterator[tuple[str, MlflowStandIn]]:
    """Serve, and yield the address without a scheme, and the server's data."""
    data = MlflowStandIn()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            try:
                if data.authorization is not None and self.headers.get("Authorization") != data.authorization:
                    raise RefusedError(401, "UNAUTHENTICATED")
                if data.fails:
                    raise RefusedError(data.fails, "INTERNAL_ERROR", "the database is away")
                status, answer = 200, data.answer(self.command, self.path, body)
            except RefusedError as error:
                status, answer = error.status, json.dumps({"error_code": error.code, "message": str(error)}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815  names of http.server

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the name that http.server gives it
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}", data
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
