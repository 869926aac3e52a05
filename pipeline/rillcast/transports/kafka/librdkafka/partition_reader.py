"""A reader on librdkafka. See `rillcast.transports.kafka.common.partition_reader` for the contract.

The client's own position stands after the last record that it handed out, before any transaction marker or compacted
offset that follows. Only its end-of-partition report says where the next fetch begins, so that report decides whether a
partition has ended.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # the package does not list what it re-exports
    AdminClient,
    OffsetSpec,
)

from rillcast.errors import TransportError
from rillcast.settings import KafkaSettings
from rillcast.transports.base import Polled
from rillcast.transports.kafka.common import failures
from rillcast.transports.kafka.common.partition_reader import Reading
from rillcast.transports.kafka.librdkafka.config import connection_config, consumer_config, create
from rillcast.transports.kafka.librdkafka.errors import NOT_READY, TransientWarnings, is_permanent, refused
from rillcast.transports.kafka.librdkafka.lookup import watermarks
from rillcast.transports.kafka.librdkafka.messages import columns, take

log = logging.getLogger(__name__)


class LibrdkafkaPartitionReader:
    """Reads partitions of one topic that are assigned by hand."""

    def __init__(self, settings: KafkaSettings, topic: str, fetch_wait_ms: int) -> None:
        self._settings = settings
        self._topic = topic
        self._readings: dict[int, Reading] = {}
        self._asked: dict[int, Future[Any]] = {}  # for the ends of partitions
        self._ended: list[int] = []
        self._failure: TransportError | None = None
        self._warn = TransientWarnings(settings.bootstrap_servers)
        # The reader never joins the group that the configuration names, nor takes the name of its static member.
        config = consumer_config(settings.model_copy(update={"group_instance_id": None}), self._on_error)
        config |= {"fetch.wait.max.ms": fetch_wait_ms}
        del config["max.partition.fetch.bytes"]  # a page of state is large, and no order of partitions is better
        self._consumer: Consumer | None = create(lambda: Consumer(config, logger=log), "kafka reader settings")
        self._admin: AdminClient | None = None  # made by the first `read_to_end`

    def extent(self, partition: int) -> tuple[int, int]:
        """Ask for the earliest and the next offset."""
        deadline = time.monotonic() + self._settings.request_timeout_s
        try:
            return watermarks(self._live(), self._settings, TopicPartition(self._topic, partition), deadline)
        except KafkaException as error:
            raise refused(self._settings, self._topic, "asking for its extent", error) from error

    def offset_at(self, partition: int, timestamp_ms: int) -> int | None:
        """Ask for the offset at a time."""
        asked = TopicPartition(self._topic, partition, max(0, timestamp_ms))
        try:
            [found] = self._live().offsets_for_times([asked], timeout=self._settings.request_timeout_s)
            if found.error is not None:
                raise KafkaException(found.error)
        except KafkaException as error:
            raise refused(self._settings, self._topic, "asking for the offset at a time", error) from error
        return found.offset if found.offset not in (-1, OFFSET_END) else None

    def follow(self, partition: int, position: int) -> None:
        """Assign a partition at a position."""
        self._read(partition, Reading(position, to_end=False, patient_until=0.0), position)

    def read_to_end(self, partition: int) -> None:
        """Assign a partition at its beginning, and ask for its high watermark."""
        patient_until = time.monotonic() + self._settings.request_timeout_s
        self._read(partition, Reading(0, to_end=True, patient_until=patient_until), OFFSET_BEGINNING)
        self._ask_end(partition)

    def stop(self, partition: int) -> None:
        """Take a partition out of the assignment."""
        self._asked.pop(partition, None)
        if self._readings.pop(partition, None) is not None:
            self._live().incremental_unassign([TopicPartition(self._topic, partition)])

    def poll(self, max_records: int, timeout_s: float) -> Polled:
        """Return the records that are there."""
        if any(asked.done() for asked in self._asked.values()):
            timeout_s = 0.0  # this poll may complete a partition without any further record
        messages = take(self._live(), max_records, timeout_s)
        if self._failure is not None:
            raise self._failure
        records = [message for message in messages if self._takes(message)]
        self._take_ends()
        self._ended = [partition for partition, reading in self._readings.items() if reading.ended]
        for partition in self._ended:
            self.stop(partition)
        return columns(records)

    def ended(self) -> Sequence[int]:
        """Return the partitions that the last `poll` read to their end."""
        ended, self._ended = self._ended, []
        return ended

    def positions(self) -> Mapping[int, int]:
        """Return the offset that each partition is read from next."""
        return {partition: reading.position for partition, reading in self._readings.items()}

    def end(self, partition: int) -> int | None:
        """Return the offset at which a partition is complete, if the brokers have said it."""
        return self._readings[partition].end

    def close(self) -> None:
        """Close the consumer; the admin client ends with its last reference."""
        consumer, self._consumer = self._consumer, None
        self._admin = None
        self._readings.clear()
        self._asked.clear()
        if consumer is not None:
            consumer.close()

    def _live(self) -> Consumer:
        if self._consumer is None:
            raise TransportError(f"kafka reader of {self._topic} is closed")
        return self._consumer

    def _read(self, partition: int, reading: Reading, at: int) -> None:
        self.stop(partition)
        self._live().incremental_assign([TopicPartition(self._topic, partition, at)])
        self._readings[partition] = reading

    def _takes(self, message: Message) -> bool:
        """Note what a message says about its partition, and return whether it is a record to hand out."""
        error, partition, offset = message.error(), message.partition(), message.offset()
        reading = None if partition is None else self._readings.get(partition)
        if error is not None and error.code() != KafkaError._PARTITION_EOF:
            self._raise_or_warn(error, reading)
        elif reading is not None and offset is not None and offset >= reading.position:
            reading.position = offset if error is not None else offset + 1
            return error is None
        return False

    def _ask_end(self, partition: int) -> None:
        if self._admin is None:
            config = connection_config(self._settings, self._on_error)
            self._admin = create(lambda: AdminClient(config), "kafka admin settings")
        # read_uncommitted asks for the high watermark; a read_committed consumer would get the last stable offset.
        futures = self._admin.list_offsets(
            {TopicPartition(self._topic, partition): OffsetSpec.latest()},  # type: ignore[no-untyped-call]
            isolation_level=IsolationLevel.READ_UNCOMMITTED,
            request_timeout=self._settings.request_timeout_s,
        )
        self._asked[partition] = next(iter(futures.values()))

    def _take_ends(self) -> None:
        for partition, asked in list(self._asked.items()):
            if not asked.done():
                continue
            reading = self._readings[partition]
            try:
                reading.end = asked.result().offset
                del self._asked[partition]
            except KafkaException as error:
                if error.args[0].code() not in NOT_READY or time.monotonic() >= reading.patient_until:
                    raise refused(self._settings, self._topic, "asking for the end of a partition", error) from error
                self._refresh_metadata()
                self._ask_end(partition)

    def _refresh_metadata(self) -> None:
        """Let both clients hear of partitions that were added just now; by themselves they ask much later."""
        assert self._admin is not None  # it was asked
        try:
            for client in (self._admin, self._live()):
                client.list_topics(self._topic, timeout=self._settings.request_timeout_s)
        except KafkaException as error:
            self._warn(error.args[0])

    def _raise_or_warn(self, error: KafkaError, reading: Reading | None = None) -> None:
        patient = error.code() in NOT_READY and reading is not None and time.monotonic() < reading.patient_until
        if is_permanent(error) and (error.fatal() or not patient):
            raise failures.refused(self._settings.bootstrap_servers, self._topic, "reading a partition", error)
        self._warn(error)

    def _on_error(self, error: KafkaError) -> None:
        try:
            self._raise_or_warn(error)
        except TransportError as failure:  # no exception may cross the C library: poll() raises it
            self._failure = failure
