"""Transactions of both Kafka clients on a real broker: committed records are seen once, others never."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Final

import pytest

from rillcast.errors import DeliveryError, FencedError, TransactionAborted
from rillcast.settings import KafkaSettings
from rillcast.transports.base import Channel, Records, Source
from rillcast.transports.connect import open_transactional_sink
from rillcast.transports.kafka.common.transactions import Ending, KafkaTransactionalSink, TransactionFault
from tests.support.copiers import Copier
from tests.support.kafka_cluster import KafkaCluster, restartable_cluster, unique
from tests.support.paths import ROOT
from tests.support.transports import CLIENTS, Listener, kafka_source, read

PARTITIONS: Final = 2
DEADLINE_S: Final = 60.0
LONG_S: Final = 120.0  # a transaction time-out that no test waits for

# pytest removes the filter that the transport sets.
pytestmark = pytest.mark.filterwarnings("ignore:Producer abort_transaction failed during close:RuntimeWarning")


class Pipe:
    """An input topic, two output topics, and members of one group; all are closed at the end."""

    def __init__(self, cluster: KafkaCluster, client: str, stack: ExitStack) -> None:
        self.cluster = cluster
        self.client = client
        self.stack = stack
        self.source_topic = cluster.create_topic("input", PARTITIONS)
        self.topics = {
            channel: cluster.create_topic(channel.value, 3) for channel in (Channel.FORECASTS, Channel.STATE)
        }
        self.group = unique("group")
        for number in range(PARTITIONS):
            cluster.produce(self.source_topic, [b"v"] * 10, partition=number)

    def settings(self, **changes: object) -> KafkaSettings:
        values: dict[str, object] = {"client": self.client, "group_id": self.group, "transaction_timeout_s": LONG_S}
        return self.cluster.settings(**(values | changes))

    def source(self, listener: Listener | None = None, **changes: object) -> Source:
        source = kafka_source(self.client, self.settings(**changes), self.source_topic)
        self.stack.callback(source.close)
        source.open(Listener() if listener is None else listener)
        return source

    def sink(self, **changes: object) -> KafkaTransactionalSink:
        sink = open_transactional_sink(self.settings(**changes), self.topics, self.source_topic)
        assert isinstance(sink, KafkaTransactionalSink)
        self.stack.callback(sink.close)
        return sink

    def seen(self, channel: Channel = Channel.FORECASTS, *, committed: bool = True) -> list[bytes]:
        return sorted(
            record.value or b"" for record in self.cluster.read_all(self.topics[channel], committed=committed)
        )

    def expect(self, *values: bytes, channel: Channel = Channel.FORECASTS) -> None:
        """Wait until exactly these are visible; a commit is visible once its markers are written."""
        wait_until(lambda: self.seen(channel) == sorted(values), f"{len(values)} records", 15.0)

    def write_behind(self) -> None:
        """Append ten records to each partition of the forecasts, after any open transaction."""
        for number in range(3):
            self.cluster.produce(self.topics[Channel.FORECASTS], [b"behind"] * 10, partition=number)

    @property
    def committed(self) -> dict[int, int]:
        return self.cluster.committed(self.group, self.source_topic)


@pytest.fixture(params=CLIENTS)
def pipe(request: pytest.FixtureRequest, kafka: KafkaCluster) -> Iterator[Pipe]:
    with ExitStack() as stack:
        yield Pipe(kafka, request.param, stack)


def wait_until(condition: Callable[[], bool], what: str, deadline_s: float = DEADLINE_S) -> float:
    """Return the seconds that it took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < deadline_s, f"{what} not within {deadline_s:g} s"
        time.sleep(0.02)
    return time.monotonic() - started


# Visibility


