"""Transactions on librdkafka.

Owns: what its errors say about a transaction. Does not know: when transactions begin and end, and what follows a
failure (`pipeline.transports.transactions`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Final

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from pipeline.settings import KafkaSettings
from pipeline.transports.base import Channel
from pipeline.transports.librdkafka.sink import LibrdkafkaSink
from pipeline.transports.transactions import Ending, TransactionFault

log = logging.getLogger(__name__)

_FENCED: Final = frozenset({KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH})


class LibrdkafkaTransactions(LibrdkafkaSink):
    """One transactional producer. See `pipeline.transports.transactions.TransactionalProducer` for the contract."""

    def __init__(
        self, settings: KafkaSettings, topics: Mapping[Channel, str], source_topic: str, transactional_id: str
    ) -> None:
        super().__init__(settings, topics, transactional_id)
        self._source_topic = source_topic

    def initialize(self, timeout_s: float) -> None:
        """Fence earlier producers under the id and wait until their last transaction is settled."""
        _judged(lambda: self._live().init_transactions(timeout_s))

    def begin(self) -> None:
        """Begin a transaction."""
        _judged(self._live().begin_transaction)

    def send_offsets(self, positions: Mapping[int, int], group: object, timeout_s: float) -> None:
        """Make positions part of the transaction."""
        offsets = [TopicPartition(self._source_topic, partition, offset) for partition, offset in positions.items()]
        _judged(lambda: self._live().send_offsets_to_transaction(offsets, group, timeout_s))

    def commit(self, timeout_s: float) -> None:
        """End the transaction; its records and positions become visible."""
        _judged(lambda: self._live().commit_transaction(timeout_s))

    def abort(self, timeout_s: float) -> None:
        """End the transaction; nothing of it becomes visible."""
        _judged(lambda: self._live().abort_transaction(timeout_s))
        self._failed, self._first_failure = 0, None  # the records that were purged, and those that made it necessary


def _judged(call: Callable[[], object]) -> None:
    try:
        call()
    except KafkaException as error:
        cause: KafkaError = error.args[0]
        raise TransactionFault(_ending(cause), cause) from error


def _ending(error: KafkaError) -> Ending:
    if error.code() in _FENCED:
        return Ending.FENCED
    if error.code() == KafkaError.FENCED_INSTANCE_ID:
        return Ending.REPLACED
    return Ending.ABORTABLE if error.txn_requires_abort() else Ending.UNCERTAIN
