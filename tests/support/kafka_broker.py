"""A real Apache Kafka for tests: the official artefacts, one broker, on free loopback ports.

Owns: fetching the jars once per machine, and a broker with its controller. Does not know: topics or clients
(`tests.support.kafka_cluster`), or clusters of several brokers (`tests.support.kafka_replicas`). Invariant: a broker
that was started is stopped, also when its start fails.

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
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.support.fetched import fetched
from tests.support.kafka_node import HERE, JVM, BrokerError, Node

_FETCH_TIMEOUT_S: Final = 300.0
_PROTOCOLS: Final = "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT"
_ARCHIVE: Final = "classes.jsa"
_BROKER_ID: Final = 1
_CONTROLLER_ID: Final = 100  # of a controller in its own process
TORN: Final = b"these partitions are likely deleted already and hence can be skipped"


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


def java_options(jars: Path) -> list[str]:
    """Return the options that name Kafka's classes, which this machine's JVM has archived once.

    With its classes in an archive (JEP 350) a broker starts in two thirds of the processor time.

    Raises:
        BrokerError: The JVM archived nothing that it can use.
    """
    version = subprocess.run(["java", "-version"], capture_output=True, check=True).stderr
    name = f"{jars.name}-classes-{hashlib.sha256(version).hexdigest()[:12]}"
    archive = fetched(name, lambda scratch: _archive(jars, scratch)) / _ARCHIVE
    return ["-cp", str(jars / "*"), f"-XX:SharedArchiveFile={archive}"]


def _archive(jars: Path, scratch: Path) -> Path:
    """Run a broker once and let its JVM archive the classes that it loaded; return the archive's folder."""
    classes, server = scratch / "classes", scratch / "server"
    classes.mkdir()
    server.mkdir()
    classpath = ["-cp", str(jars / "*")]
    broker = KafkaBroker([*classpath, f"-XX:ArchiveClassesAtExit={classes / _ARCHIVE}"], server)
    broker.format()
    broker.start()
    broker.close()
    check = ["java", *JVM, *classpath, f"-XX:SharedArchiveFile={classes / _ARCHIVE}", "-Xshare:on", "-version"]
    run = subprocess.run(check, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise BrokerError(f"java cannot use the archive of Kafka's classes:\n{run.stdout}{run.stderr}")
    return classes


class KafkaBroker:
    """A broker with its data folder and ports, which survive restarts.

    Args:
        java: Options as `java_options` returns them.
        folder: Folder of configuration, data and logs.
        own_controller: Whether the controller has its own process, which `kill` and `stop` leave running.
        listeners: More listeners, each a name and its security protocol.
        properties: More properties of the broker.
        environment: More variables of the broker's process, e.g. of a `tests.support.broker_clock.BrokerClock`.
    """

    def __init__(
        self,
        java: Sequence[str],
        folder: Path,
        *,
        own_controller: bool = False,
        listeners: Mapping[str, str] | None = None,
        properties: str = "",
        environment: Mapping[str, str] | None = None,
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
        self._controller: Node | None = None
        if own_controller:
            broker += f"process.roles=broker\nlisteners={client}\n"
            controller = f"{quorum}node.id={_CONTROLLER_ID}\nprocess.roles=controller\nlisteners={control}\n"
            self._controller = Node("controller", java, folder, controller)
        else:
            broker += f"process.roles=broker,controller\nlisteners={client},{control}\n"
        self._broker = Node("broker", java, folder, broker, properties, environment)
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
        return self._broker.said(TORN)

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
    *,
    own_controller: bool = False,
    listeners: Mapping[str, str] | None = None,
    properties: str = "",
    environment: Mapping[str, str] | None = None,
) -> Iterator[KafkaBroker]:
    """Fetch, format and start a broker with its own data; stop it and delete the data afterwards."""
    java = java_options(fetch_jars())
    with tempfile.TemporaryDirectory(prefix="rillcast-kafka-") as folder:
        broker = KafkaBroker(
            java,
            Path(folder),
            own_controller=own_controller,
            listeners=listeners,
            properties=properties,
            environment=environment,
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
