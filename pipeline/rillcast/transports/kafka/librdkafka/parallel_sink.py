"""Several producers side by side, so that the records of one partition do not wait for those of another.

librdkafka puts the records of one partition into a request, and a producer that keeps its order has one request in
flight on each connection (`workarounds.MAX_IN_FLIGHT`). One producer would therefore write the partitions of a broker
one after the other: with four of them a forecast waited for five round trips on average. Here the records of a
partition of the source always go through the same producer, which keeps their order; others have other connections.

Owns: the producers, and which one takes a record. Does not know: what is in a record, transactions.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

from rillcast.arrays import rows_of_each
from rillcast.settings import KafkaSettings
from rillcast.transports.base import Channel, Records
from rillcast.transports.kafka.common.record_size import Limits
from rillcast.transports.kafka.librdkafka.sink import LibrdkafkaSink

_PRODUCERS: Final = 4
"""Most producers. Each has threads, and a connection to every broker."""


class LibrdkafkaParallelSink:
    """See `rillcast.transports.base.Sink` for the contract.

    After one lost record every `publish` and `flush` raises.
    """

    def __init__(self, settings: KafkaSettings, topics: Mapping[Channel, str], limits: Limits) -> None:
        """Connect the first producer; the others follow when a partition needs them.

        Raises:
            SettingsError: The client refuses its configuration.
            TransportError: No broker answers, or a topic does not exist.
        """
        self._settings, self._topics, self._limits = settings, topics, limits
        self._first = LibrdkafkaSink(settings, topics, limits)
        self._producers: dict[int, LibrdkafkaSink] = {0: self._first}

    def largest_record(self, channel: Channel) -> int | None:
        """Return what the topic takes, as far as it is known, and the client."""
        return self._first.largest_record(channel)

    def publish(self, channel: Channel, records: Records, partition: int | None = None) -> None:
        """Queue the records; wait while the queue is full.

        Raises:
            TransportError: An earlier record was lost, or the sink is closed.
        """
        for producer in self._producers.values():
            producer.raise_failure()
        if records.sources is None:
            self._first.publish(channel, records, partition)
            return
        for source, rows in rows_of_each(records.sources):
            self._producer(source % _PRODUCERS).publish(channel, records.take(rows), partition)

    def flush(self, timeout_s: float) -> None:
        """Wait until the brokers have everything.

        Raises:
            DeliveryError: A record failed, or the time is up.
        """
        deadline = time.monotonic() + timeout_s
        for producer in self._producers.values():
            producer.flush(max(0.0, deadline - time.monotonic()))

    def close(self) -> None:
        """Drop records that were not flushed, and close the connections."""
        for producer in self._producers.values():
            producer.close()

    def _producer(self, number: int) -> LibrdkafkaSink:
        if (producer := self._producers.get(number)) is None:
            producer = self._producers[number] = LibrdkafkaSink(self._settings, self._topics, self._limits)
        return producer
