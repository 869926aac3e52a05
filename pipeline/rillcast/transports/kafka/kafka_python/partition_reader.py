"""A reader on kafka-python. See `rillcast.transports.kafka.common.partition_reader` for the contract.

The client's position passes transaction markers and compacted offsets by itself, so it decides whether a partition has
ended.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.errors import KafkaTimeoutError
from kafka.protocol.consumer import OffsetSpec

from rillcast.errors import TransportError
from rillcast.settings import KafkaSettings
from rillcast.transports.base import Polled
from rillcast.transports.kafka.common.partition_reader import Reading
from rillcast.transports.kafka.kafka_python.config import connection_config, consumer_config, create
from rillcast.transports.kafka.kafka_python.errors import NOT_READY, as_transport_errors
from rillcast.transports.kafka.kafka_python.source import columns
from rillcast.transports.kafka.kafka_python.workarounds import read_compacted

_POSITION_WAIT_MS: Final = 100


class KafkaPythonPartitionReader:
    """Reads partitions of one topic that are assigned by hand."""

    def __init__(self, settings: KafkaSettings, topic: str, fetch_wait_ms: int) -> None:
        self._settings = settings
        self._topic = topic
        self._readings: dict[int, Reading] = {}
        self._ended: list[int] = []
        config = consumer_config(settings)
        fetch_wait_ms = min(fetch_wait_ms, config["fetch_max_wait_ms"])
        config |= {"group_id": None, "group_instance_id": None, "fetch_max_wait_ms": fetch_wait_ms}
        del config["max_partition_fetch_bytes"]  # a page of state is large, and no order of partitions is better
        self._consumer: Any = create(settings, "partition reader", lambda: KafkaConsumer(**config))
        read_compacted(self._consumer)
        self._admin: Any = None  # connected by the first `read_to_end`

    def extent(self, partition: int) -> tuple[int, int]:
        """Ask for the earliest and the next offset."""
        key, wait_ms = self._key(partition), self._timeout_ms
        with as_transport_errors(self._settings, self._topic, "asking for its extent"):
            beginning = self._live().beginning_offsets([key], timeout_ms=wait_ms)[key]
            return int(beginning), int(self._live().end_offsets([key], timeout_ms=wait_ms)[key])

    def offset_at(self, partition: int, timestamp_ms: int) -> int | None:
        """Ask for the offset at a time."""
        key = self._key(partition)
        with as_transport_errors(self._settings, self._topic, "asking for the offset at a time"):
            found = self._live().offsets_for_times({key: max(0, timestamp_ms)}, timeout_ms=self._timeout_ms)[key]
        return None if found is None else int(found.offset)

    def follow(self, partition: int, position: int) -> None:
        """Assign a partition at a position."""
        self._read(partition, Reading(position, to_end=False, patient_until=0.0))
        self._live().seek(self._key(partition), position)

    def read_to_end(self, partition: int) -> None:
        """Assign a partition at its beginning; the next `poll` asks for its end."""
        if self._admin is None:
            self._admin = create(
                self._settings, "admin client", lambda: KafkaAdminClient(**connection_config(self._settings))
            )
        patient_until = time.monotonic() + self._settings.request_timeout_s
        self._read(partition, Reading(0, to_end=True, patient_until=patient_until))
        with as_transport_errors(self._settings, self._topic, "reading a partition"):
            self._live().seek_to_beginning(self._key(partition))

    def stop(self, partition: int) -> None:
        """Take a partition out of the assignment."""
        if self._readings.pop(partition, None) is not None:
            self._assign()

    def poll(self, max_records: int, timeout_s: float) -> Polled:
        """Return the records that are there."""
        consumer = self._live()
        if not self._readings:
            return Polled.empty()
        with as_transport_errors(self._settings, self._topic, "reading a partition"):
            self._take_ends()
            fetched = consumer.poll(timeout_ms=round(timeout_s * 1_000), max_records=max_records)
            self._take_positions(consumer)
        self._ended = [partition for partition, reading in self._readings.items() if reading.ended]
        for partition in self._ended:
            self.stop(partition)
        return columns([record for records in fetched.values() for record in records])

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
        """Close both clients."""
        consumer, self._consumer = self._consumer, None
        admin, self._admin = self._admin, None
        self._readings.clear()
        if consumer is not None:
            consumer.close(autocommit=False, timeout_ms=self._timeout_ms)
        if admin is not None:
            admin.close()

    @property
    def _timeout_ms(self) -> float:
        return self._settings.request_timeout_s * 1_000

    def _key(self, partition: int) -> TopicPartition:
        return TopicPartition(self._topic, partition)

    def _read(self, partition: int, reading: Reading) -> None:
        self.stop(partition)
        self._readings[partition] = reading
        self._assign()

    def _assign(self) -> None:
        """Assign all that is being read; the client keeps the positions of partitions that stay."""
        self._live().assign([self._key(partition) for partition in self._readings])

    def _live(self) -> Any:
        if self._consumer is None:
            raise TransportError(f"kafka reader of {self._topic} is closed")
        return self._consumer

    def _take_ends(self) -> None:
        unknown = {partition: each for partition, each in self._readings.items() if each.to_end and each.end is None}
        if not unknown:
            return
        try:
            # The admin client asks read_uncommitted: it gets the high watermark, not the last stable offset.
            ends = self._admin.list_partition_offsets({self._key(p): OffsetSpec.LATEST for p in unknown})
        except NOT_READY:
            if time.monotonic() > max(reading.patient_until for reading in unknown.values()):
                raise
            return
        for key, found in ends.items():
            unknown[key.partition].end = found.offset

    def _take_positions(self, consumer: Any) -> None:
        for partition, reading in self._readings.items():
            with contextlib.suppress(KafkaTimeoutError):  # the client is still asking for it
                position = consumer.position(self._key(partition), timeout_ms=_POSITION_WAIT_MS)
                reading.position = max(reading.position, position or 0)
