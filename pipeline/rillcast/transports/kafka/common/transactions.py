"""A sink with Kafka transactions: when they begin, how they end, and the recovery from an uncertain end.

Owns: the life of a transaction, and of the producers under one transactional id, one after the other. Does not know:
either client library; each brings a `TransactionalProducer`.

The order of a commit:

    1. every record is acknowledged                        (flush)
    2. the positions are part of the transaction           (send_offsets)
    3. the coordinator has ended it                        (commit)

Invariants:
- A transaction ends (3) only after every one of its records was acknowledged (1). Neither client guarantees that:
  kafka-python reports success for a transaction that it lost to an epoch bump.
- Neither client speaks the protocol that would make the end of a transaction safe to repeat (KIP-890). So after an
  uncertain end the producer is never used again. Another one is initialised under the same transactional id, which
  bumps the epoch. Requests of the old producer that arrive later are refused, and its transaction has ended, one way or
  the other, when `initialize` returns.
- A fenced producer is never replaced before its caller has asked its source: a replacement would fence a successor in
  turn. The source tells a member that it has a successor.
"""

from __future__ import annotations

import enum
import logging
import time
from collections.abc import Callable, Mapping
from typing import NoReturn, Protocol

from rillcast.errors import DeliveryError, FencedError, TransactionAborted, TransportError
from rillcast.settings import KafkaSettings
from rillcast.transports.base import Channel, Records
from rillcast.transports.kafka.common.record_size import Limits
from rillcast.transports.kafka.common.watchdog import TimedOut, call_within

log = logging.getLogger(__name__)

_GRACE_S = 1.0  # a client may exceed its own time-out by this much before the watchdog leaves it behind
_CLOSE_S = 3.0


class Ending(enum.Enum):
    """The end of a transaction that a failed call implies."""

    ABORTABLE = "not committed; the producer can abort it and continue"
    FENCED = "not committed; the coordinator has given the transactional id a newer epoch"
    REPLACED = "not committed; another member of the group has this one's group_instance_id"
    UNCERTAIN = "perhaps committed, or the producer is unusable"


class TransactionFault(Exception):  # noqa: N818  not an error yet: the sink decides
    """A call of a transactional producer failed."""

    def __init__(self, ending: Ending, cause: object) -> None:
        super().__init__(f"{cause}")
        self.ending = ending


def not_a_member() -> TransactionFault:
    """Return the fault for positions without a generation of the group.

    A member that was put out of its group describes itself like one that was never in it. The broker does not fence
    such positions: it takes them for those of a program that assigns partitions by itself.
    """
    return TransactionFault(Ending.ABORTABLE, "this member is not in its group and may own no partition any more")


class TransactionalProducer(Protocol):
    """One producer under a transactional id. A failed call raises `TransactionFault` unless its docstring differs."""

    def initialize(self, timeout_s: float) -> None:
        """Fence earlier producers under the id and wait until their last transaction has ended."""
        ...

    def begin(self) -> None:
        """Begin a transaction, without a request to the brokers."""
        ...

    def publish(self, channel: Channel, records: Records, partition: int | None = None) -> None:
        """Hand over records; raises `DeliveryError` when an earlier one failed."""
        ...

    def flush(self, timeout_s: float) -> None:
        """Wait for the acknowledgement of every record; raises `DeliveryError` as well."""
        ...

    @property
    def rejected(self) -> bool:
        """Whether a record was refused for its content (too large, not allowed) and would be refused again."""
        ...

    def send_offsets(self, positions: Mapping[int, int], group: object, timeout_s: float) -> None:
        """Make positions part of the transaction."""
        ...

    def commit(self, timeout_s: float) -> None:
        """End the transaction; its records and positions become visible."""
        ...

    def abort(self, timeout_s: float) -> None:
        """End the transaction; nothing of it becomes visible."""
        ...

    def close(self) -> None:
        """Close the connections without waiting for records; the coordinator ends an open transaction."""
        ...


