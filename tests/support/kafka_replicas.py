"""Three Kafka brokers with a controller of their own: every topic on all of them, acknowledged by two.

Owns: the server processes and their ports. Does not know: topics and leaders (`tests.support.kafka_leaders`).
Invariant: what was started is stopped, also when a start fails. A killed process loses nothing that it handed to the
system, so these brokers show what Kafka's protocols do, not what a power cut does to a disk.
"""

from __future__ import annotations

import contextlib
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from tests.support.kafka_broker import TORN, fetch_jars, free_ports, java_options
from tests.support.kafka_node import Node

_IDS: Final = (1, 2, 3)
_CONTROLLER_ID: Final = 100
PEERS: Final = "PEERS"  # the listener on which brokers copy from each other
_REPLICATED: Final = """
default.replication.factor=3
min.insync.replicas=2
offsets.topic.replication.factor=3
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
controlled.shutdown.enable=true
replica.lag.time.max.ms=5000
replica.socket.timeout.ms=3000
replica.fetch.wait.max.ms=100
leader.imbalance.check.interval.seconds=3600
"""

Advertise = Callable[[str, int, int], int]


def _as_it_is(_listener: str, _broker: int, port: int) -> int:
    return port


class KafkaReplicas:
    """The brokers 1, 2 and 3, whose data and ports survive restarts.

    Args:
        java: Options as `java_options` returns them.
        folder: Folder of configuration, data and logs.
        listeners: Names of further listeners; all are plaintext.
        advertise: From listener, broker and port to the port that is told to clients and to other brokers, e.g. that of
            a proxy. Not asked for the first listener, on which the tests themselves connect.
    """

    ids: Final = _IDS

    def __init__(
        self, java: Sequence[str], folder: Path, *, listeners: Sequence[str] = (), advertise: Advertise = _as_it_is
    ) -> None:
        self.folder = folder
        names = ("PLAINTEXT", PEERS, *listeners)
        control, *ports = free_ports(1 + len(names) * len(_IDS))
        self._ports = {(name, broker): ports.pop() for broker in _IDS for name in names}
        self._advertised = {
            (name, broker): port if name == "PLAINTEXT" else advertise(name, broker, port)
            for (name, broker), port in self._ports.items()
        }
        quorum = f"controller.quorum.voters={_CONTROLLER_ID}@127.0.0.1:{control}\n"
        roles = (
            f"{quorum}node.id={_CONTROLLER_ID}\nprocess.roles=controller\nlisteners=CONTROLLER://127.0.0.1:{control}\n"
        )
        self._controller = Node("controller", java, folder, roles, _REPLICATED)
        protocols = ",".join(f"{name}:PLAINTEXT" for name in ("CONTROLLER", *names))
        self._brokers: dict[int, Node] = {}
        for broker in _IDS:
            roles = (
                f"{quorum}node.id={broker}\nprocess.roles=broker\n"
                f"listeners={self._addresses(self._ports, names, broker)}\n"
                f"advertised.listeners={self._addresses(self._advertised, names, broker)}\n"
            )
            more = f"{_REPLICATED}inter.broker.listener.name={PEERS}\nlistener.security.protocol.map={protocols}\n"
            self._brokers[broker] = Node(f"broker-{broker}", java, folder, roles, more)
        self._began = dict.fromkeys(_IDS, 0)

    @staticmethod
    def _addresses(ports: dict[tuple[str, int], int], names: Sequence[str], broker: int) -> str:
        return ",".join(f"{name}://127.0.0.1:{ports[name, broker]}" for name in names)

    @property
    def bootstrap_servers(self) -> str:
        """Where the tests' own clients connect."""
        return self.addresses("PLAINTEXT")

    def addresses(self, listener: str) -> str:
        """Return where clients connect to a listener, as it is advertised."""
        return ",".join(f"127.0.0.1:{self._advertised[listener, broker]}" for broker in _IDS)

    @property
    def torn_transactions(self) -> int:
        """Transactions that a broker took for complete without their markers; see `tests.support.kafka_broker`."""
        return sum(node.said(TORN) for node in self._brokers.values())

    def open(self) -> None:
        """Prepare the data and start every process.

        Raises:
            BrokerError: One could not be started; none is left.
        """
        nodes = [self._controller, *self._brokers.values()]
        cluster_id = uuid.uuid4().hex[:22]
        with ThreadPoolExecutor(len(nodes)) as pool:
            list(pool.map(lambda node: node.format(cluster_id), nodes))
        try:
            self._controller.start()
            self.start(*_IDS)
        except BaseException:
            self.close()
            raise

    def start(self, *brokers: int) -> None:
        """Start brokers and wait until they serve.

        Raises:
            BrokerError: One ended, or did not serve in time.
        """
        self.begin(*brokers)
        for broker in brokers:
            self._brokers[broker].wait_for(b"Kafka Server started", self._began[broker])

    def begin(self, *brokers: int) -> None:
        """Start brokers and return at once."""
        for broker in brokers:
            self._began[broker] = self._brokers[broker].start()

    def kill(self, *brokers: int) -> None:
        """Kill brokers as a crash would."""
        for broker in brokers:
            self._brokers[broker].kill()

    def stop(self, *brokers: int) -> None:
        """Stop brokers by a signal: they give up their partitions first."""
        for broker in brokers:
            self._brokers[broker].stop()

    def close(self) -> None:
        """End every process; the data goes with the folder, so none has to end well."""
        self.kill(*_IDS)
        self._controller.kill()


@contextlib.contextmanager
def running_replicas(*, listeners: Sequence[str] = (), advertise: Advertise = _as_it_is) -> Iterator[KafkaReplicas]:
    """Fetch, format and start the brokers; end them and delete their data afterwards."""
    java = java_options(fetch_jars())
    with tempfile.TemporaryDirectory(prefix="rillcast-kafka-") as folder:
        replicas = KafkaReplicas(java, Path(folder), listeners=listeners, advertise=advertise)
        replicas.open()
        try:
            yield replicas
        finally:
            replicas.close()
