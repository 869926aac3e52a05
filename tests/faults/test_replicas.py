"""The faults of several brokers: what is acknowledged by one copy alone is a finding."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest

from tests.faults import replicas
from tests.faults.fleet import Finding
from tests.faults.plan import Fault, Step
from tests.faults.replicas import ReplicaFaults
from tests.support.kafka_leaders import Leaders
from tests.support.kafka_replicas import KafkaReplicas

TWO = Step(100, Fault.TWO_BROKERS, 0.5, 0.0)


class Brokers:
    """Notes what is done to it; always in step."""

    ids = (1, 2, 3)

    def __init__(self) -> None:
        self.done: list[tuple[str, tuple[int, ...]]] = []

    def kill(self, *brokers: int) -> None:
        self.done.append(("kill", brokers))

    def start(self, *brokers: int) -> None:
        self.done.append(("start", brokers))

    def in_sync(self, topics: list[str], copies: int) -> bool:
        return bool(topics) and copies == 3


class Service:
    """Commits `each` events whenever somebody waits, while two brokers are away or only when all are back."""

    all_committed = False

    def __init__(self, brokers: Brokers, *, heeds: bool) -> None:
        self.committed = 100
        self._brokers = brokers
        self._heeds = heeds

    def feed_on(self) -> None:
        pass

    def until(self, condition: Callable[[], bool], _what: str) -> None:
        for _ in range(1000):
            if not self._heeds or self._brokers.done[-1][0] == "start":
                self.committed += 1
            if condition():
                return
        raise AssertionError("it waits for ever")


def strike(brokers: Brokers, *, heeds: bool) -> None:
    faults = ReplicaFaults(
        cast("KafkaReplicas", brokers),
        cast("Leaders", brokers),
        Service(brokers, heeds=heeds),
        ["input"],
        transactions=True,
    )
    faults.strike(TWO)
    assert not faults.away


def test_two_of_three_brokers_are_away_and_nothing_is_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicas, "_SETTLED_S", 0.0)
    brokers = Brokers()
    strike(brokers, heeds=True)
    assert brokers.done == [("kill", (1, 3)), ("start", (1, 3))]


def test_what_is_committed_by_one_broker_alone_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicas, "_SETTLED_S", 0.0)
    with pytest.raises(Finding, match="one copy is not enough"):
        strike(Brokers(), heeds=False)
