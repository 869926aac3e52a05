"""Five sources and three sinks keep the contract of `rillcast.transports.base`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from operator import itemgetter
from pathlib import Path
from typing import Final

import numpy as np
import pytest
from confluent_kafka import Producer

from rillcast.errors import DeliveryError, TransportError
from rillcast.transports.base import Assignment, Channel, Records, Sink
from rillcast.transports.file.sink import FileSink
from tests.support.kafka_cluster import KafkaCluster
from tests.support.transports import (
    CLIENTS,
    Backend,
    FileBackend,
    KafkaBackend,
    Listener,
    by_partition,
    decoded,
    kafka_sink,
    kafka_source,
    poll_until,
    read,
    rows,
)

COUNT: Final = 500
_KAFKA = [pytest.param(client, marks=pytest.mark.kafka) for client in CLIENTS]


@pytest.fixture(params=["jsonl", "csv", "parquet", *_KAFKA])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    if request.param in CLIENTS:
        return KafkaBackend(request.getfixturevalue("kafka"), request.param)
    return FileBackend(tmp_path, request.param)


@pytest.fixture(params=CLIENTS)
def topic(request: pytest.FixtureRequest, kafka: KafkaCluster) -> KafkaBackend:
    return KafkaBackend(kafka, request.param)


# Sources


def test_every_record_comes_once_in_offset_order(backend: Backend) -> None:
    backend.put(rows(COUNT))
    with closing(backend.source()) as source:
        source.open(Listener())
        records = read(source, COUNT)
        assert not len(source.poll(10, 0.05))
    partitions = by_partition(records)
    assert sorted(partitions) == list(range(backend.partitions))
    for each in partitions.values():
        assert [record.offset for record in each] == list(range(len(each)))
    assert decoded([record for number in sorted(partitions) for record in partitions[number]]) == rows(COUNT)


def test_the_listener_hears_of_each_partition_during_poll_and_not_before(backend: Backend) -> None:
    backend.put(rows(COUNT))
    listener = Listener()
    with closing(backend.source()) as source:
        source.open(listener)
        assert listener.assigned == []
        read(source, COUNT)
    assert sorted(assignment.partition for assignment in listener.assigned) == list(range(backend.partitions))
    assert all(assignment.committed is None and assignment.beginning == 0 for assignment in listener.assigned)


def test_reading_starts_where_the_listener_says(backend: Backend) -> None:
    backend.put(rows(COUNT))
    with closing(backend.source()) as source:
        source.open(Listener(start=lambda assignment: 37 + assignment.partition))
        records = read(source, COUNT - sum(37 + number for number in range(backend.partitions)))
    for number, each in by_partition(records).items():
        assert [record.offset for record in each] == list(range(37 + number, COUNT // backend.partitions))


@pytest.mark.parametrize("max_records", [1, 7, 10_000])
def test_a_poll_hands_out_no_more_than_asked_for(backend: Backend, max_records: int) -> None:
    backend.put(rows(60))
    with closing(backend.source()) as source:
        source.open(Listener())
        records = read(source, 60, max_records)  # read() checks each poll
    assert len(set(records)) == 60


def test_a_poll_with_nothing_to_hand_out_ends_with_its_timeout(backend: Backend) -> None:
    backend.put(rows(4))
    with closing(backend.source()) as source:
        source.open(Listener())
        read(source, 4)
        started, computed = time.monotonic(), time.thread_time()
        polled = source.poll(100, 0.3)
        elapsed, computed = time.monotonic() - started, time.thread_time() - computed
    assert (len(polled), len(polled.keys), len(polled.partitions)) == (0, 0, 0)
    if isinstance(backend, KafkaBackend):  # a file that has ended has nothing to wait for
        assert elapsed >= 0.25
        assert computed < 0.15, "it waits, and does not ask again and again"


def test_a_poll_does_not_wait_for_a_full_batch(backend: Backend) -> None:
    backend.put(rows(4))
    with closing(backend.source()) as source:
        source.open(Listener())
        taken, patience_s = 0, 120.0
        started = time.monotonic()
        while not taken:
            taken = len(source.poll(10_000, patience_s))
        assert time.monotonic() - started < patience_s


def test_an_error_of_the_listener_comes_out_of_poll(backend: Backend) -> None:
    class ListenerError(Exception):
        pass

    def fail(_assignment: Assignment) -> int:
        raise ListenerError

    backend.put(rows(4))
    with closing(backend.source()) as source:
        source.open(Listener(start=fail))
        with pytest.raises(ListenerError):
            read(source, 4)


def test_positions_follow_what_was_handed_out_and_the_lag_ends_at_zero(backend: Backend) -> None:
    backend.put(rows(COUNT))
    with closing(backend.source()) as source:
        source.open(Listener())
        assert source.positions() == {}
        first = read(source, 1, 1)[0]
        assert source.positions()[first.partition] == first.offset + 1
        read(source, COUNT - 1)
        poll_until(source, lambda: sum(source.lag().values()) == 0 and bool(source.lag()), "a lag of zero")
        half = COUNT // backend.partitions
        assert source.positions() == dict.fromkeys(range(backend.partitions), half)


def test_commit_does_not_move_the_reading_position(backend: Backend) -> None:
    backend.put(rows(20))
    with closing(backend.source()) as source:
        source.open(Listener())
        records = read(source, 1, 1)
        source.commit({records[0].partition: 0})
        source.commit({})
        records += read(source, 19)
    assert len(set(records)) == 20


def test_a_file_ends_and_a_topic_does_not(backend: Backend) -> None:
    backend.put(rows(4))
    with closing(backend.source()) as source:
        source.open(Listener())
        assert not source.exhausted
        read(source, 4)
        source.poll(1, 0.01)
        assert source.exhausted is isinstance(backend, FileBackend)


def test_a_source_may_be_closed_twice_and_unopened(backend: Backend) -> None:
    backend.put(rows(4))
    backend.source().close()
    listener = Listener()
    source = backend.source()
    source.open(listener)
    read(source, 4)
    source.close()
    source.close()
    assert listener.revoked == listener.lost == []
    with pytest.raises(TransportError):
        source.poll(1, 0.01)


# Sources whose partitions are paused


def hold_all(_assignment: Assignment) -> None:
    """Answer the listener's question: not before `resume_from`."""


