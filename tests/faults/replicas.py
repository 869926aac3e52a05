"""Faults of three brokers under load: killed, rolled, reassigned, and two of them away at once.

Owns: which broker each fault strikes, and that the brokers are in step again before the next one. Does not know:
members. `Waiting` is the run's own waiting, which supervises members and raises if nothing is committed for too long.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from tests.faults.fleet import Finding
from tests.faults.load import PARTITIONS
from tests.faults.plan import Fault, Step
from tests.support.kafka_leaders import OFFSETS, TRANSACTIONS, Leaders
from tests.support.kafka_replicas import KafkaReplicas

_SETTLED_S: Final = 2.0  # after a kill: what was on its way has arrived


class Waiting(Protocol):
    """What a run lends to its faults."""

    @property
    def committed(self) -> int:
        """Events that are committed."""

    @property
    def all_committed(self) -> bool:
        """Whether that is all of them."""

    def feed_on(self) -> None:
        """Give the members more to do."""

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait."""


class ReplicaFaults:
    """Strikes; `topics` are those of the service, and `away` says whether a broker is."""

    def __init__(
        self,
        replicas: KafkaReplicas,
        leaders: Leaders,
        run: Waiting,
        topics: Sequence[str],
        *,
        transactions: bool,
    ) -> None:
        self.ids = replicas.ids
        self._replicas = replicas
        self._leaders = leaders
        self._run = run
        self._coordinators = [OFFSETS, TRANSACTIONS] if transactions else [OFFSETS]
        self._topics = topics
        self.away = False

    def strike(self, step: Step) -> None:
        """Do one fault of brokers, and wait until they are in step again.

        Raises:
            Finding: Something was committed that two brokers cannot have acknowledged.
        """
        self.away = True
        match step.fault:
            case Fault.LEADER_KILLED:
                self._kill_for_a_while(self._leaders.of(self._topics[0], int(step.draw * PARTITIONS)))
            case Fault.GROUP_COORDINATOR:
                self._kill_for_a_while(self._leaders.of(self._coordinators[0]))
            case Fault.TRANSACTION_COORDINATOR:
                self._kill_for_a_while(self._leaders.of(self._coordinators[-1]))
            case Fault.TWO_BROKERS:
                self._kill_two(step)
            case Fault.ROLLED:
                self._roll()
            case Fault.REASSIGNED:
                self._reassign(step)
            case _:
                raise AssertionError(f"no fault of brokers: {step}")
        self.in_step()
        self.away = False

    def prepare_move(self, topic: str) -> Callable[[], None]:
        """Give each partition of a topic another preferred leader, and return what lets it lead."""
        now = self._leaders.by_partition([topic])
        others = {at: [each for each in self._replicas.ids if each != leader] for at, leader in now.items()}
        self._leaders.assign({at: [*others[at], leader] for at, leader in now.items()})
        return lambda: self._leaders.elect(list(now))

    def _kill_for_a_while(self, broker: int) -> None:
        """Kill a broker; the others take over, and the service goes on without it."""
        self._replicas.kill(broker)
        self._goes_on(f"the service to go on without broker {broker}")
        self._replicas.start(broker)

    def _kill_two(self, step: Step) -> None:
        killed = list(self._replicas.ids)
        killed.remove(killed[int(step.draw * len(killed))])
        self._replicas.kill(*killed)
        self._rest(_SETTLED_S)
        before = self._run.committed
        self._rest(step.delay_s)
        if self._run.committed > before:
            raise Finding(
                f"{self._run.committed - before:,} events were committed while brokers {killed} were away: one copy "
                "is not enough"
            )
        self._replicas.start(*killed)
        self._goes_on("the service to go on when the brokers are back")

    def _roll(self) -> None:
        for broker in self._replicas.ids:
            self.in_step()
            self._replicas.stop(broker)
            self._replicas.start(broker)

    def _reassign(self, step: Step) -> None:
        """Take a broker's copies away and give them back, with every leader another than before."""
        everywhere = self._leaders.by_partition([*self._topics, *self._coordinators])
        ids = list(self._replicas.ids)
        emptied = ids[int(step.draw * len(ids))]
        rest = [broker for broker in ids if broker != emptied]
        self._leaders.assign(dict.fromkeys(everywhere, rest))
        self._goes_on(f"the service to go on with broker {emptied} empty")
        self._leaders.assign(
            {at: sorted(ids, key=lambda broker: (broker == leader, broker)) for at, leader in everywhere.items()}
        )
        self.in_step()
        self._leaders.elect(list(everywhere))

    def _goes_on(self, what: str) -> None:
        self._run.feed_on()
        before = self._run.committed
        self._run.until(lambda: self._run.committed > before or self._run.all_committed, what)

    def _rest(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        self._run.until(lambda: time.monotonic() >= until, f"{seconds:g} s to pass")

    def in_step(self) -> None:
        """Wait until every partition has all its copies."""
        topics = [*self._topics, *self._coordinators]
        copies = len(self._replicas.ids)
        self._run.until(lambda: self._leaders.in_sync(topics, copies), "all brokers in step")
