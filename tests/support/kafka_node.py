"""One server process of Apache Kafka: its configuration, log and data, which survive restarts.

Owns: the process. Does not know: whether it is a broker or a controller, and what else is in its cluster.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent / "kafka"
_START_TIMEOUT_S: Final = 180.0  # a busy machine takes two minutes
_STOP_TIMEOUT_S: Final = 60.0
_POLL_S: Final = 0.05
_LOG_TAIL_LINES: Final = 40
# A test broker lives for a minute or two: start fast rather than run fast.
JVM: Final = (
    "-Xmx512m",
    "-Xms128m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Xshare:auto",
    "-Dlog4j2.level=INFO",
)


class BrokerError(Exception):
    """The broker could not be fetched or started; the message carries the tail of its log."""


class Node:
    """See the module's docstring.

    Args:
        name: Of the process, its log and its data.
        java: Options of the JVM that say which classes there are.
        folder: Folder of configuration, log and data.
        roles: Properties that say which node it is.
        more: Properties that replace those of `server.properties`.
        environment: Variables that its process has besides those of this one.
    """

    def __init__(
        self,
        name: str,
        java: Sequence[str],
        folder: Path,
        roles: str,
        more: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._name = name
        self._java_options = java
        self._folder = folder
        self._log = folder / f"{name}.log"
        self._properties = folder / f"{name}.properties"
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        common = (HERE / "server.properties").read_text()
        self._properties.write_text(f"{roles}log.dirs={folder / name}-data\n{common}\n{more}")

    def format(self, cluster_id: str) -> None:
        """Prepare the data folder; once, before the first start.

        Raises:
            BrokerError: the storage tool failed.
        """
        command = self._java("kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(self._properties))
        run = subprocess.run(command, capture_output=True, text=True, timeout=_START_TIMEOUT_S, check=False)
        if run.returncode != 0:
            raise BrokerError(f"kafka storage could not be formatted:\n{run.stdout}{run.stderr}")

    def start(self) -> int:
        """Start the process and return where in the log its part begins."""
        assert self._process is None, f"the {self._name} runs already"
        with self._log.open("ab") as output:
            position = output.tell()
            self._process = subprocess.Popen(
                self._java("kafka.Kafka", str(self._properties)),
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | dict(self._environment or {}),
            )
        return position

    def wait_for(self, text: bytes, position: int, ready: Callable[[], bool] = lambda: True) -> None:
        """Wait until the log has `text` behind `position`, and `ready`.

        Raises:
            BrokerError: the process ended, or it took too long.
        """
        assert self._process is not None
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not (self.said(text, position) and ready()):
            if self._process.poll() is not None:
                raise BrokerError(f"the {self._name} ended with {self._process.returncode}:\n{self._log_tail()}")
            if time.monotonic() > deadline:
                raise BrokerError(
                    f"the {self._name} did not say {text!r} within {_START_TIMEOUT_S:g} s:\n{self._log_tail()}"
                )
            time.sleep(_POLL_S)

    def said(self, text: bytes, position: int = 0) -> int:
        """Return how often the log has `text` behind `position`."""
        if not self._log.exists():
            return 0
        with self._log.open("rb") as log:
            log.seek(position)
            return log.read().count(text)

    @property
    def pid(self) -> int:
        """Id of the process, which runs."""
        assert self._process is not None
        return self._process.pid

    @property
    def log_end(self) -> int:
        """Where the log ends now."""
        return self._log.stat().st_size

    def stop(self) -> None:
        """Stop the process, by a signal if it heeds one in time; do nothing if it is not running."""
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_TIMEOUT_S)
            self.kill()

    def kill(self) -> None:
        """End the process as a crash would."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def _java(self, *arguments: str) -> list[str]:
        return ["java", *JVM, f"-Dkafka.logs.dir={self._folder}", *self._java_options, *arguments]

    def _log_tail(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-_LOG_TAIL_LINES:])
