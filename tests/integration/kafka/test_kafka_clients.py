"""Both Kafka clients in groups on a real broker: partitions move, and no record is lost or repeated."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Final

import pytest

from rillcast.errors import TransportError
from rillcast.settings import KafkaSettings
from rillcast.transports.base import Assignment, Channel, Records, Source
from rillcast.transports.kafka.kafka_python.source import KafkaPythonSource
from tests.support.kafka_cluster import KafkaCluster
from tests.support.transports import CLIENTS, Listener, from_beginning, kafka_sink, kafka_source, poll_until, read

PARTITIONS: Final = 6
RECORDS: Final = 6_000
DEADLINE_S: Final = 30.0
CLOSE_S: Final = 8.0


class Member:
    """A worker reduced to its bookkeeping, in a thread; it commits after each poll and when partitions are revoked."""

    def __init__(self, source: Source, group: Group, max_records: int) -> None:
        self.source = source
        self.owned: dict[int, int] = {}  # partition -> next offset
        self.changes = 0
        self.failure: BaseException | None = None
        self._group = group
        self._max_records = max_records
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"member of {group.settings.group_id}")
        source.open(self)
        self._thread.start()

    def leave(self) -> None:
        """Finish the iteration, which ends with a commit, and close."""
        self._stop.set()
        self._thread.join()
        self.source.close()

    def on_assigned(self, assignments: Sequence[Assignment]) -> Mapping[int, int]:
        starts = {assignment.partition: from_beginning(assignment) for assignment in assignments}
        assert not self.owned.keys() & starts.keys(), "a partition was assigned that is owned already"
        self.changes += 1
        self.owned = self.owned | starts
        return starts

    def on_revoked(self, partitions: Sequence[int]) -> None:
        self.changes += 1
        # With a time-out, as in the worker: from this thread a commit once took the whole time-out and failed.
        self.source.commit({number: self.owned[number] for number in partitions}, 10.0)
        self.owned = {number: offset for number, offset in self.owned.items() if number not in partitions}

    def on_lost(self, partitions: Sequence[int]) -> None:
        raise AssertionError(f"partitions {list(partitions)} were lost in an orderly rebalance")

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._iterate()
        except BaseException as error:  # noqa: BLE001  the test's own thread raises it
            self.failure = error
            self._group.note(())

    def _iterate(self) -> None:
        polled = self.source.poll(self._max_records, 0.05)
        records = list(zip(polled.partitions.tolist(), polled.offsets.tolist(), strict=True))
        for partition, offset in records:
            assert self.owned.get(partition) == offset, f"partition {partition}: {offset} came, not {self.owned}"
            self.owned[partition] = offset + 1
        self.source.commit(self.owned)
        self._group.note(records)


class TooLate:
    """A listener that fails to take partitions over, after its group has given up on the member."""

    def on_assigned(self, assignments: Sequence[Assignment]) -> Mapping[int, int]:
        if assignments:
            time.sleep(3.0)
        raise TransportError("the brokers are away")

    def on_revoked(self, partitions: Sequence[int]) -> None:
        raise AssertionError(f"partitions {list(partitions)} were revoked that were never taken over")

    on_lost = on_revoked


@pytest.mark.parametrize("client", CLIENTS)
def test_partitions_that_are_lost_while_taking_them_over_fails_leave_the_failure_as_it_is(
    client: str, kafka: KafkaCluster
) -> None:
    settings = kafka.settings(session_timeout_s=1.0, max_poll_interval_s=1.0)
    source = kafka_source(client, settings, kafka.create_topic("group", PARTITIONS))
    source.open(TooLate())
    with pytest.raises(TransportError, match="the brokers are away"):
        poll_until(source, lambda: False, "its failure", poll_s=6.0)
    started = time.monotonic()
    source.close()
    assert time.monotonic() - started < CLOSE_S


class Group:
    """Members of one group on one topic, and what they have read between them."""

    def __init__(self, cluster: KafkaCluster, stack: ExitStack, max_records: int = 200) -> None:
        self.settings = cluster.settings(session_timeout_s=3.0)  # heartbeats, and so rebalances, every third of it
        self.topic = cluster.create_topic("group", PARTITIONS)
        self.seen: Counter[tuple[int, int]] = Counter()
        self.members: list[Member] = []
        self._changed = threading.Condition()
        self._stack = stack
        self._max_records = max_records

    def note(self, records: Sequence[tuple[int, int]]) -> None:
        """Note a member's iteration; called by its thread."""
        with self._changed:
            self.seen.update(records)
            self._changed.notify_all()

    def join(self, client: str, **changes: object) -> Member:
        settings = KafkaSettings.model_validate(self.settings.model_dump() | changes)
        source = kafka_source(client, settings, self.topic)
        member = Member(source, self, self._max_records)
        self._stack.callback(member.leave)
        self.members.append(member)
        return member

    def leave(self, member: Member) -> None:
        """Stop `member` in an orderly way."""
        self.members.remove(member)
        member.leave()

    def run_until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for `condition`; raise the error of a member's thread."""

        def decided() -> bool:
            return any(member.failure for member in self.members) or condition()

        with self._changed:
            met = self._changed.wait_for(decided, DEADLINE_S)
        for member in self.members:
            if member.failure is not None:
                raise member.failure
        assert met, f"{what} not within {DEADLINE_S:g} s: {[member.owned for member in self.members]}"

    def run_until_balanced(self) -> None:
        each, rest = divmod(PARTITIONS, len(self.members))
        sizes = sorted([each + 1] * rest + [each] * (len(self.members) - rest))
        self.run_until(lambda: sorted(len(m.owned) for m in self.members) == sizes, f"members with {sizes} partitions")


