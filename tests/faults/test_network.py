"""The faults of the network: each meets the proxies that it names, and is healed before the run goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest

from tests.faults import network
from tests.faults.network import NetworkFaults
from tests.faults.plan import NETWORK_FAULTS, Fault, Step
from tests.faults.replicas import ReplicaFaults
from tests.support.kafka_leaders import OFFSETS, Leaders
from tests.support.toxiproxy import Toxiproxy

MEMBERS = {f"{listener}-{broker}" for listener in ("EVEN", "ODD") for broker in (1, 2, 3)}
PEERS = {f"PEERS-{broker}" for broker in (1, 2, 3)}
MET = {
    Fault.NETWORK_SLOW: MEMBERS | PEERS,
    Fault.NETWORK_RESETS: MEMBERS,
    Fault.NETWORK_HALF_OPEN: {"EVEN-2", "ODD-2"},
    Fault.NETWORK_NO_ANSWERS: {"ODD-1", "ODD-2", "ODD-3"},
    Fault.NETWORK_COORDINATOR: {"EVEN-3", "ODD-3"},
    Fault.NETWORK_LEADERS: {"EVEN-1", "ODD-1", "EVEN-2", "ODD-2"},
    Fault.NETWORK_SPLIT: {"PEERS-2"},
}


class Proxies:
    """Notes which proxies have a fault, and which had one."""

    def __init__(self) -> None:
        self.ill: set[str] = set()
        self.met: set[str] = set()

    def _meet(self, name: str, *_: int, **__: bool) -> None:
        self.ill.add(name)
        self.met.add(name)

    delay = swallow = cut = refuse = _meet

    def heal(self) -> None:
        self.ill.clear()


class Brokers:
    """Broker 3 is the coordinator; it leads partition 0, as long as nobody moves it."""

    ids = (1, 2, 3)
    away = False

    def __init__(self) -> None:
        self.led_by = {("input", 0): 3, ("input", 1): 1}

    def of(self, topic: str) -> int:
        assert topic == OFFSETS
        return 3

    def by_partition(self, _topics: list[str]) -> dict[tuple[str, int], int]:
        return self.led_by

    def assign(self, replicas: dict[tuple[str, int], list[int]]) -> None:
        self.led_by = {at: brokers[0] for at, brokers in replicas.items()}

    def elect(self, _at: list[tuple[str, int]]) -> None:
        """Nothing is left to do."""

    def in_step(self) -> None:
        """They always are."""


class Service:
    """Commits an event whenever somebody waits and no proxy has a fault."""

    all_committed = False

    def __init__(self, proxies: Proxies) -> None:
        self.committed = 0
        self._proxies = proxies

    def feed_on(self) -> None:
        """It always has work."""

    def until(self, condition: Callable[[], bool], _what: str) -> None:
        for _ in range(1000):
            self.committed += not self._proxies.ill
            if condition():
                return
        raise AssertionError("it waits for ever")


@pytest.mark.parametrize("fault", NETWORK_FAULTS, ids=lambda fault: fault.name)
def test_a_fault_of_the_network_meets_its_connections_and_ends(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "_SHORT_S", 0.0)
    monkeypatch.setattr(network, "_LONG_S", 0.0)
    proxies, brokers = Proxies(), Brokers()
    service = Service(proxies)
    faults = NetworkFaults(
        cast("Toxiproxy", proxies),
        cast("Leaders", brokers),
        cast("ReplicaFaults", brokers),
        service,
        ["input"],
        transactions=False,
    )
    faults.strike(Step(100, fault, 0.5, 0.0))
    assert proxies.met == MET[fault]
    assert not proxies.ill
    assert not brokers.away
    assert service.committed > 0, "it waits until the service has gone on"
    if fault in (Fault.NETWORK_COORDINATOR, Fault.NETWORK_LEADERS):
        assert set(brokers.led_by.values()) == {1, 2}, "the coordinator leads nothing that members read or write"