def test_a_partition_that_the_listener_pauses_is_read_from_where_it_resumes(backend: Backend) -> None:
    backend.put(rows(COUNT))
    listener = Listener(start=hold_all)
    with closing(backend.source()) as source:
        source.open(listener)
        poll_until(source, lambda: len(listener.assigned) == backend.partitions, "the assignment")
        assert not len(source.poll(100, 0.3))
        assert source.positions() == {}
        assert not source.exhausted
        source.resume_from(0, 17)
        assert source.positions() == {0: 17}
        records = read(source, COUNT // backend.partitions - 17)
        assert not len(source.poll(100, 0.1))
    assert [(r.partition, r.offset) for r in records] == [(0, n) for n in range(17, COUNT // backend.partitions)]


@pytest.mark.parametrize("back_to", [0, 3, 40])
def test_a_paused_partition_resumes_from_any_position(backend: Backend, back_to: int) -> None:
    """With records fetched ahead: small polls from a full buffer."""
    backend.put(rows(COUNT))
    with closing(backend.source()) as source:
        source.open(Listener())
        before = read(source, 30, 3)
        source.pause([0])
        assert 0 not in source.positions()
        others = read(source, COUNT - COUNT // backend.partitions - sum(r.partition != 0 for r in before))
        assert all(record.partition != 0 for record in others)
        assert not len(source.poll(100, 0.1))
        source.resume_from(0, back_to)
        again = read(source, COUNT // backend.partitions - back_to, 7)
    assert [(r.partition, r.offset) for r in again] == [(0, n) for n in range(back_to, COUNT // backend.partitions)]


def test_a_partition_may_resume_without_having_been_paused(backend: Backend) -> None:
    backend.put(rows(COUNT))
    end = COUNT // backend.partitions
    with closing(backend.source()) as source:
        source.open(Listener())
        read(source, 30, 3)
        for target in (200, 5, 5, 199, 0):
            for number in range(backend.partitions):
                source.resume_from(number, target)
            partitions = by_partition(read(source, 7, 4))
            assert [r.offset for each in partitions.values() for r in each] == [
                target + n for each in partitions.values() for n in range(len(each))
            ]
        for number in range(backend.partitions):
            source.resume_from(number, 0)
        assert sorted(record.offset for record in read(source, COUNT)) == sorted([*range(end)] * backend.partitions)


def test_partitions_that_are_not_owned_are_neither_paused_nor_resumed(backend: Backend) -> None:
    backend.put(rows(COUNT))
    with closing(backend.source()) as source:
        source.open(Listener())
        source.pause([0])
        source.resume_from(0, 490)
        assert len(read(source, COUNT)) == COUNT
        source.pause([backend.partitions])
        source.resume_from(backend.partitions, 0)
        assert not len(source.poll(10, 0.1))
        assert sorted(source.positions()) == list(range(backend.partitions))


def test_the_assignments_are_current_when_asked_again(backend: Backend) -> None:
    backend.put(rows(20))
    listener = Listener()
    with closing(backend.source()) as source:
        source.open(listener)
        assert source.assignments() == []
        read(source, 20)
        assert sorted(source.assignments()) == sorted(listener.assigned)
        if isinstance(backend, KafkaBackend):
            source.commit({0: 4})
            backend.put(rows(20))
            assert sorted(source.assignments()) == [Assignment(0, 4, 0, 20), Assignment(1, None, 0, 20)]


# Sources on a topic


def test_partitions_that_the_listener_itself_pauses_and_resumes_lose_and_repeat_nothing(topic: KafkaBackend) -> None:
    """As a worker whose transaction failed during a rebalance: it resets to the committed positions."""
    topic.put(rows(COUNT))
    half = COUNT // 2

    class Rewinding(Listener):
        def on_revoked(self, partitions: Sequence[int]) -> None:
            super().on_revoked(partitions)
            kept = [number for number in source.positions() if number not in partitions]
            source.pause([*partitions, *kept])
            for number in [*partitions, *kept]:
                source.resume_from(number, 10)

    first = Rewinding()
    with closing(topic.source()) as source, closing(topic.source()) as other:
        source.open(first)
        read(source, 40, 3)
        second = Listener(start=hold_all)
        other.open(second)
        taken = []
        deadline = time.monotonic() + 20.0
        while not second.assigned:
            assert time.monotonic() < deadline, "the second member got nothing"
            assert not len(other.poll(10, 0.05))
            polled = source.poll(1, 0.05)
            if first.revoked:
                taken += list(zip(polled.partitions.tolist(), polled.offsets.tolist(), strict=True))
        moved = second.assigned[0].partition
        kept = 1 - moved
        assert sorted(source.positions()) == [kept]
        taken += [record[:2] for record in read(source, half - 10 - len(taken))]
        assert taken == [(kept, offset) for offset in range(10, half)]
        assert not len(other.poll(10, 0.2))
        other.resume_from(kept, 0)  # not its own
        other.resume_from(moved, 3)
        assert [record[:2] for record in read(other, half - 3)] == [(moved, offset) for offset in range(3, half)]


def test_a_member_whose_partitions_are_all_paused_stays_in_its_group(kafka: KafkaCluster, topic: KafkaBackend) -> None:
    topic.settings = kafka.settings(session_timeout_s=1.0, max_poll_interval_s=1.5)
    topic.put(rows(20))
    listener = Listener(start=hold_all)
    with closing(topic.source()) as source:
        source.open(listener)
        poll_until(source, lambda: len(listener.assigned) == 2, "the assignment")
        started = time.monotonic()
        poll_until(source, lambda: time.monotonic() - started > 3.0, "three seconds")
        assert listener.lost == listener.revoked == []
        source.resume_from(0, 0)
        source.resume_from(1, 0)
        assert len(read(source, 20)) == 20


def test_a_group_resumes_at_its_committed_positions(topic: KafkaBackend) -> None:
    topic.put(rows(40))
    with closing(topic.source()) as source:
        source.open(Listener())
        read(source, 40)
        source.commit({0: 13, 1: 20})
    assert topic.cluster.committed(topic.settings.group_id, topic.topic) == {0: 13, 1: 20}
    listener = Listener()
    with closing(topic.source()) as source:
        source.open(listener)
        records = read(source, 7)
    assert {(a.partition, a.committed, a.end) for a in listener.assigned} == {(0, 13, 20), (1, 20, 20)}
    assert [(record.partition, record.offset) for record in records] == [(0, offset) for offset in range(13, 20)]


def test_closing_commits_nothing(topic: KafkaBackend) -> None:
    topic.put(rows(4))
    with closing(topic.source()) as source:
        source.open(Listener())
        read(source, 4)
    assert topic.cluster.committed(topic.settings.group_id, topic.topic) == {}


def test_keys_headers_and_empty_and_missing_values_arrive_as_they_were_sent(topic: KafkaBackend) -> None:
    values = [b"v", b"", None, b"\xff\xfe", b"x" * 1_000_000]
    keys = [b"k", None, b"tombstone", b"", b"big"]
    headers = [("reason", b"\x00\xff"), ("reason", b"again"), ("empty", b""), ("null", None)]
    topic.cluster.produce(topic.topic, values, keys, partition=0, headers=headers)
    with closing(topic.source()) as source:
        source.open(Listener())
        polled = source.poll(1, 5.0)
        while not len(polled):
            polled = source.poll(1, 5.0)
        assert list(polled.headers(0)) == headers
        assert abs(polled.timestamps_ms[0] / 1_000 - time.time()) < 600
        records = read(source, 4)
    assert [polled.values[0], *(record.value for record in records)] == values
    assert [polled.keys[0], *(record.key for record in records)] == keys


def test_records_of_aborted_transactions_are_skipped_and_the_position_ends_beyond_the_markers(
    topic: KafkaBackend,
) -> None:
    producer = Producer({"bootstrap.servers": topic.cluster.bootstrap_servers, "transactional.id": topic.topic})
    producer.init_transactions(10)
    for value, end in ((b"kept", producer.commit_transaction), (b"dropped", producer.abort_transaction)):
        producer.begin_transaction()
        producer.produce(topic.topic, value, partition=0)
        producer.flush(10)
        end(10)
    listener = Listener()
    with closing(topic.source()) as source:
        source.open(listener)
        assert [record.value for record in read(source, 1)] == [b"kept"]
        # The record, its commit marker, the dropped one, its abort marker: offsets 0 to 3.
        poll_until(source, lambda: source.positions()[0] == 4, "the position beyond the last marker")
    assert max(assignment.end for assignment in listener.assigned) == 4


def test_a_position_that_the_topic_no_longer_has_is_an_error(topic: KafkaBackend) -> None:
    topic.put(rows(40))
    topic.cluster.delete_records(topic.topic, 0, 10)
    listener = Listener(start=lambda _assignment: 3)
    with closing(topic.source()) as source:
        source.open(listener)
        with pytest.raises(TransportError, match=topic.topic):
            read(source, 40)
    assert {assignment.partition: assignment.beginning for assignment in listener.assigned} == {0: 10, 1: 0}


@pytest.mark.parametrize("client", CLIENTS)
def test_a_missing_topic_is_an_error_when_the_source_opens(kafka: KafkaCluster, client: str) -> None:
    with (
        closing(kafka_source(client, kafka.settings(), "no-such-topic")) as source,
        pytest.raises(TransportError, match=r"no-such-topic does not exist"),
    ):
        source.open(Listener())


@pytest.mark.parametrize("client", CLIENTS)
def test_a_broker_that_does_not_answer_is_an_error_that_names_it(kafka: KafkaCluster, client: str) -> None:
    settings = kafka.settings(bootstrap_servers="127.0.0.1:9", request_timeout_s=1.5)
    with (
        closing(kafka_source(client, settings, "any")) as source,
        pytest.raises(TransportError, match=r"127\.0\.0\.1:9.*kafka\.bootstrap_servers"),
    ):
        source.open(Listener())


# Sinks


class SinkCase:
    """A sink, and a way to read the records that it wrote."""

    def __init__(self, sink: Sink, cluster: KafkaCluster | None, where: dict[Channel, str]) -> None:
        self.sink = sink
        self._cluster = cluster
        self._where = where

    def written(self, channel: Channel) -> Sequence[bytes | None]:
        if self._cluster is None:  # a file without records gets its name at the end of the run
            path = Path(self._where[channel])
            return path.read_bytes().splitlines() if path.exists() else []
        return [record.value for record in self._cluster.read_all(self._where[channel])]


@pytest.fixture(params=["file", *_KAFKA])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SinkCase]:
    if request.param == "file":
        where = {channel: str(tmp_path / f"{channel.value}.jsonl") for channel in Channel}
        built = SinkCase(FileSink(where), None, where)
    else:
        cluster: KafkaCluster = request.getfixturevalue("kafka")
        where = {channel: cluster.create_topic(channel.value) for channel in Channel}
        built = SinkCase(kafka_sink(request.param, cluster.settings(), where), cluster, where)
    with closing(built.sink):
        yield built


def test_what_was_flushed_is_there_complete_and_in_order(case: SinkCase) -> None:
    values = [json.dumps({"n": n}).encode() for n in range(3_000)]
    for start in range(0, len(values), 250):
        chunk = values[start : start + 250]
        case.sink.publish(Channel.FORECASTS, Records([b"stream"] * len(chunk), chunk))
    case.sink.flush(10.0)
    assert case.written(Channel.FORECASTS) == values
    assert case.written(Channel.DEAD_LETTERS) == []


@pytest.mark.parametrize("client", CLIENTS)
def test_keys_keep_their_order_where_their_records_come_from_several_partitions(
    kafka: KafkaCluster, client: str
) -> None:
    where = {Channel.FORECASTS: kafka.create_topic("forecasts", 3)}
    rows = [(b"stream-%d" % (n % 23), b"%d" % n, n % 23 % 7) for n in range(3_000)]
    with closing(kafka_sink(client, kafka.settings(), where)) as sink:
        for start in range(0, len(rows), 250):
            keys, values, sources = zip(*sorted(rows[start : start + 250], key=itemgetter(2)), strict=True)
            sink.publish(Channel.FORECASTS, Records(keys, values, sources=np.array(sources)))
        sink.flush(10.0)
    found: dict[bytes | None, list[bytes | None]] = {}
    for record in kafka.read_all(where[Channel.FORECASTS]):
        found.setdefault(record.key, []).append(record.value)
    assert found == {key: [value for other, value, _ in rows if other == key] for key, _, _ in rows}


def test_records_go_to_the_partition_that_is_named(kafka: KafkaCluster) -> None:
    for client in CLIENTS:
        where = {Channel.STATE: kafka.create_topic("state", 3)}
        with closing(kafka_sink(client, kafka.settings(), where)) as sink:
            for number in (2, 0):
                sink.publish(Channel.STATE, Records([b"same", b"same"], [b"%d" % number, None]), partition=number)
            sink.flush(10.0)
        found = [(record.partition, record.value) for record in kafka.read_all(where[Channel.STATE])]
        assert found == [(0, b"0"), (0, None), (2, b"2"), (2, None)]


def test_publishing_and_flushing_nothing_is_fine(case: SinkCase) -> None:
    case.sink.publish(Channel.FORECASTS, Records([], []))
    case.sink.flush(5.0)
    assert case.written(Channel.FORECASTS) == []


def test_a_sink_may_be_closed_twice_and_then_refuses_records(case: SinkCase) -> None:
    case.sink.close()
    case.sink.close()
    with pytest.raises(TransportError):
        case.sink.publish(Channel.FORECASTS, Records([b"k"], [b"v"]))


@pytest.fixture(params=CLIENTS)
def kafka_case(request: pytest.FixtureRequest, kafka: KafkaCluster) -> Iterator[tuple[Sink, KafkaCluster, str]]:
    """A sink whose topic takes records of at most 10,000 bytes, although the client would send 1,000,000."""
    topic = kafka.create_topic("small", max_message_bytes=10_000)
    where = {Channel.FORECASTS: topic, Channel.DEAD_LETTERS: kafka.create_topic("dead")}
    with closing(kafka_sink(request.param, kafka.settings(max_message_bytes=1_000_000), where)) as sink:
        yield sink, kafka, topic


@pytest.mark.parametrize("size", [20_000, 1_500_000], ids=["refused by the broker", "refused by the client"])
def test_a_record_that_is_too_large_fails_the_flush_and_every_one_after_it(
    kafka_case: tuple[Sink, KafkaCluster, str], size: int
) -> None:
    sink, _, topic = kafka_case
    sink.publish(Channel.FORECASTS, Records([b"k"], [b"x" * size]))
    with pytest.raises(DeliveryError, match="1 published records were not delivered") as raised:
        sink.flush(10.0)
    assert f"topic {topic}, key 'k', {size + 93} bytes" in str(raised.value)
    assert "raise max.message.bytes of topic" in str(raised.value)
    with pytest.raises(DeliveryError):
        sink.publish(Channel.FORECASTS, Records([b"k"], [b"small"]))
    with pytest.raises(DeliveryError):
        sink.flush(10.0)


def test_headers_and_missing_values_are_published_as_given(kafka_case: tuple[Sink, KafkaCluster, str]) -> None:
    sink, cluster, topic = kafka_case
    headers = [[("reason", b"not_json"), ("raw", b"\xff")], []]
    sink.publish(Channel.FORECASTS, Records([b"a", b"b"], [b"", None], headers))
    sink.flush(10.0)
    first, second = cluster.read_all(topic)
    assert (first.key, first.value, list(first.headers)) == (b"a", b"", headers[0])
    assert (second.key, second.value, list(second.headers)) == (b"b", None, [])


def test_timestamps_are_published_as_given(kafka_case: tuple[Sink, KafkaCluster, str]) -> None:
    sink, cluster, topic = kafka_case
    now = time.time_ns() // 1_000_000
    sink.publish(Channel.FORECASTS, Records([b"a", b"b"], [b"1", b"2"], None, [now - 3_600_000, -1]))
    sink.flush(10.0)
    first, second = cluster.read_all(topic)
    assert first.timestamp_ms == now - 3_600_000
    assert now <= second.timestamp_ms < now + 60_000


@pytest.mark.parametrize("client", CLIENTS)
def test_the_first_records_of_a_new_topic_are_all_there(kafka: KafkaCluster, client: str) -> None:
    """With several requests in flight librdkafka silently lost the small records in one of fifteen new topics."""
    dead = kafka.create_topic("dead")
    values = [b"1", b"2", b"3", b"x" * 900_000]
    for _ in range(6):
        topic = kafka.create_topic("new")
        where = {Channel.FORECASTS: topic, Channel.DEAD_LETTERS: dead}
        with closing(kafka_sink(client, kafka.settings(), where)) as sink:
            sink.publish(Channel.FORECASTS, Records([b"k"] * len(values), values))
            sink.flush(10.0)
        assert [record.value for record in kafka.read_all(topic)] == values


@pytest.mark.parametrize("client", CLIENTS)
def test_a_missing_topic_is_an_error_when_the_sink_is_made(kafka: KafkaCluster, client: str) -> None:
    where = {Channel.FORECASTS: kafka.create_topic("there"), Channel.DEAD_LETTERS: "no-such-topic"}
    with pytest.raises(TransportError, match=r"topic no-such-topic does not exist"):
        kafka_sink(client, kafka.settings(), where)