@pytest.mark.parametrize(
    "clients",
    [pytest.param((client,) * 3, id=client) for client in CLIENTS]
    + [pytest.param(("librdkafka", "kafka-python", "librdkafka"), id="mixed")],
)
def test_members_that_join_and_leave_neither_lose_nor_repeat_a_record(
    kafka: KafkaCluster, clients: tuple[str, str, str]
) -> None:
    with ExitStack() as stack:
        group = Group(kafka, stack)
        for number in range(PARTITIONS):
            kafka.produce(group.topic, [b"%d" % n for n in range(RECORDS // PARTITIONS // 2)], partition=number)
        first = group.join(clients[0])
        group.run_until(lambda: len(group.seen) > 100, "first records")
        group.join(clients[1])
        group.run_until_balanced()
        group.join(clients[2])
        group.run_until_balanced()
        for number in range(PARTITIONS):
            kafka.produce(group.topic, [b"%d" % n for n in range(RECORDS // PARTITIONS // 2)], partition=number)
        group.run_until(lambda: len(group.seen) > RECORDS // 2 + 100, "records of three members")
        group.leave(first)
        group.run_until_balanced()
        group.run_until(lambda: len(group.seen) >= RECORDS, "all records")
    assert len(group.seen) == RECORDS
    assert set(group.seen.values()) == {1}
    assert kafka.committed(group.settings.group_id, group.topic) == dict.fromkeys(
        range(PARTITIONS), RECORDS // PARTITIONS
    )


@pytest.mark.parametrize("client", CLIENTS)
def test_records_fetched_ahead_are_not_handed_out_once_their_partition_is_revoked(
    kafka: KafkaCluster, client: str
) -> None:
    """Small polls from a full buffer; `Member` checks that each record is of an owned partition and the next."""
    with ExitStack() as stack:
        group = Group(kafka, stack, max_records=3)
        for number in range(PARTITIONS):
            kafka.produce(group.topic, [b"x" * 100] * 50, partition=number)
        group.join(client)
        group.run_until(lambda: len(group.seen) >= 6, "first records")
        group.join(client)
        group.run_until_balanced()
        group.run_until(lambda: len(group.seen) >= 50 * PARTITIONS, "all records")
    assert set(group.seen.values()) == {1}


@pytest.mark.parametrize("client", CLIENTS)
def test_a_static_member_comes_back_to_its_partitions_without_a_rebalance(kafka: KafkaCluster, client: str) -> None:
    with ExitStack() as stack:
        group = Group(kafka, stack)
        static = group.join(client, group_instance_id="pod-0")
        other = group.join(client, group_instance_id="pod-1")
        group.run_until_balanced()
        before, changes = dict(static.owned), other.changes
        group.leave(static)
        assert kafka.members(group.settings.group_id) == 2
        returned = group.join(client, group_instance_id="pod-0")
        group.run_until(lambda: bool(returned.owned), "partitions of the returned member")
        assert returned.owned.keys() == before.keys()
        assert other.changes == changes


@pytest.mark.parametrize("client", CLIENTS)
def test_a_dynamic_member_that_closes_leaves_the_group_at_once(kafka: KafkaCluster, client: str) -> None:
    with ExitStack() as stack:
        group = Group(kafka, stack)
        group.leave(group.join(client))
        member = group.join(client)
        group.run_until_balanced()
        group.leave(member)
        assert kafka.members(group.settings.group_id) == 0


@pytest.mark.parametrize("client", CLIENTS)
def test_a_member_that_was_silent_for_too_long_loses_its_partitions_and_may_not_commit(
    kafka: KafkaCluster, client: str
) -> None:
    topic = kafka.create_topic("silent", 1)
    kafka.produce(topic, [b"v"] * 10, partition=0)
    settings = kafka.settings(session_timeout_s=1.0, max_poll_interval_s=1.0)
    listener = Listener()
    with ExitStack() as stack:
        source = kafka_source(client, settings, topic)
        stack.callback(source.close)
        source.open(listener)
        read(source, 10)
        deadline = time.monotonic() + DEADLINE_S
        while kafka.members(settings.group_id):
            assert time.monotonic() < deadline, "the silent member is still in its group"
            time.sleep(0.05)  # between two questions, up to the deadline; the broker does not say when a session ends
        successor = kafka_source(client, settings, topic)
        stack.callback(successor.close)
        successor.open(Listener())
        read(successor, 10)
        with pytest.raises(TransportError, match="could not commit"):
            source.commit({0: 10})
        while not listener.lost:
            assert time.monotonic() < deadline, "the silent member did not hear of its loss"
            source.poll(1, 0.05)
        assert (listener.lost, listener.revoked) == ([0], [])


def test_a_member_that_learns_in_its_join_that_it_was_forgotten_has_lost_its_partitions(kafka: KafkaCluster) -> None:
    """As after a cut from the coordinator: the first thing that it sends is the join, and no heartbeat is refused."""
    topic = kafka.create_topic("forgotten", 2)
    for partition in range(2):
        kafka.produce(topic, [b"v"] * 10, partition=partition)
    settings = kafka.settings(session_timeout_s=1.0)
    listener = Listener()
    with ExitStack() as stack:
        source = kafka_source("kafka-python", settings, topic)
        assert isinstance(source, KafkaPythonSource)
        stack.callback(source.close)
        source.open(listener)
        read(source, 20)
        coordinator = source._consumer._coordinator
        coordinator._disable_heartbeat()
        deadline = time.monotonic() + DEADLINE_S
        while kafka.members(settings.group_id):
            assert time.monotonic() < deadline, "the member is still in its group"
            time.sleep(0.05)  # between two questions, up to the deadline; the broker does not say when a session ends
        successor = kafka_source("kafka-python", settings, topic)
        stack.callback(successor.close)
        successor.open(Listener())
        read(successor, 20)
        successor.commit({0: 10, 1: 10})
        successor.close()
        coordinator.request_rejoin()
        while not listener.lost:
            assert time.monotonic() < deadline, f"nothing was lost, revoked are {listener.revoked}"
            source.poll(1, 0.05)
        while len(listener.assigned) < 4:
            assert time.monotonic() < deadline, "it was not given the partitions again"
            assert not len(source.poll(1, 0.05))
        assert (sorted(listener.lost), listener.revoked) == ([0, 1], [])
        assert [one.committed for one in listener.assigned] == [None, None, 10, 10]


def test_both_clients_put_a_key_in_the_same_partition(kafka: KafkaCluster) -> None:
    keys = [f"stream-{n}/é".encode() for n in range(300)]
    placed: list[dict[bytes | None, int]] = []
    for client in CLIENTS:
        topics = {Channel.FORECASTS: kafka.create_topic("keys", 7), Channel.DEAD_LETTERS: kafka.create_topic("dead")}
        with ExitStack() as stack:
            sink = kafka_sink(client, kafka.settings(), topics)
            stack.callback(sink.close)
            sink.publish(Channel.FORECASTS, Records(keys, keys))
            sink.flush(10.0)
        placed.append({record.key: record.partition for record in kafka.read_all(topics[Channel.FORECASTS])})
    assert placed[0] == placed[1]
    assert len(set(placed[0].values())) == 7
