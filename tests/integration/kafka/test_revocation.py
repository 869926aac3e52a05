"""Revocation on a real broker: a member that cannot commit gives its partitions up in time, and the group goes on."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from typing import Final

import pytest

from rillcast.service.worker import Worker
from rillcast.settings import StateSettings, WorkerSettings
from rillcast.transports.base import Source
from rillcast.transports.kafka.common import failures
from tests.support import workers
from tests.support.kafka_cluster import KafkaCluster
from tests.support.memory import Log
from tests.support.transports import CLIENTS, Listener, kafka_source
from tests.support.workers import observation

DEADLINE_S: Final = 60.0
EVENTS: Final = 20


class Blocked:
    """A sink's flush while the output's brokers do not answer: it takes all the time that it is given."""

    def __init__(self) -> None:
        self.answers = threading.Event()
        self.asked: list[float] = []

    def __call__(self, timeout_s: float) -> None:
        self.asked.append(timeout_s)
        if not self.answers.wait(timeout_s):
            raise failures.not_in_time("the output's brokers", EVENTS, timeout_s)


@pytest.mark.parametrize("client", CLIENTS)
def test_partitions_that_cannot_be_committed_are_given_up_within_the_budget(kafka: KafkaCluster, client: str) -> None:
    topic = kafka.create_topic("revoked", 2)
    for partition in range(2):
        kafka.produce(topic, [observation(f"s{partition}", y + 1) for y in range(EVENTS)], partition=partition)
    settings = kafka.settings(max_poll_interval_s=20.0)
    source = kafka_source(client, settings, topic)
    harness = workers.build(Log({}), keep_parts=True)
    blocked = Blocked()
    harness.sink.flush = blocked  # type: ignore[method-assign]
    assert harness.parts is not None
    worker = Worker(
        replace(harness.parts, source=source),
        WorkerSettings(commit_interval_s=1000, revoke_timeout_s=0.5),
        StateSettings(),
        clock=time.monotonic,
    )
    failures: list[BaseException] = []

    def run() -> None:
        try:
            worker.run()
        except BaseException as error:  # noqa: BLE001  the test's own thread looks at it
            failures.append(error)

    thread = threading.Thread(target=run)
    with ExitStack() as stack:
        stack.callback(thread.join)
        stack.callback(worker.stop)
        thread.start()
        wait_until(lambda: worker._events == 2 * EVENTS, "the first member has read all")
        other: Source = kafka_source(client, settings, topic)
        stack.callback(other.close)
        joined = Listener()
        other.open(joined)
        taken = 0
        deadline = time.monotonic() + DEADLINE_S
        while taken < EVENTS:
            assert time.monotonic() < deadline, f"{taken} events read; the first member: {failures}"
            taken += len(other.poll(100, 0.1))
        assert len(blocked.asked) == 1, "one try"
        assert 0.0 < blocked.asked[0] <= 0.5, "within the budget"
        assert not failures, "the member goes on with what it has"
        assert kafka.committed(settings.group_id, topic) == {}
        assert kafka.members(settings.group_id) == 2
        assert [assignment.committed for assignment in joined.assigned] == [None]
        blocked.answers.set()
    assert not failures


def wait_until(condition: object, what: str) -> None:
    """Wait with a deadline."""
    assert callable(condition)
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {DEADLINE_S:g} s"
        time.sleep(0.02)
