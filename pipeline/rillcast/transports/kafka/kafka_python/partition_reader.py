"""A history on kafka-python. See `rillcast.transports.kafka.common.partition_reader.History` for the contract."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError, KafkaTimeoutError

from rillcast.errors import TransportError
from rillcast.settings import KafkaSettings
from rillcast.transports.base import Polled
from rillcast.transports.kafka.common import failures
from rillcast.transports.kafka.kafka_python.config import consumer_config, create, require_topics
from rillcast.transports.kafka.kafka_python.fetching import read_compacted
from rillcast.transports.kafka.kafka_python.source import columns

_POSITION_WAIT_MS: Final = 100


class KafkaPythonPartitionReader:
    """Reads partitions of one topic that are assigned by hand."""

    def __init__(self, settings: KafkaSettings, topic: str) -> None:
        self._settings = settings
        self._topic = topic
        self._positions: dict[int, int] = {}
        require_topics(settings, [topic])
        config = consumer_config(settings) | {"group_id": None, "group_instance_id": None}
        self._consumer: Any = create(settings, "history reader", lambda: KafkaConsumer(**config))
        read_compacted(self._consumer)

    def beginning(self, partition: int) -> int:
        """Ask for the earliest offset."""
        key = self._key(partition)
        with self._errors("asking for the beginning"):
            return int(self._live().beginning_offsets([key], timeout_ms=self._timeout_ms)[key])

    def offset_at(self, partition: int, timestamp_ms: int) -> int | None:
        """Ask for the offset at a time."""
        key = self._key(partition)
        with self._errors("asking for the offset at a time"):
            found = self._live().offsets_for_times({key: max(0, timestamp_ms)}, timeout_ms=self._timeout_ms)[key]
        return None if found is None else int(found.offset)

    def start(self, partition: int, position: int) -> None:
        """Assign a partition at a position."""
        self._live()
        self._positions[partition] = position
        self._assign()
        self._consumer.seek(self._key(partition), position)

    def stop(self, partition: int) -> None:
        """Take a partition out of the assignment."""
        if self._positions.pop(partition, None) is not None:
            self._assign()

    def poll(self, max_records: int, timeout_s: float) -> Polled:
        """Return what is there."""
        consumer = self._live()
        if not self._positions:
            return Polled.empty()
        with self._errors("reading history"):
            fetched = consumer.poll(timeout_ms=round(timeout_s * 1_000), max_records=max_records)
            for partition in self._positions:
                with contextlib.suppress(KafkaTimeoutError):  # it is being asked for
                    position = consumer.position(self._key(partition), timeout_ms=_POSITION_WAIT_MS)
                    self._positions[partition] = max(self._positions[partition], position or 0)
        return columns([record for records in fetched.values() for record in records])

    def positions(self) -> Mapping[int, int]:
        """Return where each partition is read next."""
        return dict(self._positions)

    def close(self) -> None:
        """Close the consumer."""
        consumer, self._consumer = self._consumer, None
        self._positions.clear()
        if consumer is not None:
            consumer.close(autocommit=False, timeout_ms=self._timeout_ms)

    @property
    def _timeout_ms(self) -> float:
        return self._settings.request_timeout_s * 1_000

    def _key(self, partition: int) -> TopicPartition:
        return TopicPartition(self._topic, partition)

    def _assign(self) -> None:
        """Assign all that is being read; the client keeps the positions of what stays."""
        self._live().assign([self._key(partition) for partition in self._positions])

    def _live(self) -> Any:
        if self._consumer is None:
            raise TransportError(f"kafka history of {self._topic} is closed")
        return self._consumer

    @contextlib.contextmanager
    def _errors(self, doing: str) -> Iterator[None]:
        try:
            yield
        except KafkaTimeoutError as error:
            raise failures.unreachable(
                self._settings.bootstrap_servers, self._settings.request_timeout_s, error
            ) from error
        except KafkaError as error:
            raise failures.refused(self._settings.bootstrap_servers, self._topic, doing, error) from error
