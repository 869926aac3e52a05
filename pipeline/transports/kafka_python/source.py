"""The source on kafka-python: one member of a consumer group.

Owns: the consumer, which partitions it has, what it has fetched of them, and where each is read. Does not know:
what is in a record.

The client's own `poll` runs in a helper thread, one call at a time, so that this one can answer the rebalance
listener's questions (`pipeline.transports.kafka_python.rebalance`); a call that outlives its caller's patience is
not lost, the next `poll` takes its records.

Invariants: no position is ever guessed (`auto_offset_reset=none`: the listener names every start, and a position
that the topic no longer has is an error, not a silent jump); a record of a partition that is held, or no longer
owned, is never handed out. The client's positions are touched only while its `poll` does not run, or is suspended
by a question.
"""

from __future__ import annotations

import queue
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

import numpy as np
from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.errors import CommitFailedError, IllegalStateError, KafkaError, RebalanceInProgressError
from kafka.structs import MemberState

from pipeline.errors import TransportError
from pipeline.settings import KafkaSettings
from pipeline.transports import kafka_errors
from pipeline.transports.base import Assignment, AssignmentListener, Polled
from pipeline.transports.kafka_python.config import consumer_config, create, require_topics
from pipeline.transports.kafka_python.rebalance import Listener, Question

_COMMIT_RETRY_S: Final = 0.05
_INBOX_WAIT_S: Final = 1.0
_MOMENT_S: Final = 0.01
# A join that ends while the client is not polled is begun anew by the client's next poll, and makes every member of the
# group join again: members whose polls do not overlap kept each other from ever getting on.
_REBALANCE_POLL_S: Final = 1.0


