"""Kafka source and sink on librdkafka (the `confluent-kafka` package): the fast client.

Owns: the consumer, the producer and their configuration. Does not know: what is in a record. Needs the extra
`rillcast[librdkafka]`; import it through `pipeline.transports.connect`, which says so when it is missing.

Invariants: no position is ever guessed (`auto.offset.reset=error`: the listener names every start, and a position
that the topic no longer has is an error, not a silent jump); a record of a partition that is no longer owned is
never handed out; a sink that lost one record stays broken.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from confluent_kafka import (
    OFFSET_INVALID,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)

from pipeline.errors import SettingsError, TransportError
from pipeline.settings import KafkaSettings
from pipeline.transports import kafka_errors
from pipeline.transports.base import Assignment, AssignmentListener, Channel, Headers, Polled

log = logging.getLogger(__name__)

_FETCH_QUEUE_BACKOFF_MS: Final = 5  # the default, 1000, was seen to stall a fast reader for most of a second
# With more than one request in flight the idempotent producer loses records without a word (seen with 2.16.0 and Kafka
# 4.3.1 on new topics): the first batch is refused because the leader is not ready, the second is taken, for the broker
# accepts any first sequence number, and the first, sent again, counts as a duplicate. One in flight is no slower here.
_MAX_IN_FLIGHT: Final = 1
_COMMIT_RETRY_S: Final = 0.05
_BACK_PRESSURE_S: Final = 0.05
_WARNING_INTERVAL_S: Final = 10.0
_LOG_LEVEL: Final = 2  # critical: everything below comes through the error callback as well

# Errors that the client would retry for ever although only a person can mend them.
_PERMANENT: Final = frozenset(
    {
        KafkaError._AUTHENTICATION,
        KafkaError._SSL,
        KafkaError._FATAL,
        KafkaError._FENCED,
        KafkaError._AUTO_OFFSET_RESET,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.OFFSET_OUT_OF_RANGE,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.FENCED_INSTANCE_ID,
        KafkaError.INCONSISTENT_GROUP_PROTOCOL,
        KafkaError.INVALID_SESSION_TIMEOUT,
        KafkaError.UNSUPPORTED_VERSION,
    }
)
# A commit that meets a rebalance. The broker answers it only after the JoinGroup that waits on the same connection, so
# it comes with the generation before. Trying again in the new one is safe: in a cooperative group nobody else gets a
# partition before this member has given it up. A member that is out of its group gets UNKNOWN_MEMBER_ID instead.
_REBALANCING: Final = frozenset({KafkaError.REBALANCE_IN_PROGRESS, KafkaError.ILLEGAL_GENERATION})


class _TransientWarnings:
    """Logs errors that the client retries by itself; one that repeats, as at each reconnection, every ten seconds."""

    def __init__(self, bootstrap_servers: str) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._next: dict[int, float] = {}

    def __call__(self, error: KafkaError) -> None:
        now = time.monotonic()
        if now >= self._next.get(error.code(), now):
            self._next[error.code()] = now + _WARNING_INTERVAL_S
            log.warning("kafka %s: %s; retrying", self._bootstrap_servers, error)


class LibrdkafkaSource:
    """One member of a consumer group on one topic. See `pipeline.transports.base.Source` for the contract."""

    def __init__(self, settings: KafkaSettings, topic: str) -> None:
        self._settings = settings
        self._topic = topic
        self._consumer: Consumer | None = None
        self._listener: AssignmentListener | None = None
        self._owned: dict[int, int] = {}  # partition -> position
        self._failure: BaseException | None = None
        self._closing = False
        self._revocations = 0
        self._warn = _TransientWarnings(settings.bootstrap_servers)

    @property
    def name(self) -> str:
        """The topic."""
        return self._topic

    @property
    def exhausted(self) -> bool:
        """Never: a topic has no end."""
        return False

    def open(self, listener: AssignmentListener) -> None:
        """Join the group.

        Raises:
            SettingsError: the client refuses its configuration.
            TransportError: no broker answers, or the topic does not exist.
        """
        self._listener = listener
        consumer = _create(
            lambda: Consumer(consumer_config(self._settings, self._on_error), logger=log), "kafka consumer settings"
        )
        self._consumer = consumer
        _require_topics(consumer, self._settings, [self._topic])
        consumer.subscribe([self._topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost)

    def poll(self, max_records: int, timeout_s: float) -> Polled:
        """Return what is there, waiting at most `timeout_s` for a first record.

        Raises:
            TransportError: the cluster refuses this member for good (topic gone, not authorised, position gone).
        """
        consumer = self._live()
        self._raise_failure()
        deadline = time.monotonic() + timeout_s
        messages: list[Message] = []
        revocations = self._revocations
        while not messages:
            messages = consumer.consume(max_records, 0)
            if not messages:
                # consume() would wait for a full batch or the whole time-out; poll() returns with the first record.
                first = consumer.poll(max(0.0, deadline - time.monotonic()))
                if first is not None:
                    messages = [first]
                    if max_records > 1:
                        messages += consumer.consume(max_records - 1, 0)
            self._raise_failure()
            if any(message.error() is not None for message in messages):
                messages = self._without_reports(messages)
            if self._revocations != revocations:
                messages = [message for message in messages if message.partition() in self._owned]
            if time.monotonic() >= deadline:
                break
        return self._columns(messages)

    def commit(self, positions: Mapping[int, int]) -> None:
        """Commit `positions` for the group and wait for the answer; a rebalance that is under way is waited for.

        Raises:
            TransportError: they are not durable.
        """
        if not positions:
            return
        consumer = self._live()
        offsets = [TopicPartition(self._topic, partition, offset) for partition, offset in positions.items()]
        started = time.monotonic()
        while True:
            try:
                results = consumer.commit(offsets=offsets, asynchronous=False)
                errors = [result.error for result in results or () if result.error is not None]
            except KafkaException as error:
                errors = [error.args[0]]
            if not errors:
                return
            patience_s = 0.0
            if errors[0].code() in _REBALANCING:
                patience_s = self._settings.max_poll_interval_s
            elif errors[0].retriable():
                patience_s = self._settings.request_timeout_s
            if time.monotonic() - started >= patience_s:
                raise kafka_errors.not_committed(
                    self._settings.bootstrap_servers, self._topic, self._settings.group_id, errors[0]
                )
            time.sleep(_COMMIT_RETRY_S)

    def positions(self) -> Mapping[int, int]:
        """Return the offset that each owned partition is read from next."""
        return dict(self._owned)

    def lag(self) -> Mapping[int, int]:
        """Return the offsets between position and end by partition, from what the last fetches said."""
        consumer = self._live()
        lags: dict[int, int] = {}
        for partition, position in self._owned.items():
            _, end = consumer.get_watermark_offsets(TopicPartition(self._topic, partition), cached=True)
            if end != OFFSET_INVALID:
                lags[partition] = max(0, end - position)
        return lags

    def close(self) -> None:
        """Leave the group (a static member stays in it until its session ends) without committing."""
        self._closing = True
        consumer, self._consumer = self._consumer, None
        self._owned.clear()
        if consumer is not None:
            consumer.close()

    def _live(self) -> Consumer:
        if self._consumer is None:
            raise TransportError(f"kafka source {self._topic} is not open")
        return self._consumer

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _columns(self, messages: Sequence[Message]) -> Polled:
        count = len(messages)
        partitions = np.fromiter((message.partition() for message in messages), np.int64, count)
        offsets = np.fromiter((message.offset() for message in messages), np.int64, count)
        for partition, offset in dict(zip(partitions.tolist(), offsets.tolist(), strict=True)).items():
            self._advance(partition, offset + 1)
        return Polled(
            partitions=partitions,
            offsets=offsets,
            timestamps_ms=np.fromiter((message.timestamp()[1] for message in messages), np.int64, count),
            keys=[message.key() for message in messages],
            values=[message.value() for message in messages],
            headers=lambda index: _headers(messages[index]),
        )

    def _advance(self, partition: int, position: int) -> None:
        if position > self._owned.get(partition, position):
            self._owned[partition] = position

    def _without_reports(self, messages: Sequence[Message]) -> list[Message]:
        """Take the client's own reports out from among the records; raise on one that does not pass by itself."""
        records: list[Message] = []
        for message in messages:
            error = message.error()
            if error is None:
                records.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                # Says where the next fetch begins: beyond transaction markers and compacted records.
                partition, position = message.partition(), message.offset()
                if partition is not None and position is not None:
                    self._advance(partition, position)
            elif error.fatal() or error.code() in _PERMANENT:
                raise kafka_errors.refused(
                    self._settings.bootstrap_servers, self._topic, f"reading as group {self._settings.group_id}", error
                )
            else:
                self._warn(error)
        return records

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal() or error.code() in _PERMANENT:
            self._failure = kafka_errors.refused(self._settings.bootstrap_servers, self._topic, "reading", error)
        else:
            self._warn(error)

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        if self._closing or not partitions:
            consumer.incremental_assign(partitions)
            return
        try:
            starts = self._start_positions(consumer, partitions)
        except BaseException as error:  # noqa: BLE001  no exception may cross the C library: poll() raises it
            self._failure = self._failure or _as_transport_error(error, self._settings, self._topic)
            consumer.incremental_assign([])
            return
        consumer.incremental_assign([TopicPartition(self._topic, p, start) for p, start in starts.items()])
        self._owned.update(starts)

    def _start_positions(self, consumer: Consumer, partitions: list[TopicPartition]) -> dict[int, int]:
        assert self._listener is not None  # noqa: S101  subscribed by open(), which set it
        timeout_s = self._settings.request_timeout_s
        assignments = []
        for committed in consumer.committed(partitions, timeout=timeout_s):
            if committed.error is not None:
                raise KafkaException(committed.error)
            watermarks = consumer.get_watermark_offsets(committed, timeout=timeout_s)
            if watermarks is None:
                raise kafka_errors.unreachable(self._settings.bootstrap_servers, timeout_s, "offsets of a partition")
            position = committed.offset if committed.offset >= 0 else None
            assignments.append(Assignment(committed.partition, position, *watermarks))
        starts = self._listener.on_assigned(assignments)
        return {assignment.partition: starts[assignment.partition] for assignment in assignments}

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._release(consumer, partitions, lost=False)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._release(consumer, partitions, lost=True)

    def _release(self, consumer: Consumer, partitions: list[TopicPartition], *, lost: bool) -> None:
        self._revocations += 1
        numbers = [partition.partition for partition in partitions if partition.partition in self._owned]
        if numbers and not self._closing and self._listener is not None:
            try:
                (self._listener.on_lost if lost else self._listener.on_revoked)(numbers)
            except BaseException as error:  # noqa: BLE001  as above
                self._failure = self._failure or _as_transport_error(error, self._settings, self._topic)
        for number in numbers:
            self._owned.pop(number, None)
        consumer.incremental_unassign(partitions)


