"""The state topic on kafka-python: a reader outside of any group, and the admin client.

Owns: these two clients. Does not know: keys, pages, or what the topic has to be.

kafka-python's position passes transaction markers and compacted offsets by itself, so it is what is judged.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import (
    KafkaError,
    KafkaTimeoutError,
    LeaderNotAvailableError,
    NotLeaderForPartitionError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
)
from kafka.protocol.consumer import OffsetSpec

from rillcast.errors import TransportError
from rillcast.settings import KafkaSettings
from rillcast.stores.kafka import Read, StoredRecord
from rillcast.transports.kafka.common import failures
from rillcast.transports.kafka.kafka_python.config import connection_config, consumer_config, create
from rillcast.transports.kafka.kafka_python.fetching import read_compacted

_MAX_RECORDS: Final = 64
_FETCH_WAIT_MS: Final = 20  # the broker holds a fetch at the end this long (default 500) before it says that it is one
_OFFSETS_WAIT_MS: Final = 100
# What brokers answer of a topic that was made just now, until its leaders are known everywhere.
_NOT_READY: Final = (UnknownTopicOrPartitionError, LeaderNotAvailableError, NotLeaderForPartitionError)


class KafkaPythonTopicReader:
    """See `rillcast.stores.kafka.TopicReader`."""

    def __init__(self, settings: KafkaSettings, topic: str) -> None:
        self._settings = settings
        self._topic = topic
        self._ends: dict[int, int | None] = {}  # partition -> position at which it is complete; None = not asked yet
        self._positions: dict[int, int] = {}
        self._patience_until = 0.0
        config = consumer_config(settings) | {
            "group_id": None,
            "group_instance_id": None,
            "auto_offset_reset": "earliest",
            "fetch_max_wait_ms": _FETCH_WAIT_MS,
        }
        self._consumer: Any = create(settings, "state reader", lambda: KafkaConsumer(**config))
        read_compacted(self._consumer)
        self._admin = create(settings, "admin client", lambda: KafkaAdminClient(**connection_config(settings)))

    def begin(self, partition: int) -> None:
        """Assign the partition from its beginning."""
        self.cancel(partition)
        self._ends[partition] = None
        self._patience_until = time.monotonic() + self._settings.request_timeout_s
        self._assign()
        with _errors(self._settings, self._topic, "reading the state"):
            self._consumer.seek_to_beginning(self._key(partition))

    def cancel(self, partition: int) -> None:
        """Take the partition out of the assignment."""
        if partition in self._ends:
            del self._ends[partition]
            self._positions.pop(partition, None)
            self._assign()

    def poll(self, timeout_s: float) -> Read:
        """Return what came; see `TopicReader.poll`."""
        with _errors(self._settings, self._topic, "reading the state"):
            self._take_ends()
            fetched = self._consumer.poll(timeout_ms=round(timeout_s * 1_000), max_records=_MAX_RECORDS)
            self._take_positions()
        records = [
            StoredRecord(each.partition, record.offset, record.key, record.value)
            for each, batch in fetched.items()
            for record in batch
        ]
        complete = [
            partition
            for partition, end in self._ends.items()
            if end is not None and self._positions.get(partition, -1) >= end
        ]
        for partition in complete:
            self.cancel(partition)
        return Read(records, complete)

    def position(self, partition: int) -> str:
        """Say where the reading stands."""
        return f"at {self._positions.get(partition, 'an unknown position')}, to {self._ends[partition]}"

    def close(self) -> None:
        """Close both clients."""
        consumer, self._consumer = self._consumer, None
        self._ends.clear()
        if consumer is not None:
            consumer.close(autocommit=False, timeout_ms=self._settings.request_timeout_s * 1_000)
            self._admin.close()

    def _key(self, partition: int) -> TopicPartition:
        return TopicPartition(self._topic, partition)

    def _assign(self) -> None:
        """Assign all that is being read; the client keeps the positions of what stays."""
        if self._consumer is None:
            raise TransportError(f"kafka state reader of {self._topic} is closed")
        self._consumer.assign([self._key(partition) for partition in self._ends])

    def _take_ends(self) -> None:
        unknown = {self._key(p): OffsetSpec.LATEST for p, end in self._ends.items() if end is None}
        if unknown:
            # Of the admin client, which asks read_uncommitted: the high watermark, not the last stable offset.
            try:
                ends = self._admin.list_partition_offsets(unknown)
            except _NOT_READY:
                if time.monotonic() > self._patience_until:
                    raise
                return
            for each, found in ends.items():
                self._ends[each.partition] = found.offset

    def _take_positions(self) -> None:
        for partition in self._ends:
            with contextlib.suppress(KafkaTimeoutError):  # the offset of the beginning is still asked for
                position = self._consumer.position(self._key(partition), timeout_ms=_OFFSETS_WAIT_MS)
                if position is not None:
                    self._positions[partition] = position


class KafkaPythonTopicAdmin:
    """See `rillcast.stores.state_topic.TopicAdmin`."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._admin = create(settings, "admin client", lambda: KafkaAdminClient(**connection_config(settings)))

    def partitions(self, topic: str) -> int | None:
        """Return the number of partitions; None = there is no such topic."""
        with _errors(self._settings, topic, "listing topics"):
            # All topics: asking by name may create one.
            found = {each["name"]: len(each["partitions"]) for each in self._admin.describe_topics()}
        return found.get(topic)

    def config(self, topic: str) -> Mapping[str, str]:
        """Return the topic's configuration."""
        resource = ConfigResource(ConfigResourceType.TOPIC, topic)
        with _errors(self._settings, topic, "describing its configuration"):
            described = self._admin.describe_configs([resource], config_filter="all")
        return {name: entry["value"] for name, entry in described["topic"][topic].items()}

    def create(self, topic: str, partitions: int, config: Mapping[str, str]) -> None:
        """Make the topic and wait until it is there."""
        options = {"num_partitions": partitions, "replication_factor": -1, "configs": dict(config)}
        with _errors(self._settings, topic, "making it"):
            try:
                self._admin.create_topics({topic: options}, wait_for_metadata=True)
            except TopicAlreadyExistsError:  # another member was quicker
                self._admin.wait_for_topics([topic])

    def close(self) -> None:
        """Close the client."""
        self._admin.close()


@contextlib.contextmanager
def _errors(settings: KafkaSettings, topic: str, doing: str) -> Iterator[None]:
    """Raise the client's errors as what they mean for a store."""
    try:
        yield
    except KafkaTimeoutError as error:
        raise failures.unreachable(settings.bootstrap_servers, settings.request_timeout_s, error) from error
    except KafkaError as error:
        raise failures.refused(settings.bootstrap_servers, topic, doing, error) from error
