"""The producer: a thread that feeds a load up to a limit that tests raise.

Owns: the thread and its Kafka producer. Does not know: what is in a record. Invariant: each partition's records are
appended once and in order, through restarts of the broker too, so an event's offset is its number in its partition.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from confluent_kafka import KafkaError, Message, Producer

from tests.faults.load import Load

_PATIENCE_S: Final = 300.0
_SERVE_EVERY: Final = 1_000
_MAX_QUEUED: Final = 1_000_000


class Feeder:
    """Feeds while it is `running`, up to the limit of `allow`."""

    def __init__(self, bootstrap_servers: str, topic: str, load: Load) -> None:
        self._topic = topic
        self._load = load
        self._limit = 0
        self._moved = threading.Condition()
        self._stopped = False
        self._fed = 0
        self._failure: BaseException | None = None
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap_servers,
                "log_level": 2,
                "enable.idempotence": True,
                "max.in.flight.requests.per.connection": 1,  # see rillcast.transports.kafka.librdkafka
                "queue.buffering.max.messages": _MAX_QUEUED,
                "linger.ms": 20,
                "message.timeout.ms": round(_PATIENCE_S * 1000),
                "on_delivery": self._on_delivery,
                "delivery.report.only.error": True,
            }
        )
        self._thread = threading.Thread(target=self._run, name="feeder")

    def allow(self, events: int) -> None:
        """Let it feed the first `events` events.

        Raises:
            Exception: what ended the thread.
        """
        if self._failure is not None:
            raise self._failure
        with self._moved:
            self._limit = events
            self._moved.notify()

    def __str__(self) -> str:
        return f"{self._fed:,} of {len(self._load):,} events fed, {len(self._producer):,} of them not acknowledged"

    def _run(self) -> None:
        try:
            for number, (partition, key, value) in enumerate(self._load.records()):
                if number % _SERVE_EVERY == 0:
                    self._producer.poll(0)
                if number >= self._limit:
                    self._producer.flush(0.1)
                    with self._moved:
                        self._moved.wait_for(lambda number=number: self._stopped or number < self._limit)  # type: ignore[misc]
                if self._stopped:
                    return
                self._producer.produce(self._topic, value, key, partition)
                self._fed = number + 1
            left = self._producer.flush(_PATIENCE_S)
            assert left == 0, f"{left} of the fed events were not acknowledged within {_PATIENCE_S:g} s"
        except BaseException as error:  # noqa: BLE001  `allow` raises it in the driver's thread
            self._failure = error

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        self._failure = self._failure or RuntimeError(f"an event that was fed to {message.topic()} is lost: {error}")

    @contextmanager
    def running(self) -> Iterator[Feeder]:
        """Feed until the block ends."""
        self._thread.start()
        try:
            yield self
        finally:
            with self._moved:
                self._stopped = True
                self._moved.notify()
            self._thread.join()
