"""The source on librdkafka: one member of a consumer group.

Owns: the consumer, which partitions it has, and where each is read. Does not know: what is in a record.

Invariants: no position is ever guessed (`auto.offset.reset=error`: the listener names every start, and a position
that the topic no longer has is an error, not a silent jump); a record of a partition that is held, or no longer
owned, is never handed out.

Held partitions are paused, never unassigned: an unassignment from inside a rebalance callback would be taken for the
answer to that rebalance. For the same reason a partition that starts again is sought at the next `poll`, before
anything is taken from the client; seeking drops what was fetched before it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any, Final

import numpy as np
from confluent_kafka import OFFSET_INVALID, Consumer, KafkaError, KafkaException, Message, TopicPartition

from rillcast.errors import TransportError
from rillcast.settings import KafkaSettings
from rillcast.transports.base import Assignment, AssignmentListener, Headers, Polled
from rillcast.transports.kafka.common import failures
from rillcast.transports.kafka.common.watchdog import TimedOut, call_within
from rillcast.transports.kafka.librdkafka.config import consumer_config, create, require_topics
from rillcast.transports.kafka.librdkafka.errors import PERMANENT, REBALANCING, TransientWarnings, as_transport_error

log = logging.getLogger(__name__)

_RETRY_S: Final = 0.05
_CLOSE_S: Final = 10.0
_SECOND: Final = itemgetter(1)  # of a time stamp, which comes with its kind


class LibrdkafkaSource:
    """One member of a consumer group on one topic. See `rillcast.transports.base.Source` for the contract."""

    def __init__(self, settings: KafkaSettings, topic: str) -> None:
        self._settings = settings
        self._topic = topic
        self._consumer: Consumer | None = None
        self._listener: AssignmentListener | None = None
        self._owned: set[int] = set()
        self._positions: dict[int, int] = {}  # of the owned partitions that are not held
        self._to_seek: dict[int, int] = {}  # started, but the client has not been told yet
        self._failure: BaseException | None = None
        self._closing = False
        self._answering = False  # a rebalance
        self._changes = 0  # of what may be handed out
        self._warn = TransientWarnings(settings.bootstrap_servers)

    @property
    def name(self) -> str:
        """The topic."""
        return self._topic

    @property
    def exhausted(self) -> bool:
        """Never: a topic has no end."""
        return False

    def open(self, listener: AssignmentListener) -> None:
        """Join the group.

        Raises:
            SettingsError: the client refuses its configuration.
            TransportError: no broker answers, or the topic does not exist.
        """
        self._listener = listener
        consumer = create(
            lambda: Consumer(consumer_config(self._settings, self._on_error), logger=log), "kafka consumer settings"
        )
        self._consumer = consumer
        require_topics(consumer, self._settings, [self._topic])
        consumer.subscribe([self._topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost)

    def poll(self, max_records: int, timeout_s: float) -> Polled:
        """Return what is there, waiting at most `timeout_s` for a first record.

        Raises:
            TransportError: the cluster refuses this member for good (topic gone, not authorised, position gone).
        """
        consumer = self._live()
        self._raise_failure()
        deadline = time.monotonic() + timeout_s
        messages: list[Message] = []
        self._seek_started(consumer)
        changes = self._changes
        while not messages:
            messages = consumer.consume(max_records, 0)
            if not messages:
                # consume() would wait for a full batch or the whole time-out; poll() returns with the first record.
                first = consumer.poll(max(0.0, deadline - time.monotonic()))
                if first is not None:
                    messages = [first]
                    if max_records > 1:
                        messages += consumer.consume(max_records - 1, 0)
            self._raise_failure()
            # `map` over the client's own methods takes half as long as a comprehension, for each record. An error is
            # true whatever it is, and must not be compared with None: that leaves an exception set behind (2.16.0).
            if any(map(Message.error, messages)):
                messages = self._without_reports(messages)
            if self._changes != changes or self._to_seek:
                messages = [message for message in messages if self._hands_out(message.partition())]
            if time.monotonic() >= deadline:
                break
        return self._columns(messages)

    def pause(self, partitions: Sequence[int]) -> None:
        """Hand out nothing of these owned partitions until `resume_from`.

        Raises:
            TransportError: the client refuses.
        """
        consumer = self._live()
        held = self._owned.intersection(partitions)
        if not held:
            return
        self._changes += 1
        for number in held:
            self._positions.pop(number, None)
            self._to_seek.pop(number, None)
        try:
            consumer.pause([TopicPartition(self._topic, number) for number in held])
        except KafkaException as error:
            raise self._refused(f"pausing partitions {sorted(held)}", error) from error

    def resume_from(self, partition: int, position: int) -> None:
        """Hand out an owned partition's records from `position` on, beginning with the next `poll`."""
        if partition in self._owned:
            self._changes += 1
            self._positions[partition] = self._to_seek[partition] = position

    def assignments(self) -> Sequence[Assignment]:
        """Ask for committed position, beginning and end of every owned partition.

        A position that is part of a transaction that has not ended is waited for.

        Raises:
            TransportError: no answer.
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
        """Commit `positions` for the group and wait for the answer; a rebalance that is under way is waited for.

        Raises:
            TransportError: they are not durable.
        """
        if not positions:
            return
        consumer = self._live()
        offsets = [TopicPartition(self._topic, partition, offset) for partition, offset in positions.items()]
        started = time.monotonic()

        def commit() -> list[KafkaError]:
            try:
                results = consumer.commit(offsets=offsets, asynchronous=False)
            except KafkaException as error:
                return [error.args[0]]
            return [result.error for result in results or () if result.error is not None]

        while True:
            # From another thread, while this one answers a rebalance, the client's commit never returns (2.16.0); from
            # here its own request time-out bounds it.
            if timeout_s is None or self._answering:
                errors = commit()
            else:
                try:
                    left_s = max(0.0, timeout_s - (time.monotonic() - started))
                    errors = call_within(left_s, commit, at_late_end=lambda: None)
                except TimedOut as given_up:
                    raise failures.not_committed(
                        self._settings.bootstrap_servers, self._topic, self._settings.group_id, given_up
                    ) from given_up
            if not errors:
                return
            patience_s = 0.0
            if errors[0].code() in REBALANCING:
                patience_s = self._settings.max_poll_interval_s
            elif errors[0].retriable():
                patience_s = self._settings.request_timeout_s
            if time.monotonic() - started >= patience_s:
                raise failures.not_committed(
                    self._settings.bootstrap_servers, self._topic, self._settings.group_id, errors[0]
                )
            time.sleep(_RETRY_S)

    def positions(self) -> Mapping[int, int]:
        """Return the offset that each owned partition is read from next; held ones are left out."""
        return dict(self._positions)

    def lag(self) -> Mapping[int, int]:
        """Return the offsets between position and end by partition, from what the last fetches said."""
        consumer = self._live()
        lags: dict[int, int] = {}
        for partition, position in self._positions.items():
            _, end = consumer.get_watermark_offsets(TopicPartition(self._topic, partition), cached=True)
            if end != OFFSET_INVALID:
                lags[partition] = max(0, end - position)
        return lags

    def close(self) -> None:
        """Leave the group (a static member stays in it until its session ends) without committing.

        A member that was fenced was seen to wait in librdkafka's close for good, and its process never to end.
        """
        self._closing = True
        consumer, self._consumer = self._consumer, None
        for remembered in (self._owned, self._positions, self._to_seek):
            remembered.clear()
        if consumer is None:
            return
        try:
            call_within(_CLOSE_S, consumer.close, at_late_end=lambda: None)
        except TimedOut as error:
            log.warning(
                "kafka %s, topic %s: the client did not leave group %s (%s); it is dropped when its session ends",
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

    def _columns(self, messages: Sequence[Message]) -> Polled:
        polled = columns(messages)
        if len(polled):
            # The client hands over one partition's records after the other's; the last of each run says how far it is.
            for row in (*np.flatnonzero(np.diff(polled.partitions)).tolist(), len(polled) - 1):
                self._advance(int(polled.partitions[row]), int(polled.offsets[row]) + 1)
        return polled

    def _advance(self, partition: int, position: int) -> None:
        if self._hands_out(partition) and position > self._positions[partition]:
            self._positions[partition] = position

    def _hands_out(self, partition: int | None) -> bool:
        return partition in self._positions and partition not in self._to_seek

    def _seek_started(self, consumer: Consumer) -> None:
        """Tell the client of partitions that start again; one whose assignment is not in effect yet waits a poll."""
        for number, position in list(self._to_seek.items()):
            target = TopicPartition(self._topic, number, position)
            try:
                consumer.resume([target])
                consumer.seek(target)
            except KafkaException as error:
                if error.args[0].code() != KafkaError._STATE:
                    raise self._refused(f"starting partition {number} at {position}", error) from error
            else:
                del self._to_seek[number]

    def _refused(self, doing: str, error: KafkaException) -> TransportError:
        return failures.refused(self._settings.bootstrap_servers, self._topic, doing, error.args[0])

    def _without_reports(self, messages: Sequence[Message]) -> list[Message]:
        """Take the client's own reports out from among the records; raise on one that does not pass by itself."""
        records: list[Message] = []
        for message in messages:
            error = message.error()
            if error is None:
                records.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                # Says where the next fetch begins: beyond transaction markers and compacted records.
                partition, position = message.partition(), message.offset()
                if partition is not None and position is not None:
                    self._advance(partition, position)
            elif error.fatal() or error.code() in PERMANENT:
                raise failures.refused(
                    self._settings.bootstrap_servers, self._topic, f"reading as group {self._settings.group_id}", error
                )
            else:
                self._warn(error)
        return records

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal() or error.code() in PERMANENT:
            self._failure = failures.refused(self._settings.bootstrap_servers, self._topic, "reading", error)
        else:
            self._warn(error)

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        if self._closing:
            consumer.incremental_assign(partitions)
            return
        try:
            assert self._listener is not None  # subscribed by open(), which set it
            assignments = (
                self._look_up(consumer, [partition.partition for partition in partitions]) if partitions else []
            )
            starts = self._listener.on_assigned(assignments)
            # A held one needs some offset as well; there is nothing to fetch at the end.
            placed = {a.partition: (starts[a.partition], a.end) for a in assignments}
        except BaseException as error:  # noqa: BLE001  no exception may cross the C library: poll() raises it
            self._failure = self._failure or as_transport_error(error, self._settings, self._topic)
            consumer.incremental_assign([])
            return
        self._owned.update(placed)
        consumer.incremental_assign(
            [TopicPartition(self._topic, n, end if start is None else start) for n, (start, end) in placed.items()]
        )
        self._positions |= {number: start for number, (start, _) in placed.items() if start is not None}
        if held := [TopicPartition(self._topic, number) for number in placed if number not in self._positions]:
            consumer.pause(held)

    def _look_up(self, consumer: Consumer, partitions: Sequence[int]) -> list[Assignment]:
        """Ask the brokers; errors that pass, as of a new topic without a leader, are waited out."""
        deadline = time.monotonic() + self._settings.request_timeout_s
        while True:
            try:
                return self._look_up_once(consumer, partitions, max(0.0, deadline - time.monotonic()))
            except KafkaException as error:
                # The client says of almost none of its errors whether it is worth another try.
                if error.args[0].code() in PERMANENT or time.monotonic() > deadline:
                    raise
            time.sleep(_RETRY_S)

    def _look_up_once(self, consumer: Consumer, partitions: Sequence[int], timeout_s: float) -> list[Assignment]:
        asked = [TopicPartition(self._topic, number) for number in partitions]
        assignments = []
        for committed in consumer.committed(asked, timeout=timeout_s) if asked else ():
            if committed.error is not None:
                raise KafkaException(committed.error)
            watermarks = consumer.get_watermark_offsets(committed, timeout=timeout_s)
            if watermarks is None:
                raise failures.unreachable(self._settings.bootstrap_servers, timeout_s, "offsets of a partition")
            position = committed.offset if committed.offset >= 0 else None
            assignments.append(Assignment(committed.partition, position, *watermarks))
        return assignments

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
        consumer.incremental_unassign(partitions)


def columns(messages: Sequence[Message]) -> Polled:
    """Return the client's records, without errors among them, as a poll."""
    count = len(messages)
    if not count:
        return Polled.empty()
    return Polled(
        partitions=np.fromiter(map(Message.partition, messages), np.int64, count),
        offsets=np.fromiter(map(Message.offset, messages), np.int64, count),
        timestamps_ms=np.fromiter(map(_SECOND, map(Message.timestamp, messages)), np.int64, count),
        keys=list(map(Message.key, messages)),
        values=list(map(Message.value, messages)),
        headers=lambda index: _headers(messages[index]),
    )


def _headers(message: Message) -> Headers:
    """Return the headers as the contract has them; Kafka's null header is an empty one."""
    fields: Any = message.headers()  # typed as a list or a dict for the producer's sake; a consumer returns a list
    return [(name, value or b"") for name, value in fields or ()]