class LibrdkafkaSink:
    """An idempotent producer. See `pipeline.transports.base.Sink` for the contract.

    A failure is not forgotten: after one lost record every `publish` and `flush` raises.
    """

    def __init__(self, settings: KafkaSettings, topics: Mapping[Channel, str]) -> None:
        self._settings = settings
        self._topics = dict(topics)
        self._failed = 0
        self._first_failure: object = None
        self._warn = _TransientWarnings(settings.bootstrap_servers)
        self._producer: Producer | None = _create(
            lambda: Producer(producer_config(settings, self._on_delivery, self._on_error), logger=log),
            "kafka producer settings",
        )
        _require_topics(self._producer, settings, self._topics.values())

    def publish(
        self,
        channel: Channel,
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        headers: Sequence[Headers] | None = None,
    ) -> None:
        """Queue one record per row; a full queue holds the caller back until there is room.

        Raises:
            TransportError: an earlier record was lost or the producer is closed.
        """
        producer = self._live()
        self._raise_failure()
        topic = self._topics[channel]
        if headers is None:
            for key, value in zip(keys, values, strict=True):
                try:
                    producer.produce(topic, value, key)
                except (BufferError, KafkaException) as error:
                    self._produce_slowly(error, topic, value, key, ())
        else:
            for key, value, fields in zip(keys, values, headers, strict=True):
                try:
                    producer.produce(topic, value, key, headers=list(fields))
                except (BufferError, KafkaException) as error:
                    self._produce_slowly(error, topic, value, key, fields)
        producer.poll(0)

    def flush(self, timeout_s: float) -> None:
        """Wait until the brokers have everything.

        Raises:
            DeliveryError: a record failed, or the time is up.
        """
        pending = self._live().flush(timeout_s)
        self._raise_failure()
        if pending:
            raise kafka_errors.not_in_time(self._settings.bootstrap_servers, pending, timeout_s)

    def close(self) -> None:
        """Drop what was not flushed and let go of the connections."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.purge()
            producer.flush(0)  # serves the reports of what was purged
            producer.close()

    def _live(self) -> Producer:
        if self._producer is None:
            raise TransportError(f"kafka sink {sorted(self._topics.values())} is closed")
        return self._producer

    def _raise_failure(self) -> None:
        if self._failed:
            raise kafka_errors.not_delivered(self._settings.bootstrap_servers, self._failed, self._first_failure)

    def _produce_slowly(
        self, error: Exception, topic: str, value: bytes | None, key: bytes | None, headers: Headers
    ) -> None:
        """Produce a record that was refused once: wait for room in the queue, or note that it is lost."""
        producer = self._live()
        while isinstance(error, BufferError):
            producer.poll(_BACK_PRESSURE_S)
            self._raise_failure()
            try:
                producer.produce(topic, value, key, headers=list(headers))
            except (BufferError, KafkaException) as again:
                error = again
            else:
                return
        self._note_failure(f"{error.args[0]} (topic {topic}, {len(value or b'')} bytes)")

    def _note_failure(self, reason: object) -> None:
        self._failed += 1
        if self._first_failure is None:
            self._first_failure = reason

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        """Hear of failed records only (`delivery.report.only.error`): a call per record would cost 2 us each."""
        if error is not None and self._producer is not None:
            self._note_failure(f"{error} (topic {message.topic()})")

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal() or error.code() in _PERMANENT:
            self._note_failure(error)
        else:
            self._warn(error)


def consumer_config(settings: KafkaSettings, on_error: Callable[[KafkaError], None]) -> dict[str, Any]:
    """Return the consumer's configuration in librdkafka's names."""
    config = _connection_config(settings, on_error) | {
        "group.id": settings.group_id,
        "partition.assignment.strategy": "cooperative-sticky",
        "auto.offset.reset": "error",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "enable.partition.eof": True,
        "isolation.level": "read_committed",
        "allow.auto.create.topics": False,
        "session.timeout.ms": _ms(settings.session_timeout_s),
        "heartbeat.interval.ms": min(3_000, max(1, _ms(settings.session_timeout_s) // 3)),
        "max.poll.interval.ms": _ms(settings.max_poll_interval_s),
        "fetch.max.bytes": settings.max_fetch_bytes,
        "message.max.bytes": min(settings.max_fetch_bytes, settings.max_message_bytes),
        "receive.message.max.bytes": settings.max_fetch_bytes + 1_000_000,
        "fetch.queue.backoff.ms": _FETCH_QUEUE_BACKOFF_MS,
    }
    if settings.group_instance_id is not None:
        config["group.instance.id"] = settings.group_instance_id
    return config


def producer_config(
    settings: KafkaSettings,
    on_delivery: Callable[[KafkaError | None, Message], None],
    on_error: Callable[[KafkaError], None],
) -> dict[str, Any]:
    """Return the producer's configuration in librdkafka's names."""
    return _connection_config(settings, on_error) | {
        "enable.idempotence": True,
        "acks": "all",
        "max.in.flight.requests.per.connection": _MAX_IN_FLIGHT,
        "partitioner": "murmur2_random",  # as Java and kafka-python: one key, one partition, whoever writes
        "compression.type": settings.compression,
        "message.max.bytes": settings.max_message_bytes,
        "delivery.report.only.error": True,
        "on_delivery": on_delivery,
    }


def _connection_config(settings: KafkaSettings, on_error: Callable[[KafkaError], None]) -> dict[str, Any]:
    config: dict[str, Any] = {
        "bootstrap.servers": settings.bootstrap_servers,
        "client.id": "rillcast",
        "security.protocol": settings.security_protocol,
        "socket.timeout.ms": _ms(settings.request_timeout_s),
        "error_cb": on_error,
        "log_level": _LOG_LEVEL,
    }
    if settings.security_protocol.startswith("SASL"):
        config["sasl.mechanism"] = settings.sasl_mechanism
        config["sasl.username"] = settings.sasl_username or ""
        config["sasl.password"] = settings.sasl_password.get_secret_value() if settings.sasl_password else ""
    files = {
        "ssl.ca.location": settings.ssl_ca_file,
        "ssl.certificate.location": settings.ssl_certificate_file,
        "ssl.key.location": settings.ssl_key_file,
    }
    return config | {key: str(path) for key, path in files.items() if path is not None}


def _create(make: Callable[[], Any], what: str) -> Any:
    try:
        return make()
    except (KafkaException, TypeError, ValueError) as error:
        cause = error.args[0] if error.args else error
        raise SettingsError(f"{what} were refused by librdkafka: {cause}") from error


def _require_topics(client: Consumer | Producer, settings: KafkaSettings, topics: Iterable[str]) -> None:
    """Ask for all topics, for asking by name may create one."""
    try:
        present = client.list_topics(timeout=settings.request_timeout_s).topics
    except KafkaException as error:
        cause = error.args[0]
        raise kafka_errors.unreachable(settings.bootstrap_servers, settings.request_timeout_s, cause) from error
    if missing := set(topics) - set(present):
        raise kafka_errors.missing_topics(settings.bootstrap_servers, missing)


def _as_transport_error(error: BaseException, settings: KafkaSettings, topic: str) -> BaseException:
    """Return `error`, or if it is the client's own, what it means for the source."""
    if isinstance(error, KafkaException):
        wrapped = kafka_errors.refused(settings.bootstrap_servers, topic, "taking over partitions", error.args[0])
        wrapped.__cause__ = error
        return wrapped
    return error


def _headers(message: Message) -> Headers:
    """Return the headers as the contract has them; Kafka's null header is an empty one."""
    fields: Any = message.headers()  # typed as a list or a dict for the producer's sake; a consumer returns a list
    return [(name, value or b"") for name, value in fields or ()]


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1_000))
