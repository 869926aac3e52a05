"""The source on librdkafka: one member of a consumer group.

Owns: the consumer, which partitions it has, and where each is read. Does not know: what is in a record.

Invariants: no position is ever guessed (`auto.offset.reset=error`): the listener names every start, and a position that
the topic no longer has is an error, not a silent jump. A record of a partition that is paused, or no longer owned, is
never handed out.

Partitions are paused, never unassigned: librdkafka would take an unassignment from inside a rebalance callback for the
answer to that rebalance. For the same reason a partition that resumes is sought in the next `poll`, before anything is
taken from the client; the seek drops records that were fetched before it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Final

from confluent_kafka import OFFSET_INVALID, Consumer, KafkaError, KafkaException, Message, TopicPartition

from rillcast.arrays import rows_of_each
from rillcast.errors import TransportError
from rillcast.settings import KafkaSettings
from rillcast.transports.base import Assignment, AssignmentListener, Polled
from rillcast.transports.kafka.common import failures
from rillcast.transports.kafka.common.retries import retry_until
from rillcast.transports.kafka.common.watchdog import TimedOut
from rillcast.transports.kafka.librdkafka.config import consumer_config, create, require_topics
from rillcast.transports.kafka.librdkafka.errors import (
    COORDINATOR_MOVES,
    REBALANCING,
    TransientWarnings,
    as_transport_error,
    is_fenced,
    is_permanent,
    refused,
)
from rillcast.transports.kafka.librdkafka.lookup import look_up
from rillcast.transports.kafka.librdkafka.messages import columns, take
from rillcast.transports.kafka.librdkafka.workarounds import Assigned, close_within, commit_within, have_errors

log = logging.getLogger(__name__)

_CLOSE_S: Final = 10.0
_PROBE_S: Final = 3.0  # for an answer of a broker that may be away


class LibrdkafkaSource:
    """One member of a consumer group on one topic. See `rillcast.transports.base.Source` for the contract."""

    def __init__(self, settings: KafkaSettings, topic: str) -> None:
        self._settings = settings
        self._topic = topic
        self._consumer: Consumer | None = None
        self._listener: AssignmentListener | None = None
        self._assigned = Assigned()
        self._owned: set[int] = set()
        self._positions: dict[int, int] = {}  # of the owned partitions that are not paused
        self._to_seek: dict[int, int] = {}  # resumed here, not in the client yet
        self._failure: BaseException | None = None
        self._closing = False
        self._answering = False  # whether the listener is answering a rebalance
        self._first_added = 0  # partitions from this number on were added after `open`
        self._changes = 0  # counts changes of which partitions may be handed out
        self._warn = TransientWarnings(settings.bootstrap_servers)
        self._down_since: float | None = None  # monotonic: when the client lost its last broker

    @property
    def name(self) -> str:
        """Name of the topic."""
        return self._topic

    @property
    def exhausted(self) -> bool:
        """Always False: a topic has no end."""
        return False

    def open(self, listener: AssignmentListener) -> None:
        """Join the group.

        Raises:
            SettingsError: The client refuses its configuration.
            TransportError: No broker answers, or the topic does not exist.
        """
        self._listener = listener
        consumer = create(
            lambda: Consumer(consumer_config(self._settings, self._on_error), logger=log), "kafka consumer settings"
        )
        self._consumer = consumer
        self._first_added = require_topics(consumer, self._settings, [self._topic])[self._topic]
        consumer.subscribe([self._topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost)

    def poll(self, max_records: int, timeout_s: float) -> Polled:
        """Return the records that are there, waiting at most `timeout_s` for a first one.

        Raises:
            TransportError: The cluster refuses this member for good (topic deleted, not authorised, position expired),
                or no broker has answered for `kafka.request_timeout_s`.
        """
        consumer = self._live()
        self._raise_failure()
        self._require_brokers(consumer)
        deadline = time.monotonic() + timeout_s
        messages: list[Message] = []
        self._seek_resumed(consumer)
        changes = self._changes
        while not messages:
            messages = consumer.consume(max_records, 0)
            if not messages:
                messages = take(consumer, max_records, max(0.0, deadline - time.monotonic()))
            self._raise_failure()
            if have_errors(messages):
                messages = self._without_reports(messages)
            if self._changes != changes or self._to_seek:
                messages = [message for message in messages if self._hands_out(message.partition())]
            if time.monotonic() >= deadline:
                break
        return self._columns(messages)

    def pause(self, partitions: Sequence[int]) -> None:
        """Hand out nothing of these owned partitions until `resume_from`.

        Raises:
            TransportError: The client refuses.
        """
        consumer = self._live()
        paused = self._owned.intersection(partitions)
        if not paused:
            return
        self._changes += 1
        for number in paused:
            self._positions.pop(number, None)
            self._to_seek.pop(number, None)
        try:
            consumer.pause([TopicPartition(self._topic, number) for number in paused])
        except KafkaException as error:
            raise self._refused(f"pausing partitions {sorted(paused)}", error) from error

    def resume_from(self, partition: int, position: int) -> None:
        """Hand out an owned partition's records from `position` on, beginning with the next `poll`."""
        if partition in self._owned:
            self._changes += 1
            self._positions[partition] = self._to_seek[partition] = position

    def assignments(self) -> Sequence[Assignment]:
        """Ask for committed position, beginning and end of every owned partition.

        A position in an open transaction is waited for.

        Raises:
            TransportError: No broker answers.
        """
        consumer = self._live()
        try:
            return self._look_up(consumer, sorted(self._owned))
        except KafkaException as error:
            raise self._refused("asking for the committed positions", error) from error

    def group(self) -> object:
        """Return the group's metadata as `Producer.send_offsets_to_transaction` takes it."""
        return self._live().consumer_group_metadata()

    def commit(self, positions: Mapping[int, int], timeout_s: float | None = None) -> None:
        """Commit `positions` for the group and wait for the answer; a running rebalance is waited for.

        Raises:
            TransportError: The positions are not durable.
        """
        if not positions:
            return
        consumer = self._live()
        offsets = [TopicPartition(self._topic, partition, offset) for partition, offset in positions.items()]
        started = time.monotonic()

        def commit() -> None:
            results = consumer.commit(offsets=offsets, asynchronous=False)
            for result in results or ():
                if result.error is not None:
                    raise KafkaException(result.error)

        def commit_in_time() -> None:
            left_s = None if timeout_s is None else max(0.0, timeout_s - (time.monotonic() - started))
            commit_within(left_s, commit, answering=self._answering)

        def passes(error: Exception) -> bool:
            if not isinstance(error, KafkaException):
                return False
            code = error.args[0].code()
            return code in REBALANCING or (code in COORDINATOR_MOVES and time.monotonic() - started < request_timeout_s)

        request_timeout_s = self._settings.request_timeout_s
        try:
            retry_until(started + self._settings.max_poll_interval_s, commit_in_time, passes)
        except (KafkaException, TimedOut) as error:
            cause = error.args[0] if isinstance(error, KafkaException) else error
            if isinstance(cause, KafkaError) and is_fenced(cause):
                raise failures.fenced(self._settings, self._topic, cause) from error
            raise failures.not_committed(
                self._settings.bootstrap_servers, self._topic, self._settings.group_id, cause
            ) from error

    def positions(self) -> Mapping[int, int]:
        """Return the offset that each owned partition is read from next; paused ones are left out."""
        return dict(self._positions)

    def lag(self) -> Mapping[int, int]:
        """Return the offsets between position and end by partition, as of the last fetches."""
        consumer = self._live()
        lags: dict[int, int] = {}
        for partition, position in self._positions.items():
            _, end = consumer.get_watermark_offsets(TopicPartition(self._topic, partition), cached=True)
            if end != OFFSET_INVALID:
                lags[partition] = max(0, end - position)
        return lags

    def close(self) -> None:
        """Leave the group (a static member stays in it until its session ends) without committing."""
        self._closing = True
        consumer, self._consumer = self._consumer, None
        for remembered in (self._owned, self._positions, self._to_seek):
            remembered.clear()
        if consumer is None:
            return
        try:
            close_within(_CLOSE_S, consumer)
        except TimedOut as error:
            log.warning(
                "kafka %s, topic %s: the client did not leave group %s (%s); the group drops it when its session ends",
                self._settings.bootstrap_servers,
                self._topic,
                self._settings.group_id,
                error,
            )

    def _live(self) -> Consumer:
        if self._consumer is None:
            raise TransportError(f"kafka source {self._topic} is not open")
        return self._consumer

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _require_brokers(self, consumer: Consumer) -> None:
        """Ask for an answer where all brokers have been down for a while: without records nothing else would fail.

        The client says that it lost them and not that they are back.
        """
        waited_s = self._settings.request_timeout_s
        if self._down_since is None or time.monotonic() - self._down_since < waited_s:
            return
        try:
            consumer.list_topics(self._topic, timeout=min(_PROBE_S, waited_s))
        except KafkaException as error:
            raise failures.unreachable(self._settings.bootstrap_servers, waited_s, error.args[0]) from error
        self._down_since = None

    def _columns(self, messages: Sequence[Message]) -> Polled:
        polled = columns(messages)
        for partition, rows in rows_of_each(polled.partitions):
            self._advance(partition, int(polled.offsets[rows][-1]) + 1)
        return polled

    def _advance(self, partition: int, position: int) -> None:
        if self._hands_out(partition) and position > self._positions[partition]:
            self._positions[partition] = position

    def _look_up(self, consumer: Consumer, numbers: Sequence[int]) -> list[Assignment]:
        found = look_up(consumer, self._settings, self._topic, numbers)
        return [each._replace(added=each.partition >= self._first_added) for each in found]

    def _hands_out(self, partition: int | None) -> bool:
        return partition in self._positions and partition not in self._to_seek

    def _seek_resumed(self, consumer: Consumer) -> None:
        """Seek partitions that resume; one whose assignment is not in effect yet waits for the next poll."""
        for number, position in list(self._to_seek.items()):
            target = TopicPartition(self._topic, number, position)
            try:
                consumer.resume([target])
                consumer.seek(target)
            except KafkaException as error:
                if error.args[0].code() != KafkaError._STATE:
                    raise self._refused(f"resuming partition {number} from {position}", error) from error
            else:
                del self._to_seek[number]

    def _refused(self, doing: str, error: KafkaException | KafkaError) -> TransportError:
        return refused(self._settings, self._topic, doing, error)

    def _without_reports(self, messages: Sequence[Message]) -> list[Message]:
        """Return the records without the client's own reports; raise on a report that does not pass by itself."""
        records: list[Message] = []
        for message in messages:
            error = message.error()
            if error is None:
                records.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                # The report says where the next fetch begins: beyond transaction markers and compacted records.
                partition, position = message.partition(), message.offset()
                if partition is not None and position is not None:
                    self._advance(partition, position)
            elif is_permanent(error):
                raise self._refused(f"reading as group {self._settings.group_id}", error)
            else:
                self._warn(error)
        return records

    def _on_error(self, error: KafkaError) -> None:
        if is_permanent(error):
            self._failure = self._refused("reading", error)
        else:
            if error.code() == KafkaError._ALL_BROKERS_DOWN and self._down_since is None:
                self._down_since = time.monotonic()
            self._warn(error)

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        if self._closing:
            self._assigned.assign(consumer, partitions)
            return
        try:
            assert self._listener is not None  # subscribed by open(), which set it
            numbers = [partition.partition for partition in partitions]
            assignments = self._look_up(consumer, numbers)
            starts = self._listener.on_assigned(assignments)
            # A paused partition needs an offset too; there is nothing to fetch at the end.
            placed = {a.partition: (starts[a.partition], a.end) for a in assignments}
        except BaseException as error:  # noqa: BLE001  no exception may cross the C library: poll() raises it
            self._failure = self._failure or as_transport_error(error, self._settings, self._topic)
            self._assigned.assign(consumer, [])
            return
        self._owned.update(placed)
        self._assigned.assign(
            consumer,
            [TopicPartition(self._topic, n, end if start is None else start) for n, (start, end) in placed.items()],
        )
        self._positions |= {number: start for number, (start, _) in placed.items() if start is not None}
        if paused := [TopicPartition(self._topic, number) for number in placed if number not in self._positions]:
            consumer.pause(paused)

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._release(consumer, partitions, lost=False)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._release(consumer, partitions, lost=True)

    def _release(self, consumer: Consumer, partitions: list[TopicPartition], *, lost: bool) -> None:
        self._changes += 1
        numbers = [partition.partition for partition in partitions if partition.partition in self._owned]
        if numbers and not self._closing and self._listener is not None:
            self._answering = True
            try:
                (self._listener.on_lost if lost else self._listener.on_revoked)(numbers)
            except BaseException as error:  # noqa: BLE001  as above
                self._failure = self._failure or as_transport_error(error, self._settings, self._topic)
            finally:
                self._answering = False
        for number in numbers:
            self._owned.discard(number)
            self._positions.pop(number, None)
            self._to_seek.pop(number, None)
        self._assigned.unassign(consumer, partitions)
