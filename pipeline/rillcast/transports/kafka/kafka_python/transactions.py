"""Transactions on kafka-python.

Owns: the meaning of the client's errors for a transaction. Does not know: when transactions begin and end, and what
follows a failure (`rillcast.transports.kafka.common.transactions`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from kafka import OffsetAndMetadata, TopicPartition
from kafka.errors import FencedInstanceIdError, InvalidProducerEpochError, KafkaError, ProducerFencedError
from kafka.structs import ConsumerGroupMetadata

from rillcast.errors import DeliveryError
from rillcast.settings import KafkaSettings
from rillcast.transports.base import Channel
from rillcast.transports.kafka.common.record_size import Limits
from rillcast.transports.kafka.common.transactions import Ending, TransactionFault, not_a_member
from rillcast.transports.kafka.kafka_python import workarounds
from rillcast.transports.kafka.kafka_python.sink import KafkaPythonSink

_FENCED: Final = (ProducerFencedError, InvalidProducerEpochError)


class KafkaPythonTransactions(KafkaPythonSink):
    """One transactional producer; the contract is that of `TransactionalProducer`.

    The client's transactional calls take no time-out: `timeout_s` is unused, and the caller bounds them.
    """

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
        workarounds.refuse_epoch_bumps(self._live())

    def initialize(self, timeout_s: float) -> None:  # noqa: ARG002  `max_block_ms` is the time-out
        """Fence earlier producers under the id and wait until their last transaction has ended."""
        self._judged(lambda: self._live().init_transactions())

    def begin(self) -> None:
        """Begin a transaction."""
        self._judged(lambda: self._live().begin_transaction())

    def flush(self, timeout_s: float) -> None:
        """Wait for the acknowledgement of every record.

        Raises:
            DeliveryError: A record failed, or the time is up.
            TransactionFault: The producer is fenced.
        """
        try:
            super().flush(timeout_s)
        except DeliveryError as error:
            if isinstance(self._ledger.first, _FENCED) or isinstance(self._cause(error), _FENCED):
                raise TransactionFault(Ending.FENCED, error) from error
            raise

    def send_offsets(self, positions: Mapping[int, int], group: object, timeout_s: float) -> None:  # noqa: ARG002  as `commit`
        """Make positions part of the transaction."""
        assert isinstance(group, ConsumerGroupMetadata)  # what this client's source returned
        if group.generation_id < 0 or not group.member_id:
            raise not_a_member()
        offsets = {
            TopicPartition(self._source_topic, partition): OffsetAndMetadata(offset, "", -1)
            for partition, offset in positions.items()
        }
        self._judged(lambda: self._live().send_offsets_to_transaction(offsets, group))

    def commit(self, timeout_s: float) -> None:  # noqa: ARG002  the client takes none
        """End the transaction; its records and positions become visible."""
        self._judged(lambda: self._live().commit_transaction())

    def abort(self, timeout_s: float) -> None:  # noqa: ARG002  the client takes none
        """End the transaction; nothing of it becomes visible."""
        self._judged(lambda: self._live().abort_transaction())
        workarounds.drop_refused_positions(self._live())
        self._pending.clear()
        self._ledger.clear()

    def _cause(self, error: Exception) -> object:
        if isinstance(error, (*_FENCED, FencedInstanceIdError)):
            return error
        return workarounds.cause_of(self._live(), error)

    def _judged(self, call: Callable[[], object]) -> None:
        """Make a call and raise its failure as a `TransactionFault`."""
        try:
            call()
        except KafkaError as error:
            raise TransactionFault(self._ending(error), self._cause(error)) from error

    def _ending(self, error: KafkaError) -> Ending:
        cause = self._cause(error)
        if isinstance(cause, _FENCED):
            return Ending.FENCED
        if isinstance(cause, FencedInstanceIdError):
            return Ending.REPLACED
        return Ending.ABORTABLE if workarounds.can_abort(self._live()) else Ending.UNCERTAIN
