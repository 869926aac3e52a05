"""Works around faults of kafka-python. Each part says the fault, the version seen, and when it can be deleted.

Owns: every access to private members of the library. Does not know: sources, sinks, or what they are for.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from kafka import TopicPartition
from kafka.consumer.fetcher import Fetcher
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.errors import FencedInstanceIdError
from kafka.future import Future as KafkaFuture
from kafka.producer import record_accumulator
from kafka.protocol.consumer.metadata import ConsumerProtocolAssignment
from kafka.record.memory_records import MemoryRecordsBuilder
from kafka.serializer import Serializer

from rillcast.transports.base import Headers
from rillcast.transports.kafka.common.retries import wait_until

# Fault (3.0.12): a join that ends while nobody polls is begun again by the next poll, and every member of the group
# has to join again. Members whose polls did not overlap kept each other from ever finishing. So a poll during a
# rebalance lasts at least this many seconds. Delete when a finished join survives a pause between polls.
REBALANCE_POLL_S: Final = 1.0


class OneOwnerAssignor(CooperativeStickyAssignor):  # type: ignore[misc]  # the package has no type information
    """Assigns a partition that two members claim to neither of them in this round.

    Fault (3.0.12): a member that was put out of its group (stopped past its session, then woken) claims its former
    partitions when it joins again, because the client never clears `member_assignment` and its claims carry no
    generation. The leader takes one of two claims for the owner's and may hand the partition on before the owner has
    given it up. Then both commits are valid and events are published twice: 2,000 forecasts in one chaos run.

    Here the owner gives the partition up, commits and joins again; in the next round nobody claims it and it gets one
    owner. Java's leader does the same with claims of one generation (AbstractStickyAssignor). Protocol and name are
    unchanged, so members of other versions stay in the group.

    Delete, with `forget_claims`, when claims carry a generation and the client clears `member_assignment` on loss.
    """

    def assign(self, cluster: Any, members: Sequence[Any]) -> Mapping[str, Any]:
        """Return the assignment of each member for this round."""
        claims = Counter(key for member in members for key in self.parse_member_metadata(member.metadata).partitions)
        disputed = {key for key, count in claims.items() if count > 1}
        assigned: Mapping[str, Any] = super().assign(cluster, members)
        return {member: _without(each, disputed) for member, each in assigned.items()} if disputed else assigned


def _without(assignment: Any, disputed: set[TopicPartition]) -> Any:
    kept: dict[str, list[int]] = defaultdict(list)
    for key in assignment.partitions():
        if key not in disputed:
            kept[key.topic].append(key.partition)
    topics = sorted((topic, sorted(numbers)) for topic, numbers in kept.items())
    return ConsumerProtocolAssignment(assignment.version, topics, assignment.user_data)


def lose_membership_in_join(consumer: Any) -> None:
    """Make a consumer that is refused while it joins prepare its join again, and so lose its partitions.

    Fault (3.0.12): the client prepares a join once, and only then sends it. A member that was cut off for longer than
    its session learns in the answer that the group has forgotten it. It joins as a new member, still believes that it
    owns its former partitions, and never calls `on_partitions_lost`. Those that the new generation does not give it are
    *revoked* later, when its commits are valid again: its old positions replaced the newer ones of the owner in
    between, whose state was then beyond the committed offset. Those that it is given are kept, with a position and a
    state that another member has moved on from.

    Here each reset of the generation makes the loop of the join prepare again. The generation is none by then, so the
    client reports the partitions as lost and claims none, as Java's does (KIP-429).

    Delete when `on_partitions_lost` is called for an `UNKNOWN_MEMBER_ID` in the answer to a JoinGroup.
    """
    coordinator = consumer._coordinator
    reset = coordinator.reset_generation

    def reset_and_prepare_again(*arguments: Any, **named: Any) -> None:
        reset(*arguments, **named)
        coordinator.rejoining = False

    coordinator.reset_generation = reset_and_prepare_again


def forget_claims(consumer: Any) -> None:
    """Make a consumer that has lost its partitions claim none when it joins again. See `OneOwnerAssignor`."""
    for assignor in consumer._coordinator._assignors.values():
        assignor.member_assignment = None


class CompactedPartitionRecords(Fetcher.PartitionRecords):  # type: ignore[misc]  # the package has no type information
    """The records of one fetch, in which a control batch may be empty.

    Fault (3.0.12): when the cleaner removes the marker of a transaction it may keep the marker's batch without the
    record, because it is the last batch of its producer (KAFKA-7467). The client looks for the record, and `poll` fails
    with "StopIteration raised unpacking messageset" on every try. Such a batch says nothing about an abort, as in
    Java's client. Delete, with `read_compacted`, when the client skips empty control batches.
    """

    def _contains_abort_marker(self, batch: Any) -> bool:
        if batch.is_control_batch and not batch.records_count:
            return False
        return bool(super()._contains_abort_marker(batch))


def read_compacted(consumer: Any) -> None:
    """Let a `KafkaConsumer` read topics whose transaction markers were cleaned away."""
    consumer._fetcher.PartitionRecords = CompactedPartitionRecords


def drop_parked_records(consumer: Any, key: TopicPartition) -> None:
    """Drop the records that the client parked when the partition was paused.

    Fault (3.0.12): the client takes parked records up again only while its "next in line" is None, which an exhausted
    one is not, and it fetches nothing else of the partition meanwhile. Delete when a seek drops parked records.
    """
    consumer._fetcher._paused_partition_records.pop(key, None)


def answer_from_another_thread(consumer: Any, answered: KafkaFuture) -> None:
    """Complete a future that a coroutine on the IO thread waits for.

    Fault (3.0.12): a future that another thread completes does not wake the client's event loop. Delete when it does.
    """

    async def complete() -> None:
        answered.success(None)

    consumer._net.call_soon_threadsafe(complete)


def on_fenced_heartbeat(consumer: Any, fenced: Callable[[FencedInstanceIdError], None]) -> None:
    """Call `fenced`, on the IO thread, when a heartbeat is refused because the group has another member of this name.

    Fault (3.0.12): the client stops its heartbeats then, and `poll` neither fails nor joins again, so a member without
    events would idle forever. Java's client raises from `poll`. Delete when this one does.
    """
    coordinator = consumer._coordinator
    handle = coordinator._handle_heartbeat_response

    def handle_and_tell(response: Any, sent_at: float) -> Any:
        try:
            return handle(response, sent_at)
        except FencedInstanceIdError as error:
            fenced(error)
            raise

    coordinator._handle_heartbeat_response = handle_and_tell


def learn_of_topic(consumer: Any, topic: str) -> int:
    """Fetch the topic's metadata before the first join, and return its number of partitions.

    Fault (3.0.12): a leader that has not heard of the topic assigns nothing to anybody, and the group joins twice.
    Delete when the leader asks for the metadata of subscribed topics before it assigns.
    """
    return len(consumer.partitions_for_topic(topic) or ())


def learn_of_partition(producer: Any, topic: str, partition: int, timeout_s: float) -> None:
    """Fetch the topic's metadata again while it lacks a partition, at most for `timeout_s`.

    Fault (3.0.12): `send` refuses a partition that was added to the topic since the last refresh, and no call asks for
    one. Delete when `send` asks.
    """

    def is_known() -> bool:
        if partition in producer.partitions_for(topic):
            return True
        producer._metadata.request_update()
        return False

    wait_until(time.monotonic() + timeout_s, is_known)  # if it never is, `send` says so


def keep_secrets_out_of_logs() -> None:
    """Raise the level of the client's loggers to INFO.

    Fault (3.0.12): at DEBUG the client logs its configuration and every byte on the wire, SASL passwords included.
    Delete when it masks them.
    """
    if (logger := logging.getLogger("kafka")).getEffectiveLevel() < logging.INFO:
        logger.setLevel(logging.INFO)


class _Null(bytes):
    """Stands for null where the client insists on bytes."""


_NULL: Final = _Null()


class NullValues(Serializer):  # type: ignore[misc]  # the package has no type information
    """The value serialiser of every producer: it lets `send` publish a record with neither key nor value."""

    def serialize(self, topic: str, headers: object, data: bytes) -> bytes | None:  # noqa: ARG002  the client's interface
        """Return the value."""
        return None if isinstance(data, _Null) else data


class NullHeaders(MemoryRecordsBuilder):  # type: ignore[misc]  # as above
    """Builds the records of a batch; `send` marks headers without a value."""

    __slots__ = ()

    def append(self, timestamp: int, key: Any, value: Any, headers: Any = None) -> Any:
        """Add a record."""
        plain = [(name, None if isinstance(data, _Null) else data) for name, data in headers or ()]
        return super().append(timestamp, key, value, plain)


record_accumulator.MemoryRecordsBuilder = NullHeaders


def send(
    producer: Any,
    topic: str,
    value: bytes | None,
    key: bytes | None,
    headers: Headers,
    partition: int | None,
    timestamp_ms: int = -1,
) -> Any:
    """Hand a record to a producer that was configured with `NullValues`, and return the future of its acknowledgement.

    Fault (3.0.12): the client refuses records with neither key nor value, and headers without a value, although it can
    write and read both. Delete, with `NullValues` and `NullHeaders`, when its `send` takes them.
    """
    if value is None and key is None:
        value = _NULL
    fields = [(n, _NULL if v is None else v) for n, v in headers]
    return producer.send(topic, value, key, fields, partition, timestamp_ms if timestamp_ms >= 0 else None)


def close_without_waiting(producer: Any, timeout_s: float) -> None:
    """Close a producer and drop its queue.

    Fault (3.0.12): `close` first waits for the queue, up to its time-out, and then gives up half closed. Delete when a
    time-out of 0 closes completely.
    """
    producer._sender.force_close()
    producer.close(timeout=timeout_s)


def refuse_epoch_bumps(producer: Any) -> None:
    """Make a transactional producer fail when a record is refused for its old epoch.

    Fault (3.0.12): the client answers such a refusal by asking for a new epoch on its own (KIP-360). A zombie would
    fence its successor, and a commit after the bump would succeed without the records. Delete when the client reports
    the refusal instead.
    """
    producer._transaction_manager._supports_epoch_bump = lambda: False


def drop_refused_positions(producer: Any) -> None:
    """Forget positions that were refused in an aborted transaction.

    Fault (3.0.12): the client sends them again with the next transaction. Delete when an abort clears them.
    """
    producer._transaction_manager._pending_txn_offset_commits.clear()


def cause_of(producer: Any, error: Exception) -> object:
    """Return the error behind a failure of a transactional call.

    Fault (3.0.12): transactional methods raise a bare `KafkaError` with the cause in its text. Delete when they raise
    the cause.
    """
    return producer._transaction_manager.last_error or error


def can_abort(producer: Any) -> bool:
    """Return whether the open transaction can still be aborted; errors do not say it themselves (see `cause_of`)."""
    return bool(producer._transaction_manager.has_abortable_error())
