"""`rillcast run` as its own process, as in production: started, watched through HTTP, stopped by a signal."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.paths import ROOT

_DEADLINE_S = 120.0


class ServiceProcess:
    """A running service. Settings are given as `{"kafka.group_id": "x"}`.

    By default it is this interpreter's `rillcast run`, on a free HTTP port and without the settings of this process's
    environment; `command` and `environment` replace these. `write` sends to its `stdin`.
    """

    def __init__(
        self,
        settings: Mapping[str, object],
        folder: Path,
        *,
        command: Sequence[str] = (sys.executable, "-m", "rillcast", "run", "--http.port", "0"),
        environment: Mapping[str, str] | None = None,
        stdin: int | None = None,
    ) -> None:
        flags = [part for path, value in settings.items() for part in (f"--{path.replace('_', '-')}", str(value))]
        self.log_path = folder / f"service-{time.monotonic_ns()}.log"
        if environment is None:
            environment = {name: value for name, value in os.environ.items() if not name.startswith("RILLCAST_")}
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [shutil.which(command[0], path=environment.get("PATH")) or command[0], *command[1:], *flags],
                stdin=stdin,
                stdout=subprocess.DEVNULL,
                stderr=log,
                cwd=ROOT,
                env=dict(environment),
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def write(self, data: bytes) -> None:
        """Send to the standard input, which has to be a pipe."""
        assert self._process.stdin is not None
        self._process.stdin.write(data)
        self._process.stdin.flush()

    @property
    def port(self) -> int:
        """Its HTTP port, the last one that it opened; 0 while it has none."""
        found = re.findall(r"listening on http://127\.0\.0\.1:(\d+)", self.log)
        return int(found[-1]) if found else 0

    def get(self, path: str) -> tuple[int, str]:
        """Return status and body of an HTTP request to the service; (0, "") while it does not answer."""
        if not self.port:
            return 0, ""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except (OSError, http.client.HTTPException):  # not started yet, killed, or stopped
            return 0, ""

    def metric(self, series: str) -> float:
        """Return the value of a series, `name` or `name{label="x"}`; 0 while it is not there."""
        for line in self.get("/metrics")[1].splitlines():
            if line.startswith(series + " "):
                return float(line.rsplit(" ", 1)[1])
        return 0.0

    def wait_until(self, condition: Callable[[], bool], what: str, *, within_s: float = _DEADLINE_S) -> None:
        """Wait for a condition; an early end of the process or the deadline fails with the log's tail."""
        deadline = time.monotonic() + within_s
        while not condition():
            tail = self.log[-4000:]
            assert self._process.poll() is None, f"ended with {self._process.returncode} before {what}:\n{tail}"
            assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}\n{tail}"
            time.sleep(0.05)

    def send(self, number: int) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, wait for the end and return the exit code."""
        self._process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for the process to end by itself and return its exit code."""
        return self._process.wait(_DEADLINE_S)

    def kill(self) -> None:
        """Kill -9."""
        self._process.kill()
        self._process.wait()


@contextmanager
def service(settings: Mapping[str, object], folder: Path, *, stdin: int | None = None) -> Iterator[ServiceProcess]:
    """Run a service, and kill it afterwards if it still runs."""
    process = ServiceProcess(settings, folder, stdin=stdin)
    try:
        yield process
    finally:
        process.kill()


def json_lines(path: Path) -> list[dict[str, Any]]:
    """Read a JSON Lines file."""
    return [json.loads(line) for line in path.read_bytes().splitlines()]
