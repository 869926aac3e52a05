"""The source on kafka-python: one member of a consumer group.

Owns: the consumer, its commits, and the answers to rebalances. Does not know: what is in a record. Other modules of
this package own the positions of partitions (`partitions`), the questions to the brokers (`lookup`), and how a poll
continues while a rebalance asks something (`poller`).

Invariants: no position is ever guessed (`auto_offset_reset=none`): the listener names every start, and a position that
the topic no longer has is an error, not a silent jump. The client's positions are touched only while its `poll` does
not run, or is suspended by a question.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.errors import FencedInstanceIdError, IllegalStateError, KafkaError

from rillcast.errors import TransportError
from rillcast.settings import KafkaSettings
from rillcast.transports.base import Assignment, AssignmentListener, Polled
from rillcast.transports.kafka.common import failures
from rillcast.transports.kafka.common.retries import PAUSE_S, retry_until
from rillcast.transports.kafka.kafka_python import workarounds
from rillcast.transports.kafka.kafka_python.config import consumer_config, create, require_topics
from rillcast.transports.kafka.kafka_python.errors import is_rebalancing
from rillcast.transports.kafka.kafka_python.lookup import look_up
from rillcast.transports.kafka.kafka_python.partitions import Partitions
from rillcast.transports.kafka.kafka_python.poller import Poller
from rillcast.transports.kafka.kafka_python.rebalance import Listener, Question


class KafkaPythonSource:
    """One member of a consumer group on one topic. See `rillcast.transports.base.Source` for the contract."""

    def __init__(self, settings: KafkaSettings, topic: str) -> None:
        self._settings = settings
        self._topic = topic
        self._consumer: Any = None
        self._listener: AssignmentListener | None = None
        self._poller = Poller()
        self._partitions = Partitions()
        self._failure: BaseException | None = None
        self._joined = False
        self._first_added = 0  # partitions from this number on were added after `open`

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
        require_topics(self._settings, [self._topic])
        self._consumer = create(self._settings, "consumer", lambda: KafkaConsumer(**consumer_config(self._settings)))
        workarounds.read_compacted(self._consumer)
        workarounds.on_fenced_heartbeat(self._consumer, self._note_fenced)
        workarounds.lose_membership_in_join(self._consumer)
        self._poller.attach(self._consumer)
        self._consumer.subscribe([self._topic], listener=Listener(self._poller.ask))
        self._first_added = workarounds.learn_of_topic(self._consumer, self._topic)

    def poll(self, max_records: int, timeout_s: float) -> Polled:
        """Return the records that are there, waiting at most `timeout_s` for a first one.

        Raises:
            TransportError: The cluster refuses this member for good (topic deleted, not authorised, position expired).
        """
        self._live()
        self._raise_failure()
        self._poller.answer_waiting(self._answer)
        self._raise_failure()
        if not self._partitions.pending:
            deadline = time.monotonic() + timeout_s
            fetch = self._poller.start(max_records, timeout_s, self._pause_and_seek)
            ended = self._poller.wait_for(fetch, self._answer, deadline)
            self._raise_failure()
            if ended:
                self._take_fetch(fetch)
                self._note_joined()
        return columns(self._partitions.next_records(max_records))

    def pause(self, partitions: Sequence[int]) -> None:
        """Hand out nothing of these owned partitions until `resume_from`."""
        self._partitions.pause(partitions, polling=self._poller.busy)

    def resume_from(self, partition: int, position: int) -> None:
        """Hand out an owned partition's records from `position` on, beginning with the next `poll`."""
        self._partitions.resume_from(partition, position, polling=self._poller.busy)

    def assignments(self) -> Sequence[Assignment]:
        """Ask for committed position, beginning and end of every owned partition.

        A position in an open transaction is waited for.

        Raises:
            TransportError: No broker answers.
        """
        try:
            return self._look_up(sorted(self._partitions.owned))
        except KafkaError as error:
            raise failures.refused(
                self._settings.bootstrap_servers, self._topic, "asking for the committed positions", error
            ) from error

    def group(self) -> object:
        """Return the group's metadata as `KafkaProducer.send_offsets_to_transaction` takes it."""
        return self._live().group_metadata()

    def commit(self, positions: Mapping[int, int], timeout_s: float | None = None) -> None:
        """Commit `positions` for the group and wait for the answer; a running rebalance is waited for.

        Raises:
            TransportError: The positions are not durable.
        """
        if not positions:
            return
        consumer = self._live()
        offsets = {
            TopicPartition(self._topic, partition): OffsetAndMetadata(offset, "", -1)
            for partition, offset in positions.items()
        }
        longest_s = self._settings.max_poll_interval_s  # that a rebalance may take
        deadline = time.monotonic() + (longest_s if timeout_s is None else min(timeout_s, longest_s))

        def commit() -> None:
            left_s = max(0.0, deadline - time.monotonic())
            consumer.commit(offsets, timeout_ms=min(self._settings.request_timeout_s, left_s) * 1_000)

        try:
            retry_until(deadline, commit, is_rebalancing, pause=self._advance_rebalance)
        except FencedInstanceIdError as error:
            raise failures.fenced(self._settings, self._topic, error) from error
        except KafkaError as error:
            raise failures.not_committed(
                self._settings.bootstrap_servers, self._topic, self._settings.group_id, error
            ) from error

    def positions(self) -> Mapping[int, int]:
        """Return the offset that each owned partition is read from next; paused ones are left out."""
        return dict(self._partitions.positions)

    def lag(self) -> Mapping[int, int]:
        """Return the offsets between position and end by partition, as of the last fetches."""
        consumer = self._live()
        lags: dict[int, int] = {}
        for partition, position in self._partitions.positions.items():
            try:
                end = consumer.highwater(TopicPartition(self._topic, partition))
            except IllegalStateError:  # revoked on the IO thread; the question about it is unanswered
                continue
            if end is not None:
                lags[partition] = max(0, end - position)
        return lags

    def close(self) -> None:
        """Leave the group (a static member stays in it until its session ends) without committing."""
        consumer, self._consumer = self._consumer, None
        if consumer is None:
            return
        self._poller.close()
        consumer.close(autocommit=False, timeout_ms=self._settings.request_timeout_s * 1_000)
        self._partitions.clear()

    def _live(self) -> Any:
        if self._consumer is None:
            raise TransportError(f"kafka source {self._topic} is not open")
        return self._consumer

    def _note_fenced(self, error: FencedInstanceIdError) -> None:
        self._failure = self._failure or self._as_transport_error(error)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    # Rebalances: questions from the IO thread, answers from the thread that polls.

    def _advance_rebalance(self) -> None:
        fetch = self._poller.advance_rebalance(self._begin_fetch, PAUSE_S)
        if fetch is not None:
            self._take_fetch(fetch)

    def _answer(self, question: Question) -> None:
        try:
            if question.kind == "assigned":
                self._start_partitions(question.partitions)
            else:
                self._stop_partitions(question)
        except BaseException as error:  # noqa: BLE001  poll() raises it, after the client was released
            self._failure = self._failure or self._as_transport_error(error)
        self._poller.release(question)

    def _start_partitions(self, numbers: tuple[int, ...]) -> None:
        if self._listener is None:
            return
        assignments = self._look_up(numbers)
        starts = self._listener.on_assigned(assignments)
        for assignment in assignments:
            number = assignment.partition
            key = TopicPartition(self._topic, number)
            if starts[number] is None:
                self._consumer.pause(key)
            self._consumer.seek(key, self._partitions.assign(number, starts[number], assignment.end))

    def _stop_partitions(self, question: Question) -> None:
        numbers = [number for number in question.partitions if number in self._partitions.owned]
        if question.kind == "lost":
            workarounds.forget_claims(self._live())
        try:
            if numbers and self._listener is not None:
                (self._listener.on_lost if question.kind == "lost" else self._listener.on_revoked)(numbers)
        finally:
            for number in numbers:
                self._partitions.drop(number, polling=self._poller.busy)

    def _look_up(self, numbers: Sequence[int]) -> list[Assignment]:
        found = look_up(self._live(), self._topic, numbers, self._settings.request_timeout_s)
        return [each._replace(added=each.partition >= self._first_added) for each in found]

    def _note_joined(self) -> None:
        """Tell the listener of a join that brought no partition; the client does not report one."""
        if not self._joined and self._listener is not None and self._live().group_metadata().generation_id >= 0:
            self._joined = True
            if not self._partitions.owned:
                self._listener.on_assigned([])

    # Fetches: the client's poll(), in the helper thread.

    def _begin_fetch(self) -> Future[Any]:
        return self._poller.start(1, PAUSE_S, self._pause_and_seek)

    def _pause_and_seek(self) -> None:
        """Pause and resume partitions in the client; its poll does not run now."""
        consumer, partitions = self._live(), self._partitions
        assigned = consumer.assignment()  # a partition may have left it; the question about that comes later
        for number in partitions.to_pause:
            if (key := TopicPartition(self._topic, number)) in assigned:
                consumer.pause(key)
        for number, position in partitions.to_seek.items():
            if (key := TopicPartition(self._topic, number)) in assigned:
                workarounds.drop_parked_records(consumer, key)
                consumer.seek(key, position)
                consumer.resume(key)
        partitions.to_pause.clear()
        partitions.to_seek.clear()

    def _take_fetch(self, fetch: Future[Any]) -> None:
        current = self._partitions.current()
        try:
            fetched = fetch.result()
        except KafkaError as error:
            raise self._as_transport_error(error) from error
        positions = {
            key.partition: self._live().position(key, timeout_ms=0)
            for key in self._live().assignment()
            if key.partition in current
        }
        self._partitions.take(
            {key.partition: records for key, records in fetched.items() if key.partition in current},
            {number: position for number, position in positions.items() if position is not None},
        )

    def _as_transport_error(self, error: BaseException) -> BaseException:
        """Return `error`; one of the client as a `TransportError`."""
        if not isinstance(error, KafkaError):
            return error
        wrapped: TransportError
        if isinstance(error, FencedInstanceIdError):
            wrapped = failures.fenced(self._settings, self._topic, error)
        else:
            wrapped = failures.refused(
                self._settings.bootstrap_servers, self._topic, f"reading as group {self._settings.group_id}", error
            )
        wrapped.__cause__ = error
        return wrapped


def columns(records: Sequence[Any]) -> Polled:
    """Return the client's records as a poll."""
    count = len(records)
    return Polled(
        partitions=np.fromiter((record.partition for record in records), np.int64, count),
        offsets=np.fromiter((record.offset for record in records), np.int64, count),
        timestamps_ms=np.fromiter((record.timestamp for record in records), np.int64, count),
        keys=[record.key for record in records],
        values=[record.value for record in records],
        headers=lambda index: records[index].headers,
    )
