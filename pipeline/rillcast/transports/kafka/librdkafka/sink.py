"""The sink on librdkafka: a producer that keeps its order, idempotent within transactions.

Owns: the producer. Does not know: what is in a record. Invariant: a sink that lost one record stays broken.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from itertools import repeat
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from rillcast.errors import TransportError
from rillcast.settings import KafkaSettings
from rillcast.transports.base import Channel, Headers, Records, record_bytes, required_topics
from rillcast.transports.kafka.common import failures
from rillcast.transports.kafka.common.ledger import FailureLedger
from rillcast.transports.kafka.common.record_size import Limits, described
from rillcast.transports.kafka.librdkafka.config import create, producer_config, require_topics
from rillcast.transports.kafka.librdkafka.errors import REJECTED, TransientWarnings, is_permanent

log = logging.getLogger(__name__)

_BACK_PRESSURE_S: Final = 0.05
_BY_KEY: Final = -1  # librdkafka's RD_KAFKA_PARTITION_UA: the partitioner decides
_NOW: Final = 0  # librdkafka's timestamp of a record that is given none


def _is_new_partition(error: Exception) -> bool:
    return isinstance(error, KafkaException) and error.args[0].code() == KafkaError._UNKNOWN_PARTITION


class LibrdkafkaSink:
    """A producer that keeps its order. See `rillcast.transports.base.Sink` for the contract.

    After one lost record every `publish` and `flush` raises.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        topics: Mapping[Channel, str],
        limits: Limits,
        transactional_id: str | None = None,
    ) -> None:
        self._settings = settings
        self._topics = dict(topics)
        self._limits = limits
        self._ledger = FailureLedger(settings.bootstrap_servers)
        self._warn = TransientWarnings(settings.bootstrap_servers)
        config = producer_config(settings, self._on_delivery, self._on_error, limits, transactional_id)
        self._producer: Producer | None = create(lambda: Producer(config, logger=log), "kafka producer settings")
        require_topics(self._producer, settings, required_topics(self._topics))

    @property
    def rejected(self) -> bool:
        """Whether a record was refused for its content (too large, not allowed) and would be refused again."""
        return self._ledger.rejected

    def raise_failure(self) -> None:
        """Raise if a record was lost.

        Raises:
            DeliveryError: At least one was.
        """
        self._ledger.raise_failure()

    def largest_record(self, channel: Channel) -> int | None:
        """Return what the topic takes, as far as it is known, and the client."""
        return self._limits.get(channel, self._settings.max_message_bytes)

    def publish(self, channel: Channel, records: Records, partition: int | None = None) -> None:
        """Queue the records; wait while the queue is full.

        Raises:
            TransportError: An earlier record was lost, or the producer is closed.
        """
        producer = self._live()
        self._ledger.raise_failure()
        topic = self._topics[channel]
        to = _BY_KEY if partition is None else partition
        if records.headers is None and records.timestamps_ms is None:
            for key, value in zip(records.keys, records.values, strict=True):
                try:
                    producer.produce(topic, value, key, to)
                except (BufferError, KafkaException) as error:
                    self._produce_slowly(error, topic, value, key, to, (), _NOW)
        else:
            n = len(records)
            headers: Iterable[Headers] = records.headers if records.headers is not None else repeat((), n)
            times: Iterable[int] = records.timestamps_ms if records.timestamps_ms is not None else repeat(_NOW, n)
            for key, value, fields, time_ms in zip(records.keys, records.values, headers, times, strict=True):
                at = max(_NOW, time_ms)
                try:
                    producer.produce(topic, value, key, to, timestamp=at, headers=list(fields))
                except (BufferError, KafkaException) as error:
                    self._produce_slowly(error, topic, value, key, to, fields, at)
        self._serve(lambda: producer.poll(0))

    def flush(self, timeout_s: float) -> None:
        """Wait until the brokers have everything.

        Raises:
            DeliveryError: A record failed, or the time is up.
        """
        producer = self._live()
        pending = self._serve(lambda: producer.flush(timeout_s))
        self._ledger.raise_failure()
        if pending:
            raise failures.not_in_time(self._settings.bootstrap_servers, pending, timeout_s)

    def close(self) -> None:
        """Drop records that were not flushed, and close the connections."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.purge()
            producer.flush(0)  # serves the reports about purged records
            producer.close()

    def _live(self) -> Producer:
        if self._producer is None:
            raise TransportError(f"kafka sink {sorted(self._topics.values())} is closed")
        return self._producer

    def _serve(self, call: Callable[[], int]) -> int:
        """Make a call that runs the client's callbacks; whichever runs first after a fatal error raises that error."""
        try:
            return call()
        except KafkaException as error:
            self._note(error.args[0], error.args[0])
            raise self._ledger.error() from error

    def _produce_slowly(
        self, error: Exception, topic: str, value: bytes | None, key: bytes | None, to: int, headers: Headers, at: int
    ) -> None:
        """Produce a record that was refused once: wait for room or its partition, or note that it is lost."""
        producer = self._live()
        deadline = time.monotonic() + self._settings.request_timeout_s
        while isinstance(error, BufferError) or (_is_new_partition(error) and time.monotonic() < deadline):
            if not isinstance(error, BufferError):  # the topic has grown, and this client has not heard of it
                producer.list_topics(topic, timeout=self._settings.request_timeout_s)
            producer.poll(_BACK_PRESSURE_S)
            self._ledger.raise_failure()
            try:
                producer.produce(topic, value, key, to, timestamp=at, headers=list(headers))
            except (BufferError, KafkaException) as again:
                error = again.with_traceback(None)  # else this frame would hold it, and it the frame
            else:
                return
        cause = error.args[0]
        self._note_record(cause, topic, key, record_bytes(key, value, headers))

    def _note(self, error: KafkaError, reason: object) -> None:
        self._ledger.note(reason, rejected=error.code() in REJECTED)

    def _note_record(self, error: KafkaError, topic: str, key: bytes | None, size: int | None) -> None:
        too_large = error.code() == KafkaError.MSG_SIZE_TOO_LARGE
        self._note(error, described(topic, key, size, error, too_large=too_large))

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        """Take the report about a failed record; a report about every record would cost 2 us each."""
        if error is not None and self._producer is not None:
            size = record_bytes(message.key(), message.value())
            self._note_record(error, message.topic() or "", message.key(), size)

    def _on_error(self, error: KafkaError) -> None:
        if is_permanent(error):
            self._note(error, error)
        else:
            self._warn(error)
