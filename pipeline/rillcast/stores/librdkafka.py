"""The state topic on librdkafka: a reader outside of any group, and the admin client.

Owns: these two clients. Does not know: keys, pages, or what the topic has to be.

librdkafka's own position stands after the last record that it handed out, before any transaction marker or compacted
offset that follows. Where the next fetch begins is told by its end-of-partition report alone, so that is what is
judged.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # the package does not list what it re-exports
    AdminClient,
    ConfigResource,
    OffsetSpec,
    ResourceType,
)
from confluent_kafka.cimpl import NewTopic

from rillcast.errors import TransportError
from rillcast.settings import KafkaSettings
from rillcast.stores.kafka import Read, StoredRecord
from rillcast.transports.kafka.common import failures
from rillcast.transports.kafka.librdkafka.config import connection_config, consumer_config, create
from rillcast.transports.kafka.librdkafka.errors import PERMANENT, TransientWarnings

log = logging.getLogger(__name__)

_MAX_RECORDS: Final = 64
_FETCH_WAIT_MS: Final = 20  # the broker holds a fetch at the end this long (default 500) before it says that it is one
_METADATA_POLL_S: Final = 0.05
# What brokers answer of a topic that was made, or whose leader came back, just now, until that is known everywhere.
_NOT_READY: Final = frozenset(
    {
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError._UNKNOWN_TOPIC,
    }
)


@dataclass(slots=True)
class _Span:
    """How far a partition is read, and how far it has to be."""

    asked: Future[Any]
    patience_until: float
    position: int = 0
    end: int | None = None

    @property
    def complete(self) -> bool:
        return self.end is not None and self.position >= self.end


class LibrdkafkaTopicReader:
    """See `rillcast.stores.kafka.TopicReader`."""

    def __init__(self, settings: KafkaSettings, topic: str) -> None:
        self._settings = settings
        self._topic = topic
        self._warn = TransientWarnings(settings.bootstrap_servers)
        self._failure: TransportError | None = None
        self._spans: dict[int, _Span] = {}
        # It never joins the group that the configuration names: partitions are assigned by hand, nothing is committed.
        config = consumer_config(settings, self._on_error) | {"fetch.wait.max.ms": _FETCH_WAIT_MS}
        self._consumer: Consumer | None = create(lambda: Consumer(config, logger=log), "kafka state reader settings")
        self._admin = create(lambda: AdminClient(connection_config(settings, self._on_error)), "kafka admin settings")

    def begin(self, partition: int) -> None:
        """Assign the partition from its beginning, and ask for its high watermark."""
        self.cancel(partition)
        self._spans[partition] = _Span(self._ask_end(partition), time.monotonic() + self._settings.request_timeout_s)
        self._live().incremental_assign([TopicPartition(self._topic, partition, OFFSET_BEGINNING)])

    def cancel(self, partition: int) -> None:
        """Take the partition out of the assignment."""
        if self._spans.pop(partition, None) is not None:
            self._live().incremental_unassign([TopicPartition(self._topic, partition)])

    def poll(self, timeout_s: float) -> Read:
        """Return what came; see `TopicReader.poll`."""
        consumer = self._live()
        if any(span.end is None and span.asked.done() for span in self._spans.values()):
            timeout_s = 0.0  # this poll may complete a partition without any further record
        first = consumer.poll(timeout_s)
        messages = [] if first is None else [first, *consumer.consume(_MAX_RECORDS - 1, 0)]
        if self._failure is not None:
            raise self._failure
        records: list[StoredRecord] = []
        for message in messages:
            partition, offset, error = message.partition(), message.offset(), message.error()
            if error is not None and error.code() != KafkaError._PARTITION_EOF:
                self._raise_or_warn(error, self._spans.get(partition) if partition is not None else None)
            elif partition in self._spans and offset is not None:
                self._spans[partition].position = offset if error is not None else offset + 1
                if error is None:
                    records.append(StoredRecord(partition, offset, message.key(), message.value()))
        self._take_ends()
        complete = [partition for partition, span in self._spans.items() if span.complete]
        for partition in complete:
            self.cancel(partition)
        return Read(records, complete)

    def position(self, partition: int) -> str:
        """Say where the reading stands."""
        span = self._spans[partition]
        return f"at {span.position}, to {'an unknown end' if span.end is None else span.end}"

    def close(self) -> None:
        """Close the consumer."""
        consumer, self._consumer = self._consumer, None
        self._spans.clear()
        if consumer is not None:
            consumer.close()

    def _live(self) -> Consumer:
        if self._consumer is None:
            raise TransportError(f"kafka state reader of {self._topic} is closed")
        return self._consumer

    def _ask_end(self, partition: int) -> Future[Any]:
        at = TopicPartition(self._topic, partition)
        # read_uncommitted: the high watermark, where a read_committed consumer would be told the last stable offset.
        futures = self._admin.list_offsets(
            {at: OffsetSpec.latest()},  # type: ignore[no-untyped-call]
            isolation_level=IsolationLevel.READ_UNCOMMITTED,
            request_timeout=self._settings.request_timeout_s,
        )
        return next(iter(futures.values()))

    def _take_ends(self) -> None:
        for partition, span in self._spans.items():
            if span.end is None and span.asked.done():
                try:
                    span.end = span.asked.result().offset
                except KafkaException as error:
                    if error.args[0].code() in _NOT_READY and time.monotonic() < span.patience_until:
                        span.asked = self._ask_end(partition)
                        continue
                    raise _refused(self._settings, self._topic, "asking for the end of the state", error) from error

    def _raise_or_warn(self, error: KafkaError, span: _Span | None = None) -> None:
        patient = error.code() in _NOT_READY and span is not None and time.monotonic() < span.patience_until
        if error.fatal() or (error.code() in PERMANENT and not patient):
            raise failures.refused(self._settings.bootstrap_servers, self._topic, "reading the state", error)
        self._warn(error)

    def _on_error(self, error: KafkaError) -> None:
        try:
            self._raise_or_warn(error)
        except TransportError as failure:  # no exception may cross the C library: poll() raises it
            self._failure = failure


class LibrdkafkaTopicAdmin:
    """See `rillcast.stores.state_topic.TopicAdmin`."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        warn = TransientWarnings(settings.bootstrap_servers)
        self._admin = create(lambda: AdminClient(connection_config(settings, warn)), "kafka admin settings")

    def partitions(self, topic: str) -> int | None:
        """Return the number of partitions; None = there is no such topic."""
        try:
            topics = self._admin.list_topics(timeout=self._settings.request_timeout_s).topics
        except KafkaException as error:
            raise failures.unreachable(
                self._settings.bootstrap_servers, self._settings.request_timeout_s, error.args[0]
            ) from error
        return len(topics[topic].partitions) if topic in topics else None

    def config(self, topic: str) -> Mapping[str, str]:
        """Return the topic's configuration."""
        resource = ConfigResource(ResourceType.TOPIC, topic)
        future = self._admin.describe_configs([resource], request_timeout=self._settings.request_timeout_s)[resource]
        try:
            return {name: entry.value for name, entry in future.result().items()}
        except KafkaException as error:
            raise _refused(self._settings, topic, "describing its configuration", error) from error

    def create(self, topic: str, partitions: int, config: Mapping[str, str]) -> None:
        """Make the topic and wait until it is listed."""
        new = NewTopic(topic, num_partitions=partitions, replication_factor=-1, config=dict(config))
        timeout_s = self._settings.request_timeout_s
        future = self._admin.create_topics([new], operation_timeout=timeout_s, request_timeout=timeout_s)[topic]
        try:
            future.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:  # else another member was quicker
                raise _refused(self._settings, topic, "making it", error) from error
        deadline = time.monotonic() + timeout_s
        while self.partitions(topic) is None:
            if time.monotonic() > deadline:
                raise failures.missing_topics(self._settings.bootstrap_servers, [topic])
            time.sleep(_METADATA_POLL_S)

    def close(self) -> None:
        """Nothing to do: the client ends with its last reference."""


def _refused(settings: KafkaSettings, topic: str, doing: str, error: KafkaException) -> TransportError:
    return failures.refused(settings.bootstrap_servers, topic, doing, error.args[0])