class KafkaTransactionalSink:
    """See `rillcast.transports.base.TransactionalSink` for the contract.

    Raises:
        TransportError: No coordinator answers, or a topic does not exist.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        transactional_id: str,
        make: Callable[[], TransactionalProducer],
        limits: Limits | None = None,
    ) -> None:
        self._settings = settings
        self._transactional_id = transactional_id
        self._make = make
        self._limits = limits or {}
        self._open = False
        self._begun_at = 0.0
        self._closed = False
        self._fenced: FencedError | None = None
        self._busy: TransactionalProducer | None = None  # a call of it timed out and continues
        self._give_up_at: float | None = None  # deadline of a commit with a time-out
        self._producer: TransactionalProducer | None = self._successor()

    def largest_record(self, channel: Channel) -> int | None:
        """Return what the topic takes, as far as it is known, and the client."""
        return self._limits.get(channel, self._settings.max_message_bytes)

    def publish(self, channel: Channel, records: Records, partition: int | None = None) -> None:
        """Queue the records, in a transaction that begins now if none is open.

        Raises:
            TransactionAborted: An earlier record of the transaction failed; reset to the committed positions.
            DeliveryError: An earlier record was refused for its content; a reset would not help.
            FencedError: Another member has taken over; end.
        """
        producer = self._begun()
        try:
            producer.publish(channel, records, partition)
        except DeliveryError as error:
            self._fail(producer, error, Ending.ABORTABLE)

    def flush(self, timeout_s: float) -> None:
        """Wait until the brokers have everything; it is not visible before `commit`.

        Raises:
            DeliveryError: A record failed, or the time is up; the transaction can only be aborted.
        """
        producer = self._live()
        if self._open and producer is not None:
            try:
                producer.flush(timeout_s)
            except TransactionFault as fault:
                raise DeliveryError(f"{self._where()}: {fault}") from fault

    def commit(self, positions: Mapping[int, int], group: object, timeout_s: float | None = None) -> None:
        """End the transaction with `positions` in it, in the order of this module's docstring.

        A transaction that has not ended within `timeout_s` is left behind with its producer; the next producer ends it,
        once one is needed.

        Raises:
            TransactionAborted: Reset to the committed positions; they say whether the transaction was committed.
            DeliveryError: A record was refused for its content; a reset would not help.
            FencedError: Another member has taken over; end.
            TransportError: The coordinator does not answer any more.
        """
        self._live()
        if not self._open and not positions:
            return
        producer = self._begun()
        # After that the coordinator has aborted the transaction.
        deadline = time.monotonic() + self._settings.transaction_timeout_s
        if timeout_s is not None:
            self._give_up_at = time.monotonic() + timeout_s
            deadline = min(deadline, self._give_up_at)
        try:
            self._watched(producer, producer.flush, deadline)
            if positions:
                self._watched(producer, lambda left_s: producer.send_offsets(positions, group, left_s), deadline)
            self._watched(producer, producer.commit, deadline)
        except DeliveryError as error:
            self._fail(producer, error, Ending.ABORTABLE)
        except TransactionFault as fault:
            self._fail(producer, fault, fault.ending)
        finally:
            self._give_up_at = None
        self._open = False

    def abort(self) -> None:
        """Drop the records published since the last commit, and end a transaction that a commit left behind.

        Raises:
            FencedError: Another member has taken over; end.
            TransportError: The coordinator does not answer any more.
        """
        producer = self._live()
        if producer is None:
            self._producer = self._successor()
        elif self._open:
            self._abort(producer)

    def close(self) -> None:
        """Abort an open transaction, so that it holds back no reader, and close the connections."""
        producer, self._producer = self._producer, None
        self._closed = True
        if producer is None:
            return
        if self._open:
            self._open = False
            try:
                self._watched(producer, producer.abort, time.monotonic() + _CLOSE_S)
            except TransactionFault as fault:
                log.warning("%s: a transaction stays open until its time-out: %s", self._where(), fault)
        self._discard(producer)

    def _live(self) -> TransactionalProducer | None:
        if self._fenced is not None:
            raise self._fenced
        if self._closed:
            raise TransportError(f"{self._where()}: the sink is closed")
        return self._producer

    def _begun(self) -> TransactionalProducer:
        """Return the producer, in a transaction; a new producer if a time-out left none."""
        producer = self._live()
        if producer is None:
            producer = self._producer = self._successor()
        if not self._open:
            try:
                producer.begin()
            except TransactionFault as fault:
                self._fail(producer, fault, fault.ending)
            self._open = True
            self._begun_at = time.monotonic()
        return producer

    def _successor(self) -> TransactionalProducer:
        """Return another producer under the same transactional id; the transaction of the last one has ended."""
        producer = self._make()
        timeout_s = self._settings.request_timeout_s
        try:
            self._watched(producer, producer.initialize, self._bounded(timeout_s))
        except TransactionFault as fault:
            self._discard(producer)
            if fault.ending is Ending.FENCED:
                raise self._become_fenced(fault) from fault
            raise TransportError(
                f"{self._where()}: initialising transactions within {timeout_s:g} s failed: {fault}"
            ) from fault
        return producer

    def _fail(self, producer: TransactionalProducer, cause: Exception, ending: Ending) -> NoReturn:
        """End the failed transaction, and raise the error that says what its caller has to do."""
        log.warning("%s: transaction failed (%s): %s", self._where(), ending.name.lower(), cause)
        if ending is Ending.ABORTABLE:
            ending = self._abort(producer)
            if isinstance(cause, DeliveryError) and producer.rejected:
                raise cause
        else:
            self._end(producer, ending, cause)
        raise TransactionAborted(
            f"{self._where()}: the transaction failed ({cause}); reset to the committed positions"
        ) from cause

    def _abort(self, producer: TransactionalProducer) -> Ending:
        """Abort the open transaction, or end its producer if that fails."""
        try:
            self._watched(producer, producer.abort, self._bounded(self._settings.transaction_timeout_s))
        except TransactionFault as fault:
            ending = Ending.UNCERTAIN if fault.ending is Ending.ABORTABLE else fault.ending
            self._end(producer, ending, fault)
            return ending
        self._open = False
        return Ending.ABORTABLE

    def _end(self, producer: TransactionalProducer, ending: Ending, cause: Exception) -> None:
        """Drop a producer that cannot be used any more."""
        overdue = time.monotonic() - self._begun_at >= self._settings.transaction_timeout_s
        self._open = False
        self._producer = None
        self._discard(producer)
        if ending is Ending.UNCERTAIN:
            if self._give_up_at is None or time.monotonic() < self._give_up_at:
                self._producer = self._successor()
        elif ending is Ending.REPLACED or not overdue:
            raise self._become_fenced(cause) from cause
        else:  # the coordinator itself fences a producer whose transaction it had to time out
            log.warning("%s: the transaction was open for longer than kafka.transaction_timeout_s", self._where())

    def _bounded(self, timeout_s: float) -> float:
        """Return the deadline of a step: in `timeout_s`, or the deadline of its commit if that is earlier."""
        deadline = time.monotonic() + timeout_s
        return deadline if self._give_up_at is None else min(deadline, self._give_up_at)

    def _become_fenced(self, cause: object) -> FencedError:
        self._fenced = FencedError(
            f"{self._where()}: another member has taken over this transactional id or group_instance_id ({cause}); "
            f"nothing after the last commit counts. Start again, and look for two processes with the same "
            f"kafka.transactional_id or kafka.group_instance_id if it happens repeatedly"
        )
        return self._fenced

    def _watched(self, producer: TransactionalProducer, call: Callable[[float], None], deadline: float) -> None:
        """Make a call of `producer`; one that ends too late closes the producer then."""
        left_s = max(0.001, deadline - time.monotonic())
        try:
            call_within(left_s + _GRACE_S, lambda: call(left_s), at_late_end=producer.close)
        except TimedOut as error:
            self._busy = producer
            raise TransactionFault(Ending.UNCERTAIN, error) from error

    def _discard(self, producer: TransactionalProducer) -> None:
        """Close `producer`, unless a call of it still runs; leave it behind if it does not close in time."""
        if producer is self._busy:
            log.warning("%s: a call of the client does not return; its producer is left behind", self._where())
            self._busy = None
            return
        try:
            call_within(_CLOSE_S, producer.close, at_late_end=lambda: None)
        except TimedOut:
            log.warning("%s: a producer does not close; it is left behind", self._where())

    def _where(self) -> str:
        return f"kafka {self._settings.bootstrap_servers}, transactional id {self._transactional_id}"
