"""The REST API of an MLflow server, as far as Rillcast needs it: experiments, runs, artefacts, registered models.

Owns: addresses (`mlflow://host:port/NAME`), credentials from MLflow's own variables, requests, and which error an
answer is. Does not know: what is kept under a name (`rillcast.bundle.registry.mlflow_catalogue`), training.
Source: MLflow's REST API 2.0 (https://mlflow.org/docs/latest/rest-api.html), and the artefacts of a server that keeps
them itself (`--serve-artifacts`, its default).
"""

from __future__ import annotations

import base64
import os
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

import orjson

from rillcast.errors import RegistryError, RegistryUnreachableError, SettingsError

SCHEMES: Final = {"mlflow": "http", "mlflow+https": "https"}
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_API: Final = "/api/2.0/mlflow/"
_ARTEFACTS: Final = "/api/2.0/mlflow-artifacts/artifacts/"
_PROXIED: Final = "mlflow-artifacts:"
_TIMEOUT_S: Final = 30.0
_TRANSFER_TIMEOUT_S: Final = 60.0  # between two parts of a bundle
_MAX_ANSWER_BYTES: Final = 64 * 2**20
_EXISTS: Final = "RESOURCE_ALREADY_EXISTS"
_ABSENT: Final = "RESOURCE_DOES_NOT_EXIST"


