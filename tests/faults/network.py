"""Faults of the network between members and brokers, and between brokers, in proxies.

Owns: the proxies of a cluster of three brokers, and what each fault does to which. Does not know: members, or what is
right. Members of even and odd numbers have proxies of their own, so that a fault meets some of them or all.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Final

from tests.faults.build import PROGRAMS
from tests.faults.plan import Fault, Step
from tests.faults.replicas import ReplicaFaults, Waiting
from tests.support.kafka_cluster import KafkaCluster
from tests.support.kafka_leaders import OFFSETS, TRANSACTIONS, Leaders
from tests.support.kafka_replicas import PEERS, running_replicas
from tests.support.toxiproxy import Toxiproxy, running_toxiproxy

_MEMBERS: Final = ("EVEN", "ODD")
_SHORT_S, _LONG_S = 5.0, 13.0  # the longer is past every time-out of a request and of a transaction
_LATENCY_MS, _JITTER_MS = 150, 100


@contextlib.contextmanager
def proxied_cluster() -> Iterator[KafkaCluster]:
    """Three brokers that members, and the brokers themselves, reach through proxies.

    Raises:
        FileNotFoundError: The proxy is not built.
    """
    if PROGRAMS.missing():
        raise FileNotFoundError("the proxy of the network faults is not built: python -m tests.faults.build (needs Go)")
    with running_toxiproxy(PROGRAMS.folder() / "toxiproxy-server") as proxies:

        def advertise(listener: str, broker: int, port: int) -> int:
            return proxies.open(_name(listener, broker), port)

        with running_replicas(listeners=_MEMBERS, advertise=advertise) as replicas:
            cluster = KafkaCluster(replicas.bootstrap_servers, replicas=replicas, proxies=proxies)
            try:
                yield cluster
            finally:
                proxies.heal()
                cluster.close()


def listener_of(member: int) -> str:
    """Return the listener that a member uses."""
    return _MEMBERS[member % len(_MEMBERS)]


def _name(listener: str, broker: int) -> str:
    return f"{listener}-{broker}"


class NetworkFaults:
    """Strikes, heals, and waits until the service has gone on and the brokers are in step."""

    def __init__(
        self,
        proxies: Toxiproxy,
        leaders: Leaders,
        brokers: ReplicaFaults,
        run: Waiting,
        topics: Sequence[str],
        *,
        transactions: bool,
    ) -> None:
        self._proxies = proxies
        self._leaders = leaders
        self._brokers = brokers
        self._run = run
        self._topics = topics
        self._coordinator = TRANSACTIONS if transactions else OFFSETS

    def strike(self, step: Step) -> None:
        """Do one fault."""
        self._brokers.away = True
        lasts_s = self._begin(step)
        self._rest(lasts_s)
        self._proxies.heal()
        self._run.feed_on()
        before = self._run.committed
        self._run.until(lambda: self._run.committed > before or self._run.all_committed, "the service to go on")
        self._brokers.in_step()
        self._brokers.away = False

    def _begin(self, step: Step) -> float:
        """Begin a fault and return for how many seconds it lasts."""
        ids = self._brokers.ids
        broker = ids[int(step.draw * len(ids))]
        all_of_one = [_name(listener, broker) for listener in _MEMBERS]
        some = [_name(_MEMBERS[int(step.draw * 7) % len(_MEMBERS)], each) for each in ids]
        match step.fault:
            case Fault.NETWORK_SLOW:
                for each in ids:
                    for listener in (*_MEMBERS, PEERS):
                        self._proxies.delay(_name(listener, each), _LATENCY_MS, _JITTER_MS)
                return _LONG_S
            case Fault.NETWORK_RESETS:
                for name in [_name(listener, each) for listener in _MEMBERS for each in ids]:
                    self._proxies.cut(name)
                return _SHORT_S
            case Fault.NETWORK_HALF_OPEN:
                for name in all_of_one:
                    self._proxies.swallow(name)
                return _LONG_S
            case Fault.NETWORK_NO_ANSWERS:
                for name in some:
                    self._proxies.swallow(name, requests=False)
                return _LONG_S
            case Fault.NETWORK_COORDINATOR | Fault.NETWORK_LEADERS:
                self._cut(coordinator=step.fault is Fault.NETWORK_COORDINATOR)
                return _LONG_S
            case Fault.NETWORK_SPLIT:
                self._proxies.swallow(_name(PEERS, broker))
                return _LONG_S
            case _:
                raise AssertionError(f"no fault of the network: {step}")

    def _cut(self, *, coordinator: bool) -> None:
        """Refuse members' connections to the broker that coordinates, or to all others, which lead every partition."""
        alone = self._leaders.of(self._coordinator)
        others = [broker for broker in self._brokers.ids if broker != alone]
        now = list(self._leaders.by_partition(self._topics))
        self._leaders.assign(
            {at: [*others[number % 2 :], *others[: number % 2], alone] for number, at in enumerate(now)}
        )
        self._leaders.elect(now)
        for broker in [alone] if coordinator else others:
            for listener in _MEMBERS:
                self._proxies.refuse(_name(listener, broker))

    def _rest(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        self._run.until(lambda: time.monotonic() >= until, f"{seconds:g} s to pass")
