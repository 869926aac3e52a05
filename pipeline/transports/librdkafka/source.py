"""The source on librdkafka: one member of a consumer group.

Owns: the consumer, which partitions it has, and where each is read. Does not know: what is in a record.

Invariants: no position is ever guessed (`auto.offset.reset=error`: the listener names every start, and a position
that the topic no longer has is an error, not a silent jump); a record of a partition that is no longer owned is
never handed out.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from confluent_kafka import OFFSET_INVALID, Consumer, KafkaError, KafkaException, Message, TopicPartition

from pipeline.errors import TransportError
from pipeline.settings import KafkaSettings
from pipeline.transports import kafka_errors
from pipeline.transports.base import Assignment, AssignmentListener, Headers, Polled
from pipeline.transports.librdkafka.config import consumer_config, create, require_topics
from pipeline.transports.librdkafka.errors import PERMANENT, REBALANCING, TransientWarnings, as_transport_error

log = logging.getLogger(__name__)

_COMMIT_RETRY_S: Final = 0.05


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
        self._warn = TransientWarnings(settings.bootstrap_servers)

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
        consumer = create(
            lambda: Consumer(consumer_config(self._settings, self._on_error), logger=log), "kafka consumer settings"
        )
        self._consumer = consumer
        require_topics(consumer, self._settings, [self._topic])
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
            if errors[0].code() in REBALANCING:
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
            elif error.fatal() or error.code() in PERMANENT:
                raise kafka_errors.refused(
                    self._settings.bootstrap_servers, self._topic, f"reading as group {self._settings.group_id}", error
                )
            else:
                self._warn(error)
        return records

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal() or error.code() in PERMANENT:
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
            self._failure = self._failure or as_transport_error(error, self._settings, self._topic)
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
                self._failure = self._failure or as_transport_error(error, self._settings, self._topic)
        for number in numbers:
            self._owned.pop(number, None)
        consumer.incremental_unassign(partitions)


def _headers(message: Message) -> Headers:
    """Return the headers as the contract has them; Kafka's null header is an empty one."""
    fields: Any = message.headers()  # typed as a list or a dict for the producer's sake; a consumer returns a list
    return [(name, value or b"") for name, value in fields or ()]