class MlflowRefusedError(RegistryError):
    """The server refuses a request. `code` is MLflow's own name of the error."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Run(NamedTuple):
    """A run: its id, and where its artefacts are."""

    run_id: str
    artifact_uri: str


def is_mlflow(address: str) -> bool:
    """Return whether an address is one of MLflow."""
    return address.partition("://")[0] in SCHEMES


class MlflowClient:
    """Requests to one server on behalf of one name, that of the registered model and of its experiment."""

    def __init__(self, address: str) -> None:
        """Parse the address; ask nothing yet.

        Args:
            address: `mlflow://host:port/NAME`, or `mlflow+https://...` over TLS; folders before NAME are part of the
                server's address.

        Raises:
            SettingsError: It is none, or has a user name or a password in it.
        """
        scheme, _, rest = address.partition("://")
        parts = urlsplit(f"{SCHEMES[scheme]}://{rest}")
        folder, _, name = parts.path.rpartition("/")
        if not parts.hostname or not _NAME.fullmatch(name) or parts.query or parts.fragment:
            raise SettingsError(
                f"registry {address}: expected {scheme}://HOST:PORT/NAME, NAME that of the registered model, of "
                f"letters, digits, '.', '_' and '-'"
            )
        if "@" in parts.netloc:
            raise SettingsError(
                f"registry {scheme}://...@{parts.hostname}: a user name in the address would be printed with it; set "
                f"MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
            )
        self.address, self.name = address, name
        self._server = f"{SCHEMES[scheme]}://{parts.netloc}{folder}"
        self._headers = _authorization(os.environ)
        authorities = os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH")
        try:
            self._tls = ssl.create_default_context(cafile=authorities) if scheme != "mlflow" else None
        except OSError as error:
            raise SettingsError(f"MLFLOW_TRACKING_SERVER_CERT_PATH={authorities}: {error}") from error

    def get(self, path: str, **query: str) -> dict[str, Any]:
        """Ask for a document.

        Raises:
            MlflowRefusedError: The server refuses.
            RegistryUnreachableError: It does not answer, or denies access.
        """
        return self._document("GET", f"{path}?{urlencode(query)}", None)

    def send(self, path: str, document: Mapping[str, Any], method: str = "POST") -> dict[str, Any]:
        """Send a document and return the answer. Raises as `get`."""
        return self._document(method, path, orjson.dumps(document))

    def found(self, path: str, **query: str) -> dict[str, Any] | None:
        """Ask for a document; None = there is none. Raises as `get`."""
        try:
            return self.get(path, **query)
        except MlflowRefusedError as error:
            if error.code == _ABSENT:
                return None
            raise

    def ensure(self, path: str, document: Mapping[str, Any]) -> bool:
        """Create something; return whether it is new. Raises as `get`."""
        try:
            self.send(path, document)
        except MlflowRefusedError as error:
            if error.code == _EXISTS:
                return False
            raise
        return True

    def create_run(self, run_name: str, tags: Mapping[str, str]) -> Run:
        """Begin a run in the experiment of this name, which is created if needed. Raises as `get`."""
        self.ensure("experiments/create", {"name": self.name})
        experiment = self.get("experiments/get-by-name", experiment_name=self.name)["experiment"]
        if experiment["lifecycle_stage"] != "active":
            raise RegistryError(
                f"registry {self.address}: the experiment {self.name} was deleted; restore it with "
                f"`mlflow experiments restore --experiment-id {experiment['experiment_id']}`"
            )
        wanted = {
            "experiment_id": experiment["experiment_id"],
            "run_name": run_name,
            "start_time": now_ms(),
            "tags": _pairs(tags),
        }
        return _run(self.send("runs/create", wanted))

    def run(self, run_id: str) -> Run | None:
        """Return a run; None = this server has no such run, or it was deleted. Raises as `get`."""
        found = self.found("runs/get", run_id=run_id)
        return None if found is None or found["run"]["info"]["lifecycle_stage"] != "active" else _run(found)

    def end_run(self, run_id: str, status: str) -> None:
        """End a run as `FINISHED`, `FAILED` or `KILLED`. Raises as `get`."""
        self.send("runs/update", {"run_id": run_id, "status": status, "end_time": now_ms()})

    def upload(self, uri: str, data: bytes) -> None:
        """Store an artefact.

        Raises:
            RegistryError: The server does not keep artefacts itself.
            RegistryUnreachableError: It does not answer, or denies access.
        """
        self._request("PUT", self._artefact(uri), data, "application/octet-stream", _TRANSFER_TIMEOUT_S, 2**16)

    def download(self, uri: str, max_bytes: int) -> bytes:
        """Return an artefact of at most `max_bytes`. Raises as `upload`."""
        return self._request("GET", self._artefact(uri), None, None, _TRANSFER_TIMEOUT_S, max_bytes)

    def _artefact(self, uri: str) -> str:
        if not uri.startswith(_PROXIED):
            raise RegistryError(
                f"registry {self.address}: the server keeps artefacts in {uri.partition(':')[0]}: and does not pass "
                f"them on; start it with `mlflow server --serve-artifacts --artifacts-destination ...`"
            )
        path = urlsplit(uri).path.lstrip("/")
        return _ARTEFACTS + quote(path)

    def _document(self, method: str, path: str, data: bytes | None) -> dict[str, Any]:
        body = self._request(method, _API + path, data, "application/json", _TIMEOUT_S, _MAX_ANSWER_BYTES)
        try:
            document = orjson.loads(body)
        except ValueError as error:
            raise self._foreign(path) from error
        if not isinstance(document, dict):
            raise self._foreign(path)
        return document

    def _request(
        self, method: str, path: str, data: bytes | None, kind: str | None, timeout_s: float, max_bytes: int
    ) -> bytes:
        headers = self._headers | ({"Content-Type": kind} if kind is not None and data is not None else {})
        # S310 is about schemes such as file:, and the server's address begins with one of SCHEMES: http or https.
        request = urllib.request.Request(self._server + path, data, headers, method=method)  # noqa: S310  see above
        try:
            with urllib.request.urlopen(request, timeout=timeout_s, context=self._tls) as answer:  # noqa: S310  see above
                body: bytes = answer.read(max_bytes + 1)
        except urllib.error.HTTPError as error:
            with error:
                raise self._refused(error, path) from error
        except (OSError, ValueError) as error:  # ValueError: a proxy's broken answer
            raise RegistryUnreachableError(f"registry {self.address}: MLflow does not answer: {error}") from error
        if len(body) > max_bytes:
            raise RegistryError(f"registry {self.address}: {path} has more than {max_bytes} bytes; it was not read")
        return body

    def _refused(self, error: urllib.error.HTTPError, path: str) -> RegistryError:
        if error.code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            return RegistryUnreachableError(
                f"registry {self.address}: MLflow denies access ({error.code}); set MLFLOW_TRACKING_USERNAME and "
                f"MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
            )
        text = error.read(2**16).decode("utf-8", "replace")
        try:
            document = orjson.loads(text)
            code, message = str(document["error_code"]), str(document.get("message", ""))
        except (ValueError, KeyError, TypeError):
            code, message = "", text.strip()[:200]
        if error.code >= HTTPStatus.INTERNAL_SERVER_ERROR or error.code == HTTPStatus.TOO_MANY_REQUESTS:
            return RegistryUnreachableError(f"registry {self.address}: MLflow fails ({error.code}): {message}")
        return MlflowRefusedError(
            code, f"registry {self.address}: MLflow refuses {path.partition('?')[0]} ({error.code}): {message}"
        )

    def _foreign(self, path: str) -> RegistryError:
        return RegistryError(
            f"registry {self.address}: the answer to {_API}{path.partition('?')[0]} is no JSON; is it the address of "
            f"an MLflow server?"
        )


def now_ms() -> int:
    """Return the time as MLflow counts it."""
    return time.time_ns() // 1_000_000


def _authorization(variables: Mapping[str, str]) -> dict[str, str]:
    if user := variables.get("MLFLOW_TRACKING_USERNAME"):
        pair = f"{user}:{variables.get('MLFLOW_TRACKING_PASSWORD', '')}"
        return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
    if token := variables.get("MLFLOW_TRACKING_TOKEN"):
        return {"Authorization": f"Bearer {token}"}
    return {}


def _pairs(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in tags.items()]


def _run(document: Mapping[str, Any]) -> Run:
    info = document["run"]["info"]
    return Run(info["run_id"], info["artifact_uri"])