class KafkaPythonSource:
    """One member of a consumer group on one topic. See `pipeline.transports.base.Source` for the contract."""

    def __init__(self, settings: KafkaSettings, topic: str) -> None:
        self._settings = settings
        self._topic = topic
        self._consumer: Any = None
        self._listener: AssignmentListener | None = None
        self._helper: ThreadPoolExecutor | None = None
        self._inbox: queue.SimpleQueue[Question | Future[Any]] = queue.SimpleQueue()
        self._unanswered: deque[Question] = deque()
        self._in_flight: Future[Any] | None = None
        self._backlog: dict[int, list[Any]] = {}
        self._fetched_to: dict[int, int] = {}
        self._owned: set[int] = set()
        self._positions: dict[int, int] = {}  # of the owned partitions that are not held
        self._to_pause: set[int] = set()  # held, but the client has not been told yet
        self._to_seek: dict[int, int] = {}  # started, likewise
        self._outdated: set[int] = set()  # what the call in flight brings of these is not to be handed out
        self._failure: BaseException | None = None
        self._closing = False
        self._joined = False

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
        self._closing = False
        require_topics(self._settings, [self._topic])
        self._consumer = create(self._settings, "consumer", lambda: KafkaConsumer(**consumer_config(self._settings)))
        self._helper = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kafka-python-poll")
        self._consumer.subscribe([self._topic], listener=Listener(self._ask))
        # Else a leader that has not heard of the topic yet gives everybody nothing, and the group joins twice.
        self._consumer.partitions_for_topic(self._topic)

    def poll(self, max_records: int, timeout_s: float) -> Polled:
        """Return what is there, waiting at most `timeout_s` for a first record.

        Raises:
            TransportError: the cluster refuses this member for good (topic gone, not authorised, position gone).
        """
        self._live()
        self._raise_failure()
        while self._unanswered:
            self._answer(self._unanswered.popleft())
        self._raise_failure()
        if not self._backlog:
            deadline = time.monotonic() + timeout_s
            fetch = self._start_fetch(max_records, timeout_s)
            ended = self._wait_for(fetch, self._answer, deadline)
            self._raise_failure()
            if ended:
                self._take_fetch(fetch)
                self._note_joined()
        return self._columns(self._next_records(max_records))

    def hold(self, partitions: Sequence[int]) -> None:
        """Hand out nothing of these owned partitions until `start`."""
        for number in self._owned.intersection(partitions):
            self._drop_fetched(number)
            self._positions.pop(number, None)
            self._to_seek.pop(number, None)
            self._to_pause.add(number)

    def start(self, partition: int, position: int) -> None:
        """Hand out an owned partition's records from `position` on, beginning with the next `poll`."""
        if partition in self._owned:
            self._drop_fetched(partition)
            self._positions[partition] = self._fetched_to[partition] = self._to_seek[partition] = position
            self._to_pause.discard(partition)

    def assignments(self) -> Sequence[Assignment]:
        """Ask for committed position, beginning and end of every owned partition.

        A position that is part of a transaction that has not ended is waited for.

        Raises:
            TransportError: no answer.
        """
        try:
            return self._look_up(self._live(), sorted(self._owned))
        except KafkaError as error:
            raise kafka_errors.refused(
                self._settings.bootstrap_servers, self._topic, "asking for the committed positions", error
            ) from error

    def group(self) -> object:
        """Return the group's metadata as `KafkaProducer.send_offsets_to_transaction` takes it."""
        return self._live().group_metadata()

    def commit(self, positions: Mapping[int, int]) -> None:
        """Commit `positions` for the group and wait for the answer; a rebalance that is under way is waited for.

        Raises:
            TransportError: they are not durable.
        """
        if not positions:
            return
        consumer = self._live()
        offsets = {
            TopicPartition(self._topic, partition): OffsetAndMetadata(offset, "", -1)
            for partition, offset in positions.items()
        }
        deadline = time.monotonic() + self._settings.max_poll_interval_s  # the longest that a rebalance may take
        while True:
            try:
                consumer.commit(offsets, timeout_ms=self._settings.request_timeout_s * 1_000)
            except KafkaError as error:
                if not _rebalancing(error) or time.monotonic() > deadline:
                    raise kafka_errors.not_committed(
                        self._settings.bootstrap_servers, self._topic, self._settings.group_id, error
                    ) from error
                self._advance_rebalance()
            else:
                return

    def positions(self) -> Mapping[int, int]:
        """Return the offset that each owned partition is read from next; held ones are left out."""
        return dict(self._positions)

    def lag(self) -> Mapping[int, int]:
        """Return the offsets between position and end by partition, from what the last fetches said."""
        consumer = self._live()
        lags: dict[int, int] = {}
        for partition, position in self._positions.items():
            try:
                end = consumer.highwater(TopicPartition(self._topic, partition))
            except IllegalStateError:  # revoked on the IO thread; the question about it is still to be answered
                continue
            if end is not None:
                lags[partition] = max(0, end - position)
        return lags

    def close(self) -> None:
        """Leave the group (a static member stays in it until its session ends) without committing."""
        consumer, self._consumer = self._consumer, None
        helper, self._helper = self._helper, None
        self._closing = True
        if consumer is None or helper is None:
            return
        while self._unanswered:
            self._release(consumer, self._unanswered.popleft())
        if self._in_flight is not None:
            self._wait_for(self._in_flight, lambda question: self._release(consumer, question))
        helper.shutdown(wait=True)
        consumer.close(autocommit=False, timeout_ms=self._settings.request_timeout_s * 1_000)
        for remembered in (self._owned, self._positions, self._to_pause, self._to_seek, self._backlog):
            remembered.clear()

    def _live(self) -> Any:
        if self._consumer is None:
            raise TransportError(f"kafka source {self._topic} is not open")
        return self._consumer

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    # Rebalances: questions from the IO thread, answers from the thread that polls.

    def _ask(self, question: Question) -> None:
        """Run on the IO thread. While closing nobody is there to answer, and the worker must not be asked."""
        if self._closing:
            question.answered.success(None)
        else:
            self._inbox.put(question)

    def _answer(self, question: Question) -> None:
        consumer = self._live()
        try:
            if question.kind == "assigned":
                self._start_partitions(consumer, question.partitions)
            else:
                self._stop_partitions(question)
        except BaseException as error:  # noqa: BLE001  poll() raises it, once the client has been let go
            self._failure = self._failure or self._as_transport_error(error)
        self._release(consumer, question)

    def _release(self, consumer: Any, question: Question) -> None:
        """Let the suspended listener go on."""

        async def resume() -> None:
            question.answered.success(None)

        # A future that is completed from another thread does not wake the client's loop; only this call does.
        consumer._net.call_soon_threadsafe(resume)

    def _start_partitions(self, consumer: Any, partitions: tuple[int, ...]) -> None:
        if self._listener is None:
            return
        assignments = self._look_up(consumer, partitions)
        starts = self._listener.on_assigned(assignments)
        for assignment in assignments:
            number, start = assignment.partition, starts[assignment.partition]
            key = TopicPartition(self._topic, number)
            self._owned.add(number)
            if start is None:
                consumer.pause(key)
                start = assignment.end  # it needs some position as well, or the client asks for one by itself
            else:
                self._positions[number] = start
            consumer.seek(key, start)
            self._fetched_to[number] = start
            if number in self._outdated and number in self._positions:  # it left and came back within one call
                self._to_seek[number] = start

    def _look_up(self, consumer: Any, partitions: Sequence[int]) -> list[Assignment]:
        timeout_ms = self._settings.request_timeout_s * 1_000
        keys = {number: TopicPartition(self._topic, number) for number in partitions}
        if not keys:
            return []
        beginnings = consumer.beginning_offsets(list(keys.values()), timeout_ms=timeout_ms)
        ends = consumer.end_offsets(list(keys.values()), timeout_ms=timeout_ms)
        return [
            Assignment(number, consumer.committed(key, timeout_ms=timeout_ms), beginnings[key], ends[key])
            for number, key in keys.items()
        ]

    def _stop_partitions(self, question: Question) -> None:
        numbers = [number for number in question.partitions if number in self._owned]
        try:
            if numbers and self._listener is not None:
                (self._listener.on_lost if question.kind == "lost" else self._listener.on_revoked)(numbers)
        finally:
            for number in numbers:
                self._drop_fetched(number)
                self._owned.discard(number)
                self._positions.pop(number, None)
                self._to_pause.discard(number)
                self._to_seek.pop(number, None)

    def _advance_rebalance(self) -> None:
        """Drive the client until a rebalance step asks something or the current fetch ends; answer nothing.

        The client commits only between rebalances and takes part in one only while it is polled. As soon as it
        asks, it has joined the new generation, in which a commit is valid again, also for what it has to give up.
        """
        if self._unanswered:
            time.sleep(_COMMIT_RETRY_S)
            return
        fetch = self._start_fetch(1, _COMMIT_RETRY_S)
        item = self._inbox.get()
        while item is not fetch and not isinstance(item, Question):  # see _wait_for
            item = self._inbox.get()
        if isinstance(item, Question):
            self._unanswered.append(item)
        else:
            self._in_flight = None
            self._take_fetch(fetch)

    # Fetches: the client's poll(), in the helper thread.

    def _start_fetch(self, max_records: int, timeout_s: float) -> Future[Any]:
        if self._in_flight is None:
            assert self._helper is not None  # made by open() together with the consumer
            self._tell_held_and_started()
            consumer = self._live()
            if consumer.group_metadata().state != MemberState.STABLE:
                timeout_s = max(timeout_s, _REBALANCE_POLL_S)
            self._in_flight = self._helper.submit(consumer.poll, timeout_ms=timeout_s * 1_000, max_records=max_records)
            self._in_flight.add_done_callback(self._inbox.put)
        return self._in_flight

    def _tell_held_and_started(self) -> None:
        """Tell the client what to pause and where to start again; its poll does not run now."""
        consumer = self._live()
        assigned = consumer.assignment()  # a partition may have left it; the question about that is still to come
        for number in self._to_pause:
            if (key := TopicPartition(self._topic, number)) in assigned:
                consumer.pause(key)
        for number, position in self._to_seek.items():
            if (key := TopicPartition(self._topic, number)) in assigned:
                # What the client parked of a paused partition it may never take up again (it does so only while its
                # "next in line" is None, which an exhausted one is not), nor would it fetch anything beside it.
                consumer._fetcher._paused_partition_records.pop(key, None)
                consumer.seek(key, position)
                consumer.resume(key)
        self._to_pause.clear()
        self._to_seek.clear()

    def _drop_fetched(self, number: int) -> None:
        self._backlog.pop(number, None)
        if self._in_flight is not None:
            self._outdated.add(number)

    def _wait_for(self, fetch: Future[Any], handle: Callable[[Question], None], deadline: float | None = None) -> bool:
        """Handle questions until `fetch` has ended; give up what outlives the deadline by more than a moment."""
        while True:
            patience_s = _INBOX_WAIT_S
            if deadline is not None:
                patience_s = min(patience_s, max(0.0, deadline - time.monotonic()) + _MOMENT_S)
            try:
                item = self._inbox.get(timeout=patience_s)
            except queue.Empty:
                if fetch.done():  # its notice was taken by a wait that Ctrl-C cut short
                    break
                if deadline is not None and time.monotonic() > deadline:
                    return False
                continue
            if isinstance(item, Question):
                handle(item)
            elif item is fetch:
                break
            # Else it is the late notice of an earlier fetch. To take it for this one's would be to wait for this one
            # without answering its questions, and it would wait for the answers.
        self._in_flight = None
        return True

    def _note_joined(self) -> None:
        """Tell the listener of a join that brought no partition, which the client keeps to itself."""
        if not self._joined and self._listener is not None and self._live().group_metadata().generation_id >= 0:
            self._joined = True
            if not self._owned:
                self._listener.on_assigned([])

    def _take_fetch(self, fetch: Future[Any]) -> None:
        outdated, self._outdated = self._outdated, set()
        try:
            fetched = fetch.result()
        except KafkaError as error:
            raise self._as_transport_error(error) from error
        current = self._positions.keys() - outdated
        for key, records in fetched.items():
            if key.partition in current:
                self._backlog.setdefault(key.partition, []).extend(records)
        for key in self._live().assignment():
            if key.partition not in current:
                continue
            # Where the next fetch begins: beyond transaction markers and compacted records.
            position = self._live().position(key, timeout_ms=0)
            if position is not None:
                self._fetched_to[key.partition] = position
                if key.partition not in self._backlog:
                    self._positions[key.partition] = position

    def _next_records(self, max_records: int) -> list[Any]:
        taken: list[Any] = []
        for partition in list(self._backlog):
            records = self._backlog[partition]
            room = max_records - len(taken)
            taken += records[:room]
            if len(records) > room:
                self._backlog[partition] = records[room:]
                self._positions[partition] = records[room].offset
                break
            del self._backlog[partition]
            self._positions[partition] = self._fetched_to[partition]
        return taken

    def _columns(self, records: Sequence[Any]) -> Polled:
        count = len(records)
        return Polled(
            partitions=np.fromiter((record.partition for record in records), np.int64, count),
            offsets=np.fromiter((record.offset for record in records), np.int64, count),
            timestamps_ms=np.fromiter((record.timestamp for record in records), np.int64, count),
            keys=[record.key for record in records],
            values=[record.value for record in records],
            headers=lambda index: [(name, value or b"") for name, value in records[index].headers],
        )

    def _as_transport_error(self, error: BaseException) -> BaseException:
        """Return `error`, or if it is the client's own, what it means for the source."""
        if not isinstance(error, KafkaError):
            return error
        wrapped = kafka_errors.refused(
            self._settings.bootstrap_servers, self._topic, f"reading as group {self._settings.group_id}", error
        )
        wrapped.__cause__ = error
        return wrapped


def _rebalancing(error: KafkaError) -> bool:
    """Tell whether a commit failed only because the member is between two generations."""
    if isinstance(error, CommitFailedError):
        return bool(error.args) and isinstance(error.args[0], RebalanceInProgressError)
    return isinstance(error, RebalanceInProgressError)
