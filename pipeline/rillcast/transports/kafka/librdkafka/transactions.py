"""Transactions on librdkafka.

Owns: what its errors say about a transaction. Does not know: when transactions begin and end, and what follows a
failure (`rillcast.transports.kafka.common.transactions`).
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Final

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from rillcast.errors import TransportError
from rillcast.settings import KafkaSettings
from rillcast.transports.base import Channel
from rillcast.transports.kafka.common.transactions import Ending, TransactionFault, not_a_member
from rillcast.transports.kafka.librdkafka.errors import REJECTED
from rillcast.transports.kafka.librdkafka.sink import LibrdkafkaSink

log = logging.getLogger(__name__)

# What `close` has to say of a producer that is fenced is known by then.
warnings.filterwarnings("ignore", "Producer abort_transaction failed during close", RuntimeWarning)

_FENCED: Final = frozenset({KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH})


class LibrdkafkaTransactions(LibrdkafkaSink):
    """One transactional producer; the contract is `TransactionalProducer`'s."""

    def __init__(
        self, settings: KafkaSettings, topics: Mapping[Channel, str], source_topic: str, transactional_id: str
    ) -> None:
        super().__init__(settings, topics, transactional_id)
        self._source_topic = source_topic

    def initialize(self, timeout_s: float) -> None:
        """Fence earlier producers under the id and wait until their last transaction is settled."""
        self._judged(lambda: self._live().init_transactions(timeout_s))

    def begin(self) -> None:
        """Begin a transaction."""
        self._judged(self._live().begin_transaction)

    def send_offsets(self, positions: Mapping[int, int], group: object, timeout_s: float) -> None:
        """Make positions part of the transaction."""
        if not _is_member(group):
            raise not_a_member()
        offsets = [TopicPartition(self._source_topic, partition, offset) for partition, offset in positions.items()]
        self._judged(lambda: self._live().send_offsets_to_transaction(offsets, group, timeout_s))

    def commit(self, timeout_s: float) -> None:
        """End the transaction; its records and positions become visible."""
        self._judged(lambda: self._live().commit_transaction(timeout_s))

    def abort(self, timeout_s: float) -> None:
        """End the transaction; nothing of it becomes visible."""
        self._judged(lambda: self._live().abort_transaction(timeout_s))
        self._failed, self._first_failure = 0, None

    def _judged(self, call: Callable[[], object]) -> None:
        try:
            call()
        except KafkaException as error:
            cause: KafkaError = error.args[0]
            if cause.code() in REJECTED:  # of a record, but it comes out of whatever is called next
                self._note_failure(cause, cause)
                self._raise_failure()
            raise TransactionFault(_ending(cause), cause) from error

    def close(self) -> None:
        """Let go of the connections; the client first tries to abort what is open."""
        try:
            super().close()
        except KafkaException as error:  # of a producer that is fenced or cut off: the coordinator sees to the rest
            log.debug("kafka %s: closing a producer: %s", self._settings.bootstrap_servers, error.args[0])


def _is_member(group: object) -> bool:
    """Tell whether the group's metadata has a generation; the client gives it as bytes, for C programs to read."""
    layout = b"CGMDv2:"
    if not isinstance(group, bytes) or not group.startswith(layout):
        raise TransportError(
            f"librdkafka describes its group as {group!r}, not as {layout!r} and a generation; whether this member may "
            f"commit cannot be told: use another version of confluent-kafka, or kafka.client = 'kafka-python'"
        )
    return int.from_bytes(group[len(layout) : len(layout) + 4], sys.byteorder, signed=True) >= 0


def _ending(error: KafkaError) -> Ending:
    if error.code() in _FENCED:
        return Ending.FENCED
    if error.code() == KafkaError.FENCED_INSTANCE_ID:
        return Ending.REPLACED
    return Ending.ABORTABLE if error.txn_requires_abort() else Ending.UNCERTAIN
