"""Works around faults of librdkafka and confluent-kafka. Each part says the fault, the version, and when to delete it.

Owns: the values and calls that differ from plain use of the library. Does not know: sources and sinks.

`send_offsets_to_transaction` can hang too (librdkafka issue 5511); `rillcast.transports.kafka.common.watchdog` bounds
it together with kafka-python's calls.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Final

from confluent_kafka import Consumer, Message, TopicPartition

from rillcast.errors import TransportError
from rillcast.transports.kafka.common.watchdog import call_within

# Fault (2.16.0, Kafka 4.3.1): with several requests in flight the idempotent producer loses records on new topics and
# reports nothing. The first batch is refused because the leader is not ready, the second is taken, since the broker
# accepts any first sequence number, and the first, sent again, counts as a duplicate. One request in flight keeps the
# order through retries even without idempotence, and was measured to be no slower. Delete when several requests in
# flight keep every record (a conformance test has the case).
MAX_IN_FLIGHT: Final = 1

# Fault (2.16): the idempotent producer spins. It passes over a partition with requests in flight, but records that wait
# for that partition and have lingered ask for service at once, until the answer comes. It cost 9 us of processor time
# per event, as much as the rest of the client. So only transactions, which need it, use an idempotent producer, and it
# lets records linger for 50 ms: nobody sees them before the commit, which sends the rest at once. Delete when an idle
# idempotent producer with a request in flight takes no processor time.
IDEMPOTENT_OUTSIDE_TRANSACTIONS: Final = False
TRANSACTION_LINGER_MS: Final = 50

# Fault (2.16.0): with the default of 1000 ms a fast reader was seen to stall for most of a second when its queue was
# full. Delete when the client fetches again as soon as the queue has room.
FETCH_QUEUE_BACKOFF_MS: Final = 5

# Fault (confluent-kafka 2.16.0): closing a producer that is fenced warns that it could not abort, which is known by
# then. Delete when `close` does not try to abort a fenced producer.
warnings.filterwarnings("ignore", "Producer abort_transaction failed during close", RuntimeWarning)

_METADATA_LAYOUT: Final = b"CGMDv2:"


def have_errors(messages: Sequence[Message]) -> bool:
    """Return whether a message carries an error.

    Fault (confluent-kafka 2.16.0): comparing an error with None leaves an exception set behind, which the next C call
    raises. Errors are always true, so their truth is asked. (`map` over the client's own method takes half as long as
    a comprehension.) Delete when the comparison is safe.
    """
    return any(map(Message.error, messages))


def without_delivery_reports(config: dict[str, Any]) -> dict[str, Any]:
    """Return a transactional producer's configuration without the delivery callback.

    Fault (confluent-kafka 2.16.0): a callback that runs after a fatal error finds that error already raised and turns
    it into a SystemError or worse. A lost record makes the transaction fail, and the failure says why. Delete when
    callbacks run without a pending exception.
    """
    return {name: value for name, value in config.items() if name not in ("on_delivery", "delivery.report.only.error")}


def commit_within(timeout_s: float | None, commit: Callable[[], Any], *, answering: bool) -> Any:
    """Return what a consumer's `commit` returns, giving up after `timeout_s` where that is possible.

    Fault (2.16.0): a commit has no time-out of its own, and one from another thread never returns while the polling
    thread answers a rebalance. In that case it runs on the calling thread, bounded by the client's request time-out.
    Delete when `commit` takes a time-out.

    Args:
        timeout_s: Longest wait in seconds; None = no limit.
        commit: The call.
        answering: Whether the calling thread answers a rebalance.

    Raises:
        TimedOut: The call has not ended in time; it continues in a thread of its own.
    """
    if timeout_s is None or answering:
        return commit()
    return call_within(timeout_s, commit, at_late_end=lambda: None)


def close_within(timeout_s: float, consumer: Consumer) -> None:
    """Close a consumer, or leave it behind after `timeout_s`.

    Fault (2.16.0): `close` of a member that was fenced was seen to wait forever, so its process never ended. Delete
    when `close` takes a time-out.

    Raises:
        TimedOut: The consumer did not close in time.
    """
    call_within(timeout_s, consumer.close, at_late_end=lambda: None)


class Assigned:
    """The partitions that a consumer has been given, whatever its group says.

    Fault (2.16.0): a callback is also called for partitions that an earlier callback left out of its
    `incremental_assign`, because it failed. Giving those up is refused ("can't be unassigned since it is not in the
    current assignment"); then `poll` raises a `KafkaError`, which is no exception class and cannot be caught, and
    `close` waits forever. The client's own `assignment` fails while it closes. Delete when giving up a partition that
    was never assigned does nothing.
    """

    def __init__(self) -> None:
        self._numbers: set[int] = set()

    def assign(self, consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        """Answer an assignment."""
        consumer.incremental_assign(list(partitions))
        self._numbers.update(each.partition for each in partitions)

    def unassign(self, consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        """Answer a revocation or a loss."""
        held = [each for each in partitions if each.partition in self._numbers]
        self._numbers.difference_update(each.partition for each in held)
        consumer.incremental_unassign(held)


def is_member(group: object) -> bool:
    """Return whether the group's metadata has a generation.

    Fault (confluent-kafka 2.16.0): the metadata comes as bytes for C programs, and no call says whether this member is
    in its group. Delete when the generation can be asked.

    Raises:
        TransportError: The bytes have an unknown layout.
    """
    if not isinstance(group, bytes) or not group.startswith(_METADATA_LAYOUT):
        raise TransportError(
            f"librdkafka describes its group as {group!r}, expected {_METADATA_LAYOUT!r} and a generation, so it is "
            f"unknown whether this member may commit; use another version of confluent-kafka, or kafka.client = "
            f"'kafka-python'"
        )
    generation = group[len(_METADATA_LAYOUT) : len(_METADATA_LAYOUT) + 4]
    return int.from_bytes(generation, sys.byteorder, signed=True) >= 0
