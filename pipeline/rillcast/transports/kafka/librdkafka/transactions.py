"""Transactions on librdkafka.

Owns: the meaning of the client's errors for a transaction. Does not know: when transactions begin and end, and what
follows a failure (`rillcast.transports.kafka.common.transactions`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Final

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from rillcast.settings import KafkaSettings
from rillcast.transports.base import Channel, Records
from rillcast.transports.kafka.common.record_size import Limits, Transaction
from rillcast.transports.kafka.common.transactions import Ending, TransactionFault, not_a_member
from rillcast.transports.kafka.librdkafka.errors import REJECTED
from rillcast.transports.kafka.librdkafka.sink import LibrdkafkaSink
from rillcast.transports.kafka.librdkafka.topic_admin import LibrdkafkaTopicAdmin
from rillcast.transports.kafka.librdkafka.workarounds import is_member

log = logging.getLogger(__name__)

_FENCED: Final = frozenset({KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH})


class LibrdkafkaTransactions(LibrdkafkaSink):
    """One transactional producer; the contract is that of `TransactionalProducer`."""

    def __init__(
        self,
        settings: KafkaSettings,
        topics: Mapping[Channel, str],
        limits: Limits,
        source_topic: str,
        transactional_id: str,
    ) -> None:
        super().__init__(settings, topics, limits, transactional_id)
        self._source_topic = source_topic
        self._transaction = Transaction(self._topics, limits)

    def initialize(self, timeout_s: float) -> None:
        """Fence earlier producers under the id and wait until their last transaction has ended."""
        self._judged(lambda: self._live().init_transactions(timeout_s))

    def begin(self) -> None:
        """Begin a transaction."""
        self._transaction.clear()
        self._judged(self._live().begin_transaction)

    def publish(self, channel: Channel, records: Records, partition: int | None = None) -> None:
        """Queue the records, and note them: the client reports a refusal without the record."""
        self._transaction.note(channel, records)
        super().publish(channel, records, partition)

    def send_offsets(self, positions: Mapping[int, int], group: object, timeout_s: float) -> None:
        """Make positions part of the transaction."""
        if not is_member(group):
            raise not_a_member()
        offsets = [TopicPartition(self._source_topic, partition, offset) for partition, offset in positions.items()]
        self._judged(lambda: self._live().send_offsets_to_transaction(offsets, group, timeout_s))

    def commit(self, timeout_s: float) -> None:
        """End the transaction; its records and positions become visible."""
        self._judged(lambda: self._live().commit_transaction(timeout_s))

    def abort(self, timeout_s: float) -> None:
        """End the transaction; nothing of it becomes visible."""
        self._judged(lambda: self._live().abort_transaction(timeout_s))
        self._ledger.clear()

    def close(self) -> None:
        """Close the connections; the client first tries to abort an open transaction."""
        try:
            super().close()
        except KafkaException as error:  # the producer is fenced or cut off: the coordinator ends the transaction
            log.debug("kafka %s: closing a producer: %s", self._settings.bootstrap_servers, error.args[0])

    def _described(self, cause: KafkaError) -> str:
        """Return a refusal with the record or topic, which the client does not name."""
        if cause.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            return self._transaction.described(cause)
        topics = self._transaction.topics
        if cause.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            admin = LibrdkafkaTopicAdmin(self._settings)
            allowed = {topic: admin.operations(topic) for topic in topics}
            topics = [topic for topic, found in allowed.items() if found is not None and "WRITE" not in found] or topics
        return f"{cause} (topic {' or '.join(topics)})"

    def _judged(self, call: Callable[[], object]) -> None:
        """Make a call and raise its failure as a `TransactionFault`."""
        try:
            call()
        except KafkaException as error:
            cause: KafkaError = error.args[0]
            if cause.code() in REJECTED:  # a record's error, raised by whichever call comes next
                self._note(cause, self._described(cause))
                self._ledger.raise_failure()
            raise TransactionFault(_ending(cause), cause) from error


def _ending(error: KafkaError) -> Ending:
    if error.code() in _FENCED:
        return Ending.FENCED
    if error.code() == KafkaError.FENCED_INSTANCE_ID:
        return Ending.REPLACED
    return Ending.ABORTABLE if error.txn_requires_abort() else Ending.UNCERTAIN
