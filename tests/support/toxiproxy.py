"""Toxiproxy for tests: TCP proxies whose connections are delayed, dropped, reset or refused on demand.

Owns: the server process, and its HTTP API (`docs` of github.com/Shopify/toxiproxy). Does not know: what is proxied.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from tests.support.kafka_broker import free_ports

_START_S: Final = 20.0
_ANSWER_S: Final = 10.0
_POLL_S: Final = 0.05


class Toxiproxy:
    """A server whose API is at `port`; proxies are named by their user."""

    def __init__(self, port: int) -> None:
        self._port = port

    def open(self, name: str, port: int) -> int:
        """Let a proxy listen for a port of this machine, and return its own port."""
        asked = {"name": name, "listen": "127.0.0.1:0", "upstream": f"127.0.0.1:{port}", "enabled": True}
        listens: str = self._ask("POST", "/proxies", asked)["listen"]
        return int(listens.rpartition(":")[2])

    def refuse(self, name: str) -> None:
        """End all connections of a proxy and refuse new ones."""
        self._ask("POST", f"/proxies/{name}", {"enabled": False})

    def delay(self, name: str, latency_ms: int, jitter_ms: int) -> None:
        """Delay what passes, in each direction."""
        for stream in ("upstream", "downstream"):
            self._add(name, stream, "latency", {"latency": latency_ms, "jitter": jitter_ms})

    def swallow(self, name: str, *, requests: bool = True, answers: bool = True) -> None:
        """Accept connections and let nothing through, or nothing in one direction.

        Connections end with the fault: bytes that are missing from the middle of one are no fault of a network.
        """
        for stream, wanted in (("upstream", requests), ("downstream", answers)):
            if wanted:
                self._add(name, stream, "timeout", {"timeout": 0})

    def cut(self, name: str) -> None:
        """Reset each connection as soon as anything is sent."""
        self._add(name, "upstream", "reset_peer", {"timeout": 0})

    def heal(self) -> None:
        """End every fault."""
        self._ask("POST", "/reset", None)

    def _add(self, name: str, stream: str, kind: str, attributes: Mapping[str, int]) -> None:
        self._ask("POST", f"/proxies/{name}/toxics", {"type": kind, "stream": stream, "attributes": dict(attributes)})

    def _ask(self, method: str, path: str, body: object) -> Any:
        data = None if body is None else json.dumps(body).encode()
        url, headers = f"http://127.0.0.1:{self._port}{path}", {"Content-Type": "application/json"}
        request = urllib.request.Request(url, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=_ANSWER_S) as response:  # noqa: S310  loopback
            answer = response.read()
        return json.loads(answer) if answer else None

    def _answers(self) -> bool:
        try:
            self._ask("GET", "/proxies", None)
        except (urllib.error.URLError, ConnectionError):
            return False
        return True


@contextlib.contextmanager
def running_toxiproxy(program: Path) -> Iterator[Toxiproxy]:
    """Run the server, without a log, until the block ends.

    Raises:
        TimeoutError: It does not answer.
    """
    (port,) = free_ports(1)
    command = [str(program), "-host", "127.0.0.1", "-port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        proxies = Toxiproxy(port)
        deadline = time.monotonic() + _START_S
        while not proxies._answers():
            if time.monotonic() > deadline or process.poll() is not None:
                raise TimeoutError(f"{program} does not answer at port {port} (exit code {process.poll()})")
            time.sleep(_POLL_S)  # between two questions, up to the deadline; the proxy does not say when it is ready
        yield proxies
    finally:
        process.kill()
        process.wait()
