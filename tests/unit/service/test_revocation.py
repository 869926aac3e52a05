"""Partitions that go to another member are committed within a budget, or given up without a commit."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

import pytest

from rillcast.engine.pages import Page
from rillcast.errors import SettingsError, TransactionAborted, TransportError
from rillcast.settings import KafkaSettings, StateSettings, WorkerSettings, load
from rillcast.stores.base import Mark
from rillcast.transports.base import Channel, Records
from rillcast.transports.kafka.common import failures
from rillcast.transports.kafka.common.transactions import KafkaTransactionalSink
from tests.support import workers
from tests.support.memory import Log, MemorySource
from tests.support.stores import MemoryStore, Shelf
from tests.support.toy import unroll
from tests.support.workers import forecasts_by_stream, observation

BUDGET_S: Final = 5.0
VALUES: Final = {"a": [1, 2, 3], "b": [4, 5, 6]}


def filled() -> Log:
    """Return a log with stream "a" in partition 0 and "b" in partition 1."""
    log = Log({0: [], 1: []})
    for partition, (unique_id, values) in enumerate(VALUES.items()):
        for y in values:
            log.append(partition, observation(unique_id, y))
    return log


def read_some(_source: MemorySource) -> None:
    """Do nothing before a poll: the one before it has loaded the state, this one brings events."""


def run_to_the_end(log: Log, shelf: Shelf) -> None:
    """Let a successor do what is left."""
    workers.build(log, store=lambda _sink: MemoryStore(shelf)).worker.run()
    assert forecasts_by_stream(log) == {unique_id: unroll(values) for unique_id, values in VALUES.items()}


def test_partitions_whose_forecasts_are_not_taken_in_time_go_without_a_commit_and_the_others_stay() -> None:
    log, shelf = filled(), Shelf()
    harness = workers.build(
        log,
        per_poll=lambda: 4,
        settings=WorkerSettings(commit_interval_s=1000, revoke_timeout_s=BUDGET_S),
        snapshots=StateSettings(snapshot_interval_s=1, snapshot_max_interval_s=1),
        store=lambda _sink: MemoryStore(shelf),
    )
    asked: list[float] = []
    flush = harness.sink.flush

    def slow_once(timeout_s: float) -> None:
        asked.append(timeout_s)
        if len(asked) == 1:
            harness.clock.now += timeout_s
            raise failures.not_in_time("nowhere", 4, timeout_s)
        flush(timeout_s)

    harness.sink.flush = slow_once  # type: ignore[method-assign]
    harness.source.before_poll.extend([read_some, lambda source: source.revoke([0])])
    harness.worker.run()
    assert asked[0] == BUDGET_S
    assert log.committed == {1: 3}, "what stays is committed later, what went is not"
    assert {mark for _, mark in shelf.marks} == {1}
    assert harness.metric("rillcast_commit_failures_total") == 1
    run_to_the_end(log, shelf)


def test_a_commit_at_revocation_takes_no_snapshot_of_partitions_that_stay() -> None:
    """Their pages would no longer count as changed, though a commit that runs out of time does not store them."""
    log, shelf = filled(), Shelf()
    harness = workers.build(
        log,
        per_poll=lambda: 2,
        settings=WorkerSettings(commit_interval_s=0.5),
        snapshots=StateSettings(snapshot_interval_s=1, snapshot_max_interval_s=1),
        store=lambda _sink: MemoryStore(shelf),
    )

    def revoke(source: MemorySource) -> None:
        harness.clock.now += 100  # a snapshot is due
        source.revoke([0])
        assert {mark for _, mark in shelf.marks} == {0}

    harness.source.before_poll.extend([read_some, revoke])
    harness.worker.run()
    run_to_the_end(log, shelf)


class StuckStore(MemoryStore):
    """A store whose disk does not answer."""

    def __init__(self, shelf: Shelf) -> None:
        super().__init__(shelf)
        self.disk = threading.Event()

    def stage(self, pages: Sequence[Page], marks: Sequence[Mark]) -> None:
        self.disk.wait()


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_a_store_that_hangs_at_revocation_ends_the_member_instead_of_holding_the_group_up(delivery: str) -> None:
    log, shelf = filled(), Shelf()
    store = StuckStore(shelf)
    harness = workers.build(
        log,
        settings=WorkerSettings.model_validate(
            {"commit_interval_s": 1000, "revoke_timeout_s": 0.05, "delivery": delivery}
        ),
        store=lambda _sink: store,
    )
    harness.source.before_poll.extend([read_some, lambda source: source.revoke([0])])
    try:
        with pytest.raises(TransportError, match="storing the state did not end"):
            harness.worker.run()
    finally:
        store.disk.set()
    assert harness.source.closed == 1
    run_to_the_end(log, shelf)


class StuckProducer:
    """A transactional producer that hangs in one of its calls until a test releases it."""

    def __init__(self, hangs_in: str) -> None:
        self.calls: list[str] = []
        self.let_go = threading.Event()
        self._hangs_in = hangs_in

    rejected = False

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name == self._hangs_in:
            self.let_go.wait()

    def initialize(self, timeout_s: float) -> None:
        self._call("initialize")

    def begin(self) -> None:
        self._call("begin")

    def publish(self, channel: Channel, records: Records, partition: int | None = None) -> None:
        self._call("publish")

    def flush(self, timeout_s: float) -> None:
        self._call("flush")

    def send_offsets(self, positions: Mapping[int, int], group: object, timeout_s: float) -> None:
        self._call("send_offsets")

    def commit(self, timeout_s: float) -> None:
        self._call("commit")

    def abort(self, timeout_s: float) -> None:
        self._call("abort")

    def close(self) -> None:
        self._call("close")


@contextmanager
def stuck_sink(hangs_in: str) -> Iterator[tuple[KafkaTransactionalSink, list[StuckProducer]]]:
    """Yield a sink whose first producer hangs, and all of its producers."""
    made: list[StuckProducer] = []

    def make() -> StuckProducer:
        made.append(StuckProducer(hangs_in if not made else "nothing"))
        return made[-1]

    sink = KafkaTransactionalSink(KafkaSettings(transaction_timeout_s=1000), "member", make)
    try:
        yield sink, made
    finally:
        for producer in made:
            producer.let_go.set()
        sink.close()


@pytest.mark.parametrize("hangs_in", ["flush", "send_offsets", "commit"])
def test_a_transaction_that_hangs_at_revocation_is_left_behind_and_settled_before_the_next(hangs_in: str) -> None:
    with stuck_sink(hangs_in) as (sink, made):
        sink.publish(Channel.FORECASTS, Records([b"k"], [b"v"]))
        with pytest.raises(TransactionAborted):
            sink.commit({0: 1}, "group", 0.05)
        assert len(made) == 1, "nobody waits for a successor's initialisation while the group waits for this member"
        sink.abort()
        assert [producer.calls[:1] for producer in made[1:]] == [["initialize"]]
        sink.publish(Channel.FORECASTS, Records([b"k"], [b"v"]))
        sink.commit({0: 1}, "group")
        assert made[1].calls == ["initialize", "begin", "publish", "flush", "send_offsets", "commit"]


def test_a_budget_that_is_not_well_inside_the_poll_interval_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RILLCAST_KAFKA__MAX_POLL_INTERVAL_S", "40")
    with pytest.raises(SettingsError, match="more than half of"):
        load()
    monkeypatch.setenv("RILLCAST_WORKER__REVOKE_TIMEOUT_S", "20")
    assert load().worker.revoke_timeout_s == 20
