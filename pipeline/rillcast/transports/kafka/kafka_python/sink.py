"""The sink on kafka-python: an idempotent producer.

Owns: the producer and its unacknowledged records. Does not know: what is in a record. Invariant: a sink that lost one
record stays broken.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from kafka import KafkaProducer
from kafka.errors import KafkaError, KafkaTimeoutError

from rillcast.errors import TransportError
from rillcast.settings import KafkaSettings
from rillcast.transports.base import Channel, Headers, Records, record_bytes, required_topics
from rillcast.transports.kafka.common import failures
from rillcast.transports.kafka.common.ledger import FailureLedger
from rillcast.transports.kafka.common.record_size import Limits, described
from rillcast.transports.kafka.kafka_python.config import create, producer_config, require_topics
from rillcast.transports.kafka.kafka_python.errors import REJECTED, TOO_LARGE
from rillcast.transports.kafka.kafka_python.workarounds import close_without_waiting, learn_of_partition, send

log = logging.getLogger(__name__)

_MAX_IN_FLIGHT: Final = 50_000  # the client bounds neither records nor bytes of its queue; this does


class _Pending(NamedTuple):
    """A record that is not acknowledged yet: the client's future, and what names the record."""

    future: Any
    topic: str
    key: bytes | None
    value_bytes: int


class KafkaPythonSink:
    """An idempotent producer. See `rillcast.transports.base.Sink` for the contract.

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
        self._pending: deque[_Pending] = deque()
        self._ledger = FailureLedger(settings.bootstrap_servers)
        require_topics(settings, required_topics(self._topics))
        config = producer_config(settings, limits, transactional_id)
        self._producer: Any = create(settings, "producer", lambda: KafkaProducer(**config))

    @property
    def rejected(self) -> bool:
        """Whether a record was refused for its content (too large, not allowed) and would be refused again."""
        return self._ledger.rejected

    def largest_record(self, channel: Channel) -> int | None:
        """Return what the topic takes, as far as it is known, and the client."""
        return self._limits.get(channel, self._settings.max_message_bytes)

    def publish(self, channel: Channel, records: Records, partition: int | None = None) -> None:
        """Queue the records; wait while too many are unacknowledged.

        Raises:
            TransportError: An earlier record was lost, or the producer is closed.
        """
        producer = self._live()
        self._ledger.raise_failure()
        topic = self._topics[channel]
        if partition is not None:
            learn_of_partition(producer, topic, partition, self._settings.request_timeout_s)
        headers: Iterable[Headers] = records.headers if records.headers is not None else ((),) * len(records)
        times = records.timestamps_ms if records.timestamps_ms is not None else (-1,) * len(records)
        for key, value, fields, time_ms in zip(records.keys, records.values, headers, times, strict=True):
            try:
                future = send(producer, topic, value, key, fields, partition, time_ms)
            except (KafkaError, ValueError) as error:
                self._note(error, topic, key, record_bytes(key, value, fields))
            else:
                self._pending.append(_Pending(future, topic, key, len(value or b"")))
        if len(self._pending) > _MAX_IN_FLIGHT:
            self._await_acknowledgements(_MAX_IN_FLIGHT // 2, self._settings.request_timeout_s)

    def flush(self, timeout_s: float) -> None:
        """Wait until the brokers have everything.

        Raises:
            DeliveryError: A record failed, or the time is up.
        """
        self._live()
        self._await_acknowledgements(0, timeout_s)
        self._ledger.raise_failure()

    def close(self) -> None:
        """Drop records that were not flushed, and close the connections."""
        producer, self._producer = self._producer, None
        self._pending.clear()
        if producer is not None:
            close_without_waiting(producer, self._settings.request_timeout_s)

    def _live(self) -> Any:
        if self._producer is None:
            raise TransportError(f"kafka sink {sorted(self._topics.values())} is closed")
        return self._producer

    def _await_acknowledgements(self, keep: int, timeout_s: float) -> None:
        """Wait for the oldest records until `keep` are left. The client's own flush applies its time-out per batch."""
        deadline = time.monotonic() + timeout_s
        while len(self._pending) > keep:
            future, topic, key, size = self._pending[0]
            if not future.is_done:
                try:
                    future.get(timeout=max(0.0, deadline - time.monotonic()))
                except KafkaTimeoutError as error:
                    if not future.is_done:
                        raise failures.not_in_time(
                            self._settings.bootstrap_servers, len(self._pending), timeout_s
                        ) from error
                except KafkaError:
                    log.debug("kafka %s: a record failed", self._settings.bootstrap_servers, exc_info=True)
            self._pending.popleft()
            if future.exception is not None:
                self._note(future.exception, topic, key, record_bytes(key, None) + size)

    def _note(self, error: Exception, topic: str, key: bytes | None, size: int) -> None:
        reason = described(topic, key, size, error, too_large=isinstance(error, TOO_LARGE))
        self._ledger.note(reason, rejected=isinstance(error, REJECTED))
