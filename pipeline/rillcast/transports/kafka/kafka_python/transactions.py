"""Transactions on kafka-python.

Owns: what its errors say about a transaction. Does not know: when transactions begin and end, and what follows a
failure (`rillcast.transports.kafka.common.transactions`).

The client's transaction manager is asked for the error behind a failure, since its methods raise a bare `KafkaError`
with the cause in its text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from kafka import OffsetAndMetadata, TopicPartition
from kafka.errors import FencedInstanceIdError, InvalidProducerEpochError, KafkaError, ProducerFencedError
from kafka.structs import ConsumerGroupMetadata

from rillcast.errors import DeliveryError
from rillcast.settings import KafkaSettings
from rillcast.transports.base import Channel
from rillcast.transports.kafka.common.transactions import Ending, TransactionFault, not_a_member
from rillcast.transports.kafka.kafka_python.sink import KafkaPythonSink

_FENCED: Final = (ProducerFencedError, InvalidProducerEpochError)


class KafkaPythonTransactions(KafkaPythonSink):
    """One transactional producer; the contract is `TransactionalProducer`'s."""

    def __init__(
        self, settings: KafkaSettings, topics: Mapping[Channel, str], source_topic: str, transactional_id: str
    ) -> None:
        super().__init__(settings, topics, transactional_id)
        self._source_topic = source_topic
        # To a record that is refused for its old epoch the client answers by asking for a new one, on its own: so a
        # zombie would fence its successor, and a commit that comes after it would succeed without its records. Without
        # epoch bumps (KIP-360) the client has a fatal error instead, and what follows is the sink's to decide.
        self._manager()._supports_epoch_bump = lambda: False

    def initialize(self, timeout_s: float) -> None:  # noqa: ARG002  `max_block_ms` is the time-out
        """Fence earlier producers under the id and wait until their last transaction is settled."""
        self._judged(lambda: self._live().init_transactions())

    def begin(self) -> None:
        """Begin a transaction."""
        self._judged(lambda: self._live().begin_transaction())

    def flush(self, timeout_s: float) -> None:
        """Wait for the acknowledgement of every record.

        Raises:
            DeliveryError: a record failed, or the time is up.
            TransactionFault: the producer is fenced.
        """
        try:
            super().flush(timeout_s)
        except DeliveryError as error:
            if isinstance(self._first_failure, _FENCED) or isinstance(self._cause(error), _FENCED):
                raise TransactionFault(Ending.FENCED, error) from error
            raise

    def send_offsets(self, positions: Mapping[int, int], group: object, timeout_s: float) -> None:  # noqa: ARG002
        """Make positions part of the transaction; the client knows no time-out here."""
        assert isinstance(group, ConsumerGroupMetadata)  # what this client's source returned
        if group.generation_id < 0 or not group.member_id:
            raise not_a_member()
        offsets = {
            TopicPartition(self._source_topic, partition): OffsetAndMetadata(offset, "", -1)
            for partition, offset in positions.items()
        }
        self._judged(lambda: self._live().send_offsets_to_transaction(offsets, group))

    def commit(self, timeout_s: float) -> None:  # noqa: ARG002  the client knows no time-out here
        """End the transaction; its records and positions become visible."""
        self._judged(lambda: self._live().commit_transaction())

    def abort(self, timeout_s: float) -> None:  # noqa: ARG002  the client knows no time-out here
        """End the transaction; nothing of it becomes visible."""
        self._judged(lambda: self._live().abort_transaction())
        # The client would send positions that were refused along with those of the next transaction.
        self._manager()._pending_txn_offset_commits.clear()
        self._pending.clear()
        self._failed, self._first_failure = 0, None

    def _manager(self) -> Any:
        return self._live()._transaction_manager

    def _cause(self, error: Exception) -> object:
        return error if isinstance(error, (*_FENCED, FencedInstanceIdError)) else self._manager().last_error or error

    def _judged(self, call: Callable[[], object]) -> None:
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
        return Ending.ABORTABLE if self._manager().has_abortable_error() else Ending.UNCERTAIN