def test_records_of_several_topics_and_positions_become_visible_together(pipe: Pipe) -> None:
    source, sink = pipe.source(), pipe.sink()
    read(source, 20)
    for number in range(1, 4):
        sink.publish(Channel.FORECASTS, Records([b"a", b"b", None], [b"%d" % number] * 3))
        sink.publish(Channel.STATE, Records([b"page"], [b"%d" % number]), partition=2)
        sink.flush(10.0)
        assert len(pipe.seen(committed=False)) == 3 * number
        assert len(pipe.seen()) == 3 * (number - 1)
        sink.commit({0: number, 1: 2 * number}, source.group())
        pipe.expect(*[b"%d" % n for n in range(1, number + 1)] * 3)
        pipe.expect(*[b"%d" % n for n in range(1, number + 1)], channel=Channel.STATE)
        assert pipe.committed == {0: number, 1: 2 * number}


def test_aborted_records_were_written_and_are_never_seen(pipe: Pipe) -> None:
    source, sink = pipe.source(), pipe.sink()
    read(source, 20)
    sink.abort()
    for value in (b"dropped", b"dropped again"):
        sink.publish(Channel.FORECASTS, Records([b"k"], [value]))
        sink.flush(10.0)
        sink.abort()
    sink.publish(Channel.FORECASTS, Records([b"k"], [b"kept"]))
    sink.commit({0: 1}, source.group())
    pipe.expect(b"kept")
    assert pipe.seen(committed=False) == [b"dropped", b"dropped again", b"kept"]


