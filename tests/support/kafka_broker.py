"""A real Apache Kafka for tests: the official artefacts, one broker, on free loopback ports.

Owns: fetching the jars once per machine, and the server processes. Does not know: topics or clients
(`tests.support.kafka_cluster`). Invariant: a broker that was started is stopped, also when its start fails.

Broker and controller are one process by default, which starts quickly. Tests that kill the broker under transactions
give the controller its own process, as in production. A node that is both wrongly assumes after a restart that it still
leads its partitions. It then takes transactions whose markers it was writing for complete ("these partitions are likely
deleted already", Kafka 4.3.1, TransactionMarkerChannelManager): half of such a transaction is visible and its positions
are lost. `torn_transactions` counts them.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from tests.support.fetched import fetched

HERE: Final = Path(__file__).parent / "kafka"
_FETCH_TIMEOUT_S: Final = 300.0
_START_TIMEOUT_S: Final = 180.0  # a busy machine takes two minutes
_STOP_TIMEOUT_S: Final = 15.0
_POLL_S: Final = 0.05
_PROTOCOLS: Final = "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT"
_LOG_TAIL_LINES: Final = 40
_BROKER_ID: Final = 1
_CONTROLLER_ID: Final = 100  # of a controller in its own process
_TORN: Final = b"these partitions are likely deleted already and hence can be skipped"
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
    """Return the programs that a broker needs and that are not installed."""
    return [tool for tool in ("java", "mvn") if shutil.which(tool) is None]


def fetch_jars() -> Path:
    """Return the folder with Kafka's jars, fetching them through Maven if this machine does not have them yet.

    Raises:
        BrokerError: Maven failed; the message has its output.
    """
    pom = HERE / "pom.xml"
    return fetched(
        f"kafka-{hashlib.sha256(pom.read_bytes()).hexdigest()[:12]}",
        lambda scratch: copy_jars(pom, scratch, "kafka_*.jar"),
    )


def copy_jars(pom: Path, scratch: Path, expected: str) -> Path:
    """Let Maven copy the dependencies of `pom` into a folder, which it returns; one of them is `expected`.

    Raises:
        BrokerError: Maven failed; the message has its output.
    """
    jars = scratch / "jars"
    command = ["mvn", "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={jars}"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=_FETCH_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise BrokerError(f"maven did not fetch {pom} within {_FETCH_TIMEOUT_S:g} s") from error
    if run.returncode != 0 or not any(jars.glob(expected)):
        raise BrokerError(f"maven could not fetch {pom} (exit {run.returncode}):\n{run.stdout}{run.stderr}")
    return jars


class _Node:
    """One server process with its configuration, log and data, which survive restarts."""

    def __init__(self, name: str, classpath: str, folder: Path, roles: str, more: str = "") -> None:
        self._name = name
        self._classpath = classpath
        self._folder = folder
        self._log = folder / f"{name}.log"
        self._properties = folder / f"{name}.properties"
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
                self._java("kafka.Kafka", str(self._properties)), stdout=output, stderr=subprocess.STDOUT
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
        return ["java", *_JVM, f"-Dkafka.logs.dir={self._folder}", "-cp", self._classpath, *arguments]

    def _log_tail(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-_LOG_TAIL_LINES:])


class KafkaBroker:
    """A broker with its data folder and ports, which survive restarts.

    Args:
        jars: Folder as `fetch_jars` returns it.
        folder: Folder of configuration, data and logs.
        own_controller: Whether the controller has its own process, which `kill` and `stop` leave running.
        listeners: More listeners, each a name and its security protocol.
        properties: More properties of the broker.
    """

    def __init__(
        self,
        jars: Path,
        folder: Path,
        *,
        own_controller: bool = False,
        listeners: Mapping[str, str] | None = None,
        properties: str = "",
    ) -> None:
        self._folder = folder
        further = dict(listeners or {})
        self._port, controller_port, *ports = free_ports(2 + len(further))
        self._further = dict(zip(further, ports, strict=True))
        client, control = f"PLAINTEXT://127.0.0.1:{self._port}", f"CONTROLLER://127.0.0.1:{controller_port}"
        client += "".join(f",{name}://127.0.0.1:{port}" for name, port in self._further.items())
        if further:
            properties += f"\nlistener.security.protocol.map={_PROTOCOLS},{_joined(further)}\n"
        voter = _CONTROLLER_ID if own_controller else _BROKER_ID
        quorum = f"controller.quorum.voters={voter}@127.0.0.1:{controller_port}\n"
        broker = f"{quorum}node.id={_BROKER_ID}\nadvertised.listeners={client}\ninter.broker.listener.name=PLAINTEXT\n"
        self._controller: _Node | None = None
        if own_controller:
            broker += f"process.roles=broker\nlisteners={client}\n"
            controller = f"{quorum}node.id={_CONTROLLER_ID}\nprocess.roles=controller\nlisteners={control}\n"
            self._controller = _Node("controller", str(jars / "*"), folder, controller)
        else:
            broker += f"process.roles=broker,controller\nlisteners={client},{control}\n"
        self._broker = _Node("broker", str(jars / "*"), folder, broker, properties)
        self._left_at: int | None = None  # end of the controller's log when the broker was last ended

    @property
    def bootstrap_servers(self) -> str:
        """Where clients connect."""
        return f"127.0.0.1:{self._port}"

    def address(self, listener: str) -> str:
        """Return where clients connect to one of the further listeners."""
        return f"127.0.0.1:{self._further[listener]}"

    @property
    def folder(self) -> Path:
        """Folder of its configuration, data and logs, while `running_broker` lasts."""
        return self._folder

    @property
    def torn_transactions(self) -> int:
        """Transactions that the broker took for complete without their markers; see the module's docstring."""
        return self._broker.said(_TORN)

    def format(self) -> None:
        """Prepare the data folders; once, before the first start.

        Raises:
            BrokerError: the storage tool failed.
        """
        cluster_id = uuid.uuid4().hex[:22]
        for node in filter(None, (self._controller, self._broker)):
            node.format(cluster_id)

    def start(self) -> None:
        """Start the server and wait until it serves; after a stop, wait first until its controller has noticed that.

        Raises:
            BrokerError: it ended, or did not answer in time.
        """
        try:
            if self._controller is not None:
                if self._left_at is None:
                    self._controller.start()
                else:
                    self._controller.wait_for(b"Fencing broker 1 ", self._left_at)
            position = self._broker.start()
            self._broker.wait_for(b"Kafka Server started", position, self._accepts)
        except BaseException:
            self.close()
            raise

    def stop(self) -> None:
        """Stop the broker, by a signal if it heeds one in time; do nothing if it is not running."""
        self._note_end()
        self._broker.stop()

    @property
    def pid(self) -> int:
        """Id of the broker's process, which runs."""
        return self._broker.pid

    def kill(self) -> None:
        """Kill the broker as a crash would; its data and ports stay for the next `start`."""
        self._note_end()
        self._broker.kill()

    def close(self) -> None:
        """Stop every process."""
        self.stop()
        if self._controller is not None:
            self._controller.stop()

    def _note_end(self) -> None:
        if self._controller is not None:
            self._left_at = self._controller.log_end

    def _accepts(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self._port), timeout=1.0).close()
        except OSError:
            return False
        return True


def _joined(listeners: Mapping[str, str]) -> str:
    return ",".join(f"{name}:{protocol}" for name, protocol in listeners.items())


@contextlib.contextmanager
def running_broker(
    *, own_controller: bool = False, listeners: Mapping[str, str] | None = None, properties: str = ""
) -> Iterator[KafkaBroker]:
    """Fetch, format and start a broker with its own data; stop it and delete the data afterwards."""
    jars = fetch_jars()
    with tempfile.TemporaryDirectory(prefix="rillcast-kafka-") as folder:
        broker = KafkaBroker(
            jars, Path(folder), own_controller=own_controller, listeners=listeners, properties=properties
        )
        broker.format()
        broker.start()
        try:
            yield broker
        finally:
            broker.close()


def free_ports(count: int) -> list[int]:
    """Return ports that were free a moment ago, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
