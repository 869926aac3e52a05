"""A real Prometheus for tests: found on this machine, else unpacked from Debian's package; no root needed.

Owns: fetching the two programs once per machine, and a server process on a free loopback port. Does not know: what is
scraped. Nothing is installed: the package is unpacked into the test cache.
"""

from __future__ import annotations

import contextlib
import functools
import json
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.support import debian
from tests.support.kafka_broker import free_ports

_START_TIMEOUT_S: Final = 30.0
_STOP_TIMEOUT_S: Final = 15.0
_POLL_S: Final = 0.05


class PrometheusError(Exception):
    """Prometheus is unavailable, or did not start or answer."""


class Programs(NamedTuple):
    """Where the programs are."""

    prometheus: Path
    promtool: Path


@functools.cache
def programs() -> Programs:
    """Return the programs, fetching them if this machine does not have them yet.

    Raises:
        PrometheusError: The programs are unavailable; the message says why and what to do.
    """
    found = shutil.which("prometheus"), shutil.which("promtool")
    if found[0] and found[1]:
        return Programs(Path(found[0]), Path(found[1]))
    target = _unpacked("prometheus")
    return Programs(target / "usr/bin/prometheus", target / "usr/bin/promtool")


@functools.cache
def amtool() -> Path:
    """Return Alertmanager's own tool, fetching it if this machine does not have it yet.

    Raises:
        PrometheusError: It is unavailable; the message says why and what to do.
    """
    if (found := shutil.which("amtool")) is not None:
        return Path(found)
    return _unpacked("prometheus-alertmanager") / "usr/bin/amtool"


def _unpacked(package: str) -> Path:
    try:
        return debian.unpacked(package, needs=False)
    except debian.DebianError as error:
        raise PrometheusError(f"{error} (macOS: brew)") from error


class Prometheus:
    """A running server's query API."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ready(self) -> bool:
        """Whether it answers queries."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=5):
                return True
        except OSError:
            return False

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the samples of an instant query.

        Raises:
            PrometheusError: the expression is wrong, or does not return a vector.
        """
        data = self._get("query", query=expression)
        if data["resultType"] != "vector":
            raise PrometheusError(f"{expression}: a {data['resultType']}, expected a vector")
        return list(data["result"])

    def query_range(self, expression: str, start: float, end: float, step_s: float) -> list[dict[str, Any]]:
        """Return the series of a range query.

        Raises:
            PrometheusError: the expression is wrong.
        """
        return list(self._get("query_range", query=expression, start=start, end=end, step=step_s)["result"])

    def rules(self) -> list[dict[str, Any]]:
        """Return every loaded rule with its health."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def _get(self, what: str, **parameters: object) -> dict[str, Any]:
        path = f"/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as response:
                document = json.loads(response.read())
        except urllib.error.HTTPError as error:
            raise PrometheusError(f"{what} {parameters}: {error.read().decode()}") from error
        data: dict[str, Any] = document["data"]
        return data


@contextlib.contextmanager
def running_prometheus(config: Path, folder: Path) -> Iterator[Prometheus]:
    """Start a server with a configuration file and data in `folder`; stop it afterwards.

    Raises:
        PrometheusError: It is unavailable, ended, or did not answer in time; the message has its log.
    """
    port = free_ports(1)[0]
    log_path = folder / "prometheus.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [
                str(programs().prometheus),
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--log.level=warn",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        server = Prometheus(port)
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not server.ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise PrometheusError(f"prometheus did not start:\n{log_path.read_text(errors='replace')}")
            time.sleep(_POLL_S)
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_TIMEOUT_S)
        process.kill()
        process.wait()
