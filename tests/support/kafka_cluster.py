"""What tests do with a running Kafka: make topics with names of their own, fill them, read them, look at groups.

Owns: one admin client and one producer for the session. Does not know: where the broker came from
(`tests.support.kafka_broker`, or `RILLCAST_TEST_BOOTSTRAP`). Everything that waits has a deadline.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple, TypeVar

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions, NewTopic

from rillcast.settings import KafkaSettings
from rillcast.transports.base import Headers
from rillcast.transports.kafka.common.retries import retry_until
from tests.support.broker_clock import BrokerClock
from tests.support.kafka_broker import KafkaBroker, running_broker
from tests.support.kafka_replicas import KafkaReplicas, running_replicas
from tests.support.toxiproxy import Toxiproxy

T = TypeVar("T")

_TIMEOUT_S: Final = 20.0
_PATIENCE_S: Final = 120.0  # with a broker that does not answer in time, because the machine is busy
# What a broker answers that has just been started.
_NOT_READY: Final = (
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.NOT_CONTROLLER,
    KafkaError.BROKER_NOT_AVAILABLE,
    KafkaError.INVALID_REPLICATION_FACTOR,  # its controller has not heard of it yet
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError.UNSTABLE_OFFSET_COMMIT,
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._TIMED_OUT,
)
_LOG_LEVEL: Final = 2  # of the test's own clients: nothing short of critical


class Record(NamedTuple):
    """A record as it lies in a topic."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    timestamp_ms: int = -1


class KafkaCluster:
    """A broker to test against, or several (`replicas`): each topic is on all of them."""

    def __init__(
        self,
        bootstrap_servers: str,
        broker: KafkaBroker | None = None,
        replicas: KafkaReplicas | None = None,
        proxies: Toxiproxy | None = None,
    ) -> None:
        self.bootstrap_servers = bootstrap_servers
        self.broker = broker  # None: it is not ours to restart
        self.replicas = replicas
        self.proxies = proxies  # between clients and replicas; not used by this class
        self._admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": _LOG_LEVEL})
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap_servers,
                "log_level": _LOG_LEVEL,
                "partitioner": "murmur2_random",
                "message.max.bytes": 2_000_000,
                "queue.buffering.max.messages": 1_000_000,
                "enable.idempotence": True,
                "max.in.flight.requests.per.connection": 1,  # see rillcast.transports.kafka.librdkafka
            }
        )

    def create_topic(self, prefix: str = "topic", partitions: int = 1, **config: object) -> str:
        """Create a topic with a name of its own and return the name. `max_message_bytes=1` is `max.message.bytes`."""
        name = unique(prefix)
        settings = {key.replace("_", "."): str(value) for key, value in config.items()}
        copies = 1 if self.replicas is None else len(self.replicas.ids)
        topic = NewTopic(name, num_partitions=partitions, replication_factor=copies, config=settings)
        answered(lambda: self._create(topic))

        def listed() -> None:
            if name not in self._admin.list_topics(timeout=_TIMEOUT_S).topics:
                raise TimeoutError(f"topic {name} was created but is not listed")

        answered(listed)
        return name

    def _create(self, topic: NewTopic) -> None:
        """Create a topic. One that is there already was created by a request whose answer came too late."""
        try:
            self._admin.create_topics([topic], operation_timeout=_TIMEOUT_S)[topic.topic].result(_TIMEOUT_S)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise

    def delete_records(self, topic: str, partition: int, before: int) -> None:
        """Drop the records of `partition` below the offset `before`, as retention would."""

        def delete() -> None:
            for each in self._admin.delete_records([TopicPartition(topic, partition, before)]).values():
                each.result(_TIMEOUT_S)

        answered(delete)

    def add_partitions(self, topic: str, partitions: int) -> None:
        """Let the topic have this many partitions."""
        self._admin.create_partitions([NewPartitions(topic, partitions)])[topic].result(_TIMEOUT_S)
        deadline = time.monotonic() + _TIMEOUT_S
        while len(self._producer.list_topics(topic, timeout=_TIMEOUT_S).topics[topic].partitions) < partitions:
            assert time.monotonic() < deadline, f"the broker does not list {partitions} partitions of {topic}"
            time.sleep(0.05)

    def produce(
        self,
        topic: str,
        values: Sequence[bytes | None],
        keys: Sequence[bytes | None] | None = None,
        partition: int | None = None,
        headers: Headers | None = None,
        timestamps_ms: Sequence[int] | None = None,
    ) -> None:
        """Append `values` and wait until the broker has them all; without `timestamps_ms` they are of now."""
        failures: list[object] = []

        def on_delivery(error: object, _message: Message) -> None:
            if error is not None:
                failures.append(error)

        extra: dict[str, Any] = {} if partition is None else {"partition": partition}
        if headers is not None:
            extra["headers"] = list(headers)
        for index, value in enumerate(values):
            key = None if keys is None else keys[index]
            if index % 10_000 == 0:
                self._producer.flush(_TIMEOUT_S)  # or librdkafka's queue, which holds 100,000, is full
            if timestamps_ms is not None:
                extra["timestamp"] = timestamps_ms[index]
            self._producer.produce(topic, value, key, on_delivery=on_delivery, **extra)
        pending = self._producer.flush(_TIMEOUT_S)
        assert not failures, f"the test's own records failed: {failures[0]}"
        assert not pending, f"{pending} of the test's own records were not acknowledged"

    def read_all(self, topic: str, *, committed: bool = True) -> list[Record]:
        """Return every record that is in the topic now, or those of transactions that were committed.

        In order of partition and offset. Committed records behind the first open transaction are not seen either.
        """
        consumer = self._reader("read_committed" if committed else "read_uncommitted")
        try:
            ends: dict[int, int] = {}
            for number in _partitions(consumer, topic):
                low, high = _watermarks(consumer, topic, number)
                if high > low:
                    ends[number] = high
            consumer.assign([TopicPartition(topic, number, 0) for number in ends])
            return sorted(_read_to(consumer, topic, ends), key=lambda record: record[:2])
        finally:
            consumer.close()

    def committed(self, group: str, topic: str) -> dict[int, int]:
        """Return the group's committed positions by partition; a partition without one is left out.

        Those of a transaction that is ending are waited for. Asked by a consumer that never joins the group: the
        admin client of librdkafka 2.16 crashes the process when the answer is that the coordinator has moved.
        """
        consumer = self._reader("read_committed", group)
        try:
            asked = [TopicPartition(topic, number) for number in _partitions(consumer, topic)]
            found = answered(lambda: consumer.committed(asked, timeout=_TIMEOUT_S))
        finally:
            consumer.close()
        return {each.partition: each.offset for each in found if each.offset >= 0}

    def members(self, group: str) -> int:
        """Return how many members the group has."""
        return answered(
            lambda: len(self._admin.describe_consumer_groups([group])[group].result(_TIMEOUT_S).members),
        )

    def settings(self, **changes: object) -> KafkaSettings:
        """Return client settings for this broker with a group of its own, changed as asked."""
        values: dict[str, object] = {
            "bootstrap_servers": self.bootstrap_servers,
            "group_id": unique("group"),
            "session_timeout_s": 6.0,
            "request_timeout_s": 10.0,
        }
        return KafkaSettings.model_validate(values | changes)

    def close(self) -> None:
        """Drop the clients, before the broker goes: they would complain that it is away."""
        self._producer.close()
        del self._admin

    def _reader(self, isolation_level: str, group: str | None = None) -> Consumer:
        return Consumer(
            {
                "bootstrap.servers": self.bootstrap_servers,
                "log_level": _LOG_LEVEL,
                "group.id": group or unique("reader"),
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "isolation.level": isolation_level,
                "enable.partition.eof": True,
                "fetch.queue.backoff.ms": 5,
                "fetch.wait.max.ms": 10,  # the end of a partition is only heard of after it
            }
        )