def test_a_commit_of_nothing_asks_the_broker_nothing_and_one_of_positions_alone_is_a_commit(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, sink = pipe.source(), pipe.sink()
    read(source, 20)
    with monkeypatch.context() as patch:
        for call in ("begin", "flush", "send_offsets", "commit"):
            patch.setattr(sink._producer, call, lambda *_: pytest.fail("nothing is to be committed"), raising=False)
        sink.commit({}, None)
    sink.commit({1: 7}, source.group())
    assert pipe.committed == {1: 7}


def test_closing_drops_what_was_not_committed_and_holds_back_no_reader(pipe: Pipe) -> None:
    sink = pipe.sink()
    sink.publish(Channel.FORECASTS, Records([b"k"], [b"dropped"]))
    sink.flush(10.0)
    sink.close()
    sink.close()
    pipe.write_behind()
    assert wait_until(lambda: pipe.seen() == [b"behind"] * 30, "the records behind it") < LONG_S / 2


@pytest.mark.parametrize("by_broker", [True, False], ids=["by the broker", "by the client"])
def test_a_record_that_is_refused_for_its_content_ends_the_sink(pipe: Pipe, by_broker: bool) -> None:
    source = pipe.source()
    read(source, 20)
    if by_broker:
        pipe.topics[Channel.STATE] = pipe.cluster.create_topic("small", max_message_bytes=10_000)
    sink = pipe.sink(max_message_bytes=1_000_000 if by_broker else 10_000)
    sink.publish(Channel.FORECASTS, Records([b"k"], [b"small"]))
    sink.publish(Channel.STATE, Records([b"k"], [b"x" * 20_000]))
    with pytest.raises(DeliveryError, match="1 published records were not delivered") as raised:
        sink.commit({0: 10}, source.group())
    said = str(raised.value)
    assert f"topic {pipe.topics[Channel.STATE]}" in said
    assert "key 'k', 20" in said
    assert "max.message.bytes" in said
    assert pipe.topics[Channel.FORECASTS] not in said
    assert pipe.seen() == []
    assert pipe.committed == {}


# Crashes

CRASHING = """
import sys
from rillcast.settings import KafkaSettings
from rillcast.transports.base import Channel, Records
from rillcast.transports.connect import open_transactional_sink
from tests.support.paths import ROOT
settings = KafkaSettings.model_validate_json(sys.argv[1])
sink = open_transactional_sink(settings, {Channel.FORECASTS: sys.argv[2]}, sys.argv[3])
sink.publish(Channel.FORECASTS, Records([b"k"] * 3, [b"lost"] * 3))
sink.flush(20.0)
print("open", flush=True)
sys.stdin.read()
"""


def crash_with_an_open_transaction(pipe: Pipe, settings: KafkaSettings) -> None:
    """Leave the broker as after `kill -9`."""
    process = subprocess.Popen(
        [sys.executable, "-c", CRASHING, settings.model_dump_json(), pipe.topics[Channel.FORECASTS], pipe.source_topic],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "open\n"
        finally:
            process.kill()


def test_a_successor_with_the_same_transactional_id_ends_the_transaction_of_a_crash_at_once(pipe: Pipe) -> None:
    settings = pipe.settings(group_instance_id="pod-0")
    crash_with_an_open_transaction(pipe, settings)
    pipe.write_behind()
    assert len(pipe.seen()) < 30, "the open transaction delays readers"
    started = time.monotonic()
    pipe.sink(group_instance_id="pod-0")
    wait_until(lambda: len(pipe.seen()) == 30, "the records behind the open transaction")
    assert time.monotonic() - started < LONG_S / 2
    assert pipe.seen() == [b"behind"] * 30


def test_the_transaction_of_a_crash_delays_readers_no_longer_than_its_timeout(pipe: Pipe) -> None:
    crash_with_an_open_transaction(pipe, pipe.settings(transaction_timeout_s=2.0))
    pipe.sink()  # of another name
    pipe.write_behind()
    assert len(pipe.seen()) < 30, "the open transaction delays readers"
    assert wait_until(lambda: len(pipe.seen()) == 30, "the records behind the open transaction") < 4.0


# Zombies


@pytest.mark.parametrize("in_transaction", [True, False], ids=["in a transaction", "between transactions"])
def test_a_producer_that_was_replaced_under_its_transactional_id_writes_nothing_more(
    pipe: Pipe, in_transaction: bool
) -> None:
    source = pipe.source()
    read(source, 20)
    zombie = pipe.sink(transactional_id=pipe.group)
    zombie.publish(Channel.FORECASTS, Records([b"k"], [b"committed"]))
    zombie.commit({0: 1}, source.group())
    if in_transaction:
        zombie.publish(Channel.FORECASTS, Records([b"k"], [b"zombie's"]))
        zombie.flush(10.0)
    successor = pipe.sink(transactional_id=pipe.group)
    successor.publish(Channel.FORECASTS, Records([b"k"], [b"first"]))
    zombie.publish(Channel.FORECASTS, Records([b"k"], [b"zombie's"]))
    with pytest.raises(FencedError, match=pipe.group):
        zombie.commit({0: 9, 1: 9}, source.group())
    with pytest.raises(FencedError):
        zombie.publish(Channel.FORECASTS, Records([b"k"], [b"zombie's"]))
    zombie.close()
    successor.commit({0: 2}, source.group())
    successor.publish(Channel.FORECASTS, Records([b"k"], [b"second"]))
    successor.commit({0: 3}, source.group())
    pipe.expect(b"committed", b"first", b"second")
    assert pipe.committed == {0: 3}


def test_a_member_that_lost_its_partitions_commits_nothing_and_goes_on_after_it_rejoined(pipe: Pipe) -> None:
    """Each member has a transactional id of its own: the group's generation fences it, not the producer's epoch."""
    listener = Listener()
    zombie, zombies_sink = pipe.source(listener, session_timeout_s=1.0, max_poll_interval_s=1.0), pipe.sink()
    read(zombie, 20)
    stale = zombie.group()
    zombies_sink.publish(Channel.FORECASTS, Records([b"k"] * 5, [b"zombie's"] * 5))
    wait_until(lambda: not pipe.cluster.members(pipe.group), "the end of the silent member's session")
    successor, sink = pipe.source(), pipe.sink()
    read(successor, 20)
    sink.publish(Channel.FORECASTS, Records([b"k"], [b"successor's"]))
    sink.commit({0: 4, 1: 4}, successor.group())
    for group in (stale, zombie.group()):
        zombies_sink.publish(Channel.FORECASTS, Records([b"k"] * 5, [b"zombie's"] * 5))
        with pytest.raises(TransactionAborted):
            zombies_sink.commit({0: 9, 1: 9}, group)
    pipe.expect(b"successor's")
    assert pipe.committed == {0: 4, 1: 4}
    successor.close()
    poll_until_assigned_again(zombie, listener)
    zombies_sink.publish(Channel.FORECASTS, Records([b"k"], [b"again"]))
    zombies_sink.commit({1: 5}, zombie.group())
    pipe.expect(b"again", b"successor's")
    assert pipe.committed == {0: 4, 1: 5}, "positions of the aborted transactions were committed with the next one"


def poll_until_assigned_again(source: Source, listener: Listener) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while len(listener.assigned) < 2 * PARTITIONS:
        assert time.monotonic() < deadline, "the member did not rejoin"
        source.poll(100, 0.05)
    assert listener.lost


def test_a_static_member_that_was_replaced_is_fenced_by_its_group(pipe: Pipe) -> None:
    zombie, zombies_sink = pipe.source(group_instance_id="pod-0"), pipe.sink(transactional_id=unique("one"))
    read(zombie, 20)
    successor = pipe.source(group_instance_id="pod-0")
    read(successor, 20)
    zombies_sink.publish(Channel.FORECASTS, Records([b"k"], [b"zombie's"]))
    with pytest.raises(FencedError, match="group_instance_id"):
        zombies_sink.commit({0: 9}, zombie.group())
    assert pipe.seen() == []
    assert pipe.committed == {}


@pytest.mark.parametrize("notices", ["poll", "commit"])
def test_a_static_member_that_is_fenced_by_a_join_that_no_process_has_ends_and_its_restart_goes_on(
    pipe: Pipe, notices: str
) -> None:
    """As after a crash of the broker that lost the member's last join, or a join that the member gave up itself."""
    fenced = pipe.source(group_instance_id="pod-0")
    read(fenced, 20)
    gone = pipe.source(group_instance_id="pod-0")
    read(gone, 20)
    gone.close()  # a static member stays in its group
    started = time.monotonic()

    def go_on() -> None:
        while notices == "poll":  # it has no events, so nothing but a heartbeat tells it
            assert time.monotonic() - started < DEADLINE_S, "it idles without partitions"
            fenced.poll(10, 0.1)
        fenced.commit({0: 9})

    with pytest.raises(FencedError, match=r"kafka\.group_instance_id pod-0"):
        go_on()
    fenced.close()
    restarted = pipe.source(group_instance_id="pod-0", session_timeout_s=LONG_S)
    assert len(read(restarted, 20)) == 20
    assert pipe.committed == {}


def test_a_member_that_was_too_slow_for_its_own_transaction_resets_and_continues(pipe: Pipe) -> None:
    source, sink = pipe.source(), pipe.sink(transaction_timeout_s=1.0)
    read(source, 20)
    sink.publish(Channel.FORECASTS, Records([b"k"], [b"too late"]))
    sink.flush(10.0)
    pipe.write_behind()
    wait_until(lambda: len(pipe.seen()) == 30, "the end of the overdue transaction")
    with pytest.raises(TransactionAborted):
        sink.commit({0: 5}, source.group())
    assert pipe.committed == {}
    sink.publish(Channel.FORECASTS, Records([b"k"], [b"in time"]))
    sink.commit({0: 5}, source.group())
    pipe.expect(*[b"behind"] * 30, b"in time")
    assert pipe.committed == {0: 5}


# Ends that are uncertain


@pytest.mark.parametrize("landed", [True, False], ids=["the request arrived", "the request was lost"])
def test_after_an_uncertain_end_positions_and_records_agree(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch, landed: bool
) -> None:
    source, sink = pipe.source(), pipe.sink()
    read(source, 20)
    producer = sink._producer
    assert producer is not None
    commit = producer.commit

    def commit_without_an_answer(timeout_s: float) -> None:
        if landed:
            commit(timeout_s)
        raise TransactionFault(Ending.UNCERTAIN, "the connection broke")

    monkeypatch.setattr(producer, "commit", commit_without_an_answer)
    sink.publish(Channel.FORECASTS, Records([b"k"] * 3, [b"perhaps"] * 3))
    with pytest.raises(TransactionAborted):
        sink.commit({0: 5}, source.group())
    assert {a.partition: a.committed for a in source.assignments()} == {0: 5 if landed else None, 1: None}
    pipe.expect(*[b"perhaps"] * 3 if landed else [])
    assert sink._producer is not producer
    sink.publish(Channel.FORECASTS, Records([b"k"], [b"surely"]))
    sink.commit({1: 5}, source.group())
    pipe.expect(*[b"perhaps"] * 3 if landed else [], b"surely")


@pytest.mark.parametrize("step", ["flush", "send_offsets", "commit"])
def test_a_call_that_never_returns_is_given_up(pipe: Pipe, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """As librdkafka's `send_offsets_to_transaction` when the group's coordinator was decommissioned."""
    source, sink = pipe.source(), pipe.sink(transaction_timeout_s=1.0)
    read(source, 20)
    for_ever = threading.Event()
    pipe.stack.callback(for_ever.set)
    monkeypatch.setattr(sink._producer, step, lambda *_arguments: for_ever.wait() and None)
    sink.publish(Channel.FORECASTS, Records([b"k"], [b"dropped"]))
    with pytest.raises(TransactionAborted, match="no answer"):
        sink.commit({0: 5}, source.group())
    sink.publish(Channel.FORECASTS, Records([b"k"], [b"kept"]))
    sink.commit({0: 6}, source.group())
    pipe.expect(b"kept")
    assert pipe.committed == {0: 6}


# Members that copy


def assert_copied_once(pipe: Pipe, copiers: list[Copier], records: int) -> None:
    """Wait until every record was copied; there must be one copy of each then."""

    def copied() -> bool:
        for copier in copiers:
            if copier.failure is not None:
                raise copier.failure
        return sum(pipe.committed.values()) >= records

    wait_until(copied, "all positions")
    pipe.expect(*[b"%d/%d" % (n, offset) for n in range(PARTITIONS) for offset in range(records // PARTITIONS)])


def test_members_that_join_and_leave_copy_each_record_once(pipe: Pipe) -> None:
    def join() -> Copier:
        copier = Copier(pipe.settings(session_timeout_s=3.0), pipe.source_topic, pipe.topics[Channel.FORECASTS])
        stack.callback(copier.leave)
        copiers.append(copier)
        return copier

    def more(count: int) -> None:
        for number in range(PARTITIONS):
            pipe.cluster.produce(pipe.source_topic, [b"v"] * count, partition=number)

    copiers: list[Copier] = []
    with ExitStack() as stack:
        first = join()
        more(990)
        wait_until(lambda: first.commits > 2, "first commits")
        join()
        wait_until(lambda: [len(copier.owned) for copier in copiers] == [1, 1], "a partition each")
        more(500)
        first.leave()
        wait_until(lambda: len(copiers[1].owned) == 2, "both partitions")
        more(500)
        assert_copied_once(pipe, copiers, 2_000 * PARTITIONS)
    assert pipe.committed.keys() == {0, 1}


def test_a_broker_that_is_killed_and_comes_back_costs_and_doubles_no_record(kafka: KafkaCluster) -> None:
    """With both clients at once, since a restart takes long; the transactions that it cuts off end uncertainly."""
    if kafka.broker is None:
        pytest.skip("the broker was given and is not ours to kill")
    with restartable_cluster() as cluster, ExitStack() as stack:
        assert cluster.broker is not None
        pipes = [Pipe(cluster, client, stack) for client in CLIENTS]
        copiers = []
        for pipe in pipes:
            for number in range(PARTITIONS):
                cluster.produce(pipe.source_topic, [b"v"] * 1_990, partition=number)
            settings = pipe.settings(transaction_timeout_s=5.0, request_timeout_s=60.0)
            copiers.append(Copier(settings, pipe.source_topic, pipe.topics[Channel.FORECASTS]))
            stack.callback(copiers[-1].leave)
        wait_until(lambda: all(copier.commits > 5 for copier in copiers), "first commits")
        cluster.broker.kill()
        cluster.broker.start()
        for pipe, copier in zip(pipes, copiers, strict=True):
            assert_copied_once(pipe, [copier], 2_000 * PARTITIONS)
