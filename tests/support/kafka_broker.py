"""A real Apache Kafka for tests: the official artefacts, one KRaft node, on free loopback ports.

Owns: fetching the jars once per machine, and the life of the server process. Does not know: topics or clients
(`tests.support.kafka_cluster`). Invariant: a broker that was started is stopped, also when its start fails.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent / "kafka"
_FETCH_TIMEOUT_S: Final = 300.0
_START_TIMEOUT_S: Final = 60.0
_STOP_TIMEOUT_S: Final = 15.0
_POLL_S: Final = 0.05
_LOG_TAIL_LINES: Final = 40
# A test broker lives for a minute or two: start fast rather than run fast.
_JVM: Final = (
    "-Xmx512m",
    "-Xms128m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Xshare:auto",
    "-Dlog4j2.level=INFO",
)


class BrokerError(Exception):
    """The broker could not be fetched or started; the message carries the tail of its log."""


def missing_tools() -> list[str]:
    """Return which of the programs that a broker needs are not installed."""
    return [tool for tool in ("java", "mvn") if shutil.which(tool) is None]


def fetch_jars() -> Path:
    """Return the folder with Kafka's jars, fetching them through Maven if this machine does not have them yet.

    Raises:
        BrokerError: Maven failed; the message carries what it printed.
    """
    pom = HERE / "pom.xml"
    digest = hashlib.sha256(pom.read_bytes()).hexdigest()[:12]
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rillcast-test"
    target = root / f"kafka-{digest}"
    if target.is_dir():
        return target
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix="fetching-") as scratch:
        jars = Path(scratch) / "jars"
        command = ["mvn", "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={jars}"]
        try:
            run = subprocess.run(command, capture_output=True, text=True, timeout=_FETCH_TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired as error:
            raise BrokerError(f"maven did not fetch Kafka within {_FETCH_TIMEOUT_S:g} s") from error
        if run.returncode != 0 or not any(jars.glob("kafka_*.jar")):
            raise BrokerError(f"maven could not fetch Kafka (exit {run.returncode}):\n{run.stdout}{run.stderr}")
        try:
            jars.rename(target)
        except OSError:  # another test session was quicker: its copy is as good, but there has to be one
            if not target.is_dir():
                raise
    return target


class KafkaBroker:
    """One server process with its data folder and ports, which stay the same over restarts."""

    def __init__(self, jars: Path, folder: Path) -> None:
        self._folder = folder
        self._classpath = str(jars / "*")
        self._log = folder / "server.log"
        self._properties = folder / "server.properties"
        self._process: subprocess.Popen[bytes] | None = None
        self._port, controller_port = _free_ports(2)
        template = (HERE / "server.properties").read_text()
        for name, value in {
            "{data_dir}": str(folder / "data"),
            "{broker_port}": str(self._port),
            "{controller_port}": str(controller_port),
        }.items():
            template = template.replace(name, value)
        self._properties.write_text(template)

    @property
    def bootstrap_servers(self) -> str:
        """Where clients connect."""
        return f"127.0.0.1:{self._port}"

    @property
    def folder(self) -> Path:
        """Where its configuration, its data and its log are, as long as it is `running_broker`'s."""
        return self._folder

    def format(self) -> None:
        """Prepare the data folder; once, before the first start.

        Raises:
            BrokerError: the storage tool failed.
        """
        cluster_id = uuid.uuid4().hex[:22]
        command = self._java("kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(self._properties))
        run = subprocess.run(command, capture_output=True, text=True, timeout=_START_TIMEOUT_S, check=False)
        if run.returncode != 0:
            raise BrokerError(f"kafka storage could not be formatted:\n{run.stdout}{run.stderr}")

    def start(self) -> None:
        """Start the server and wait until it serves.

        Raises:
            BrokerError: it ended, or did not answer in time.
        """
        assert self._process is None, "the broker runs already"
        with self._log.open("ab") as output:
            position = output.tell()
            self._process = subprocess.Popen(
                self._java("kafka.Kafka", str(self._properties)), stdout=output, stderr=subprocess.STDOUT
            )
        try:
            self._wait_until_it_serves(position)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """End the server, gently if it lets itself be; does nothing if it is not running."""
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_TIMEOUT_S)
            self.kill()

    def kill(self) -> None:
        """End the server as a crash would; its data and ports stay for the next `start`."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def _java(self, *arguments: str) -> list[str]:
        return ["java", *_JVM, f"-Dkafka.logs.dir={self._folder}", "-cp", self._classpath, *arguments]

    def _wait_until_it_serves(self, log_position: int) -> None:
        assert self._process is not None
        deadline = time.monotonic() + _START_TIMEOUT_S
        while True:
            if self._process.poll() is not None:
                raise BrokerError(f"kafka ended with {self._process.returncode} while starting:\n{self._log_tail()}")
            with self._log.open("rb") as log:
                log.seek(log_position)
                started = b"Kafka Server started" in log.read()
            if started and self._accepts():
                return
            if time.monotonic() > deadline:
                raise BrokerError(f"kafka did not start within {_START_TIMEOUT_S:g} s:\n{self._log_tail()}")
            time.sleep(_POLL_S)

    def _accepts(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self._port), timeout=1.0).close()
        except OSError:
            return False
        return True

    def _log_tail(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-_LOG_TAIL_LINES:])


@contextlib.contextmanager
def running_broker() -> Iterator[KafkaBroker]:
    """Fetch, format and start a broker with data of its own; stop it and drop the data afterwards."""
    jars = fetch_jars()
    with tempfile.TemporaryDirectory(prefix="rillcast-kafka-") as folder:
        broker = KafkaBroker(jars, Path(folder))
        broker.format()
        broker.start()
        try:
            yield broker
        finally:
            broker.stop()


def _free_ports(count: int) -> list[int]:
    """Return ports that were free a moment ago, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