@contextmanager
def restartable_cluster(clock: BrokerClock | None = None) -> Iterator[KafkaCluster]:
    """A broker of one's own, to be killed under transactions: its controller goes on. `clock` is the broker's alone."""
    with running_broker(own_controller=True, environment=None if clock is None else clock.environment) as broker:
        cluster = KafkaCluster(broker.bootstrap_servers, broker)
        try:
            yield cluster
        finally:
            cluster.close()


@contextmanager
def replicated_cluster() -> Iterator[KafkaCluster]:
    """Three brokers of one's own, each topic on all of them."""
    with running_replicas() as replicas:
        cluster = KafkaCluster(replicas.bootstrap_servers, replicas=replicas)
        try:
            yield cluster
        finally:
            cluster.close()


def unique(prefix: str) -> str:
    """Return a name that no other test has."""
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


def answered(ask: Callable[[], T]) -> T:
    """Return the answer to a request of the test's own, repeating it while the broker is not ready or not in time.

    Raises:
        TimeoutError: There was no answer for two minutes.
        KafkaException: The broker refuses, or was not ready for two minutes.
    """
    return retry_until(time.monotonic() + _PATIENCE_S, ask, _may_pass)


def _may_pass(error: Exception) -> bool:
    if isinstance(error, KafkaException):
        return error.args[0].code() in _NOT_READY
    return isinstance(error, TimeoutError)


def _partitions(consumer: Consumer, topic: str) -> Sequence[int]:
    return answered(lambda: list(consumer.list_topics(topic, timeout=_TIMEOUT_S).topics[topic].partitions))


def _watermarks(consumer: Consumer, topic: str, number: int) -> tuple[int, int]:
    """Return beginning and end; just after a restart of the broker the partition has no leader yet."""

    def ask() -> tuple[int, int]:
        found = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=_TIMEOUT_S)
        if found is None:
            raise TimeoutError(f"no answer about partition {number} of {topic}")
        return found

    return answered(ask)


def _read_to(consumer: Consumer, topic: str, ends: dict[int, int]) -> Iterable[Record]:
    """Yield records until every partition has reported its end; what has to come in time is the next of them."""
    remaining = set(ends)
    deadline = time.monotonic() + _TIMEOUT_S
    while remaining:
        messages = consumer.consume(10_000, 0.05)
        if messages:
            deadline = time.monotonic() + _TIMEOUT_S
        assert time.monotonic() < deadline, f"partitions {sorted(remaining)} of {topic} did not end"
        for message in messages:
            partition, offset, error = message.partition(), message.offset(), message.error()
            assert partition is not None
            assert offset is not None
            if error is not None:
                assert error.code() == error._PARTITION_EOF, f"reading {topic}: {error}"
                remaining.discard(partition)
                continue
            headers: Any = message.headers()
            sent = message.timestamp()[1]
            yield Record(partition, offset, message.key(), message.value(), tuple(headers or ()), sent)
