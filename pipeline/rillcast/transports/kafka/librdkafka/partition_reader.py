"""A history on librdkafka. See `rillcast.transports.kafka.common.partition_reader.History` for the contract."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, Message, TopicPartition

from rillcast.errors import TransportError
from rillcast.settings import KafkaSettings
from rillcast.transports.base import Polled
from rillcast.transports.kafka.common import failures
from rillcast.transports.kafka.librdkafka.config import consumer_config, create, require_topics
from rillcast.transports.kafka.librdkafka.errors import PERMANENT, TransientWarnings
from rillcast.transports.kafka.librdkafka.source import columns

log = logging.getLogger(__name__)


class LibrdkafkaPartitionReader:
    """Reads partitions of one topic that are assigned by hand."""

    def __init__(self, settings: KafkaSettings, topic: str) -> None:
        self._settings = settings
        self._topic = topic
        self._positions: dict[int, int] = {}
        self._failure: TransportError | None = None
        self._warn = TransientWarnings(settings.bootstrap_servers)
        # It never joins the group that the configuration names, nor takes the name of the member that does.
        config = consumer_config(settings.model_copy(update={"group_instance_id": None}), self._on_error)
        self._consumer: Consumer | None = create(lambda: Consumer(config, logger=log), "kafka history settings")
        require_topics(self._consumer, settings, [topic])

    def beginning(self, partition: int) -> int:
        """Ask for the earliest offset."""
        try:
            watermarks = self._live().get_watermark_offsets(
                TopicPartition(self._topic, partition), timeout=self._settings.request_timeout_s
            )
        except KafkaException as error:
            raise self._refused("asking for the beginning", error.args[0]) from error
        if watermarks is None:
            raise failures.unreachable(
                self._settings.bootstrap_servers, self._settings.request_timeout_s, "offsets of a partition"
            )
        return watermarks[0]

    def offset_at(self, partition: int, timestamp_ms: int) -> int | None:
        """Ask for the offset at a time."""
        try:
            [found] = self._live().offsets_for_times(
                [TopicPartition(self._topic, partition, max(0, timestamp_ms))], timeout=self._settings.request_timeout_s
            )
        except KafkaException as error:
            raise self._refused("asking for the offset at a time", error.args[0]) from error
        if found.error is not None:
            raise self._refused("asking for the offset at a time", found.error)
        return found.offset if found.offset not in (-1, OFFSET_END) else None

    def start(self, partition: int, position: int) -> None:
        """Assign a partition at a position."""
        self.stop(partition)
        self._live().incremental_assign([TopicPartition(self._topic, partition, position)])
        self._positions[partition] = position

    def stop(self, partition: int) -> None:
        """Take a partition out of the assignment."""
        if self._positions.pop(partition, None) is not None:
            self._live().incremental_unassign([TopicPartition(self._topic, partition)])

    def poll(self, max_records: int, timeout_s: float) -> Polled:
        """Return what is there."""
        consumer = self._live()
        first = consumer.poll(timeout_s)
        messages = [] if first is None else [first, *consumer.consume(max_records - 1, 0)]
        if self._failure is not None:
            raise self._failure
        records: list[Message] = []
        for message in messages:
            error, partition, offset = message.error(), message.partition(), message.offset()
            at = None if partition is None else self._positions.get(partition)
            if error is not None and error.code() != KafkaError._PARTITION_EOF:
                if error.fatal() or error.code() in PERMANENT:
                    raise self._refused("reading history", error)
                self._warn(error)
            elif partition is not None and offset is not None and at is not None and offset >= at:
                # The end-of-partition report says where the next fetch begins: beyond markers and compacted records.
                self._positions[partition] = offset if error is not None else offset + 1
                if error is None:
                    records.append(message)
        return columns(records)

    def positions(self) -> Mapping[int, int]:
        """Return where each partition is read next."""
        return dict(self._positions)

    def close(self) -> None:
        """Close the consumer."""
        consumer, self._consumer = self._consumer, None
        self._positions.clear()
        if consumer is not None:
            consumer.close()

    def _live(self) -> Consumer:
        if self._consumer is None:
            raise TransportError(f"kafka history of {self._topic} is closed")
        return self._consumer

    def _refused(self, doing: str, error: KafkaError) -> TransportError:
        return failures.refused(self._settings.bootstrap_servers, self._topic, doing, error)

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal() or error.code() in PERMANENT:
            self._failure = self._refused("reading history", error)
        else:
            self._warn(error)
