"""A service through an outage of its brokers: the process stays, a new worker goes on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import cast

import pytest
from prometheus_client import CollectorRegistry

from rillcast.errors import DeliveryError, FencedError, TransportError, UnreachableError
from rillcast.observability.health import Health
from rillcast.observability.metrics import Metrics
from rillcast.service.service import Outages, Service, Views
from rillcast.service.worker import Worker
from rillcast.transports.kafka.common.topic_admin import Brokers
from tests.support.memory import Clock
from tests.support.toy import toy_bundle

AWAY = DeliveryError("2 records were not acknowledged within 30 s")


class World:
    """A service whose workers do what a test says, and brokers that answer as it says."""

    def __init__(self, *acts: Callable[[], None], answers: list[Brokers], longest_s: float = math.inf) -> None:
        self.clock = Clock()
        self.series = CollectorRegistry()
        self.health = Health(clock=self.clock)
        self.away_for: list[float] = []
        self._acts = iter(acts)
        self._answers = iter(answers)
        views = Views(self.health, Metrics(self.series, {"": toy_bundle().metadata}, "cpu"), self.series)
        outages = Outages(self._look, longest_s)
        self.views = views
        self.service = Service(lambda: cast("Worker", _Worker(self._acts)), views, outages, self.clock)

    def _look(self) -> Brokers:
        self.clock.now += 10
        self.away_for.append(self.series.get_sample_value("rillcast_brokers_away_seconds") or 0.0)
        return next(self._answers)

    def assigned_then(self, error: TransportError) -> Callable[[], None]:
        def act() -> None:
            self.health.assigned = True
            raise error

        return act


class _Worker:
    def __init__(self, acts: Iterator[Callable[[], None]]) -> None:
        self._act = next(acts)

    def run(self) -> None:
        self._act()

    def stop(self) -> None:
        """Nothing runs."""


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rillcast.service.service._PAUSE_S", 0.0)


def test_a_new_worker_goes_on_when_brokers_that_were_away_are_back() -> None:
    ran: list[str] = []
    world = World(
        lambda: world.assigned_then(AWAY)(),
        lambda: ran.append("second"),
        answers=[Brokers.AWAY] * 3 + [Brokers.COMPLETE],
    )
    world.service.run()
    assert ran == ["second"]
    assert world.away_for == [0, 10, 20, 30], "seen while it lasts"
    assert world.series.get_sample_value("rillcast_brokers_away_seconds") == 0
    assert world.health.live, "a process that waits is no process that hangs"


def test_a_second_outage_during_the_restore_is_waited_for_as_well() -> None:
    def unreachable() -> None:
        raise TransportError("no broker answered")

    ran: list[str] = []
    world = World(
        lambda: world.assigned_then(AWAY)(),
        unreachable,
        lambda: ran.append("third"),
        answers=[Brokers.AWAY, Brokers.COMPLETE] * 2,
    )
    world.service.run()
    assert ran == ["third"]


def test_a_failure_while_brokers_answer_ends_the_service_as_ever() -> None:
    world = World(lambda: world.assigned_then(AWAY)(), answers=[Brokers.COMPLETE])
    with pytest.raises(DeliveryError):
        world.service.run()


def test_an_outage_that_is_over_when_the_service_looks_ends_no_service() -> None:
    ran: list[str] = []
    world = World(
        lambda: world.assigned_then(UnreachableError("no broker answered within 5 s"))(),
        lambda: ran.append("second"),
        answers=[Brokers.COMPLETE],
    )
    world.service.run()
    assert ran == ["second"]


def test_workers_that_reach_no_broker_though_brokers_answer_have_the_time_of_an_outage() -> None:
    unreachable = UnreachableError("no broker answered within 5 s")
    world: World = World(
        *[lambda: world.assigned_then(unreachable)()] * 9, answers=[Brokers.COMPLETE] * 9, longest_s=25
    )
    with pytest.raises(UnreachableError):
        world.service.run()
    assert len(world.away_for) == 3


def test_while_some_brokers_are_away_workers_try_until_one_goes_on() -> None:
    """They answer, but what two of three have to acknowledge is refused."""
    ran: list[str] = []
    world = World(
        lambda: world.assigned_then(AWAY)(),
        lambda: world.assigned_then(AWAY)(),
        lambda: ran.append("third"),
        answers=[Brokers.SOME] * 2,
    )
    world.service.run()
    assert ran == ["third"]
    assert world.series.get_sample_value("rillcast_brokers_away_seconds") == 0, "some answer"


def test_workers_that_fail_while_some_brokers_are_away_have_the_time_of_an_outage() -> None:
    world: World = World(*[lambda: world.assigned_then(AWAY)()] * 9, answers=[Brokers.SOME] * 9, longest_s=25)
    with pytest.raises(DeliveryError):
        world.service.run()
    assert len(world.away_for) == 3


def test_a_commit_ends_an_outage() -> None:
    world: World

    def commits_then_fails() -> None:
        world.views.metrics.committed(0.1, 0, 0, 0)
        world.assigned_then(AWAY)()

    ran: list[str] = []
    world = World(*[commits_then_fails] * 9, lambda: ran.append("tenth"), answers=[Brokers.SOME] * 9, longest_s=25)
    world.service.run()
    assert ran == ["tenth"], "each is an outage of its own"


def test_brokers_that_have_never_answered_are_a_mistake_in_the_settings() -> None:
    def refuse() -> None:
        raise TransportError("no broker answered within 30 s")

    world = World(refuse, answers=[])
    with pytest.raises(TransportError):
        world.service.run()


def test_a_member_that_was_replaced_ends() -> None:
    world = World(lambda: world.assigned_then(FencedError("another member"))(), answers=[])
    with pytest.raises(FencedError):
        world.service.run()


def test_the_wait_has_the_end_that_the_setting_says() -> None:
    world = World(lambda: world.assigned_then(AWAY)(), answers=[Brokers.AWAY] * 10, longest_s=25)
    with pytest.raises(DeliveryError):
        world.service.run()
    assert len(world.away_for) == 3


def test_a_stop_ends_the_wait() -> None:
    world = World(lambda: world.assigned_then(AWAY)(), answers=[])

    def answer() -> Brokers:
        world.service.stop()
        return Brokers.AWAY

    world.service._outages = Outages(answer)
    with pytest.raises(DeliveryError):
        world.service.run()
