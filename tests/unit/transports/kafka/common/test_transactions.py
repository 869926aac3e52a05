"""What a transactional sink says about a producer that does not start; the rest needs a broker."""

from __future__ import annotations

from typing import Any

import pytest

from rillcast.errors import FencedError, TransportError
from rillcast.settings import KafkaSettings
from rillcast.transports.kafka.common.transactions import Ending, KafkaTransactionalSink, TransactionFault


class Producer:
    """Fails to start."""

    def __init__(self, ending: Ending) -> None:
        self._ending = ending

    def initialize(self, _timeout_s: float) -> None:
        raise TransactionFault(self._ending, "Coordinator load in progress")

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("ending", "error"),
    [(Ending.ABORTABLE, TransportError), (Ending.UNCERTAIN, TransportError), (Ending.FENCED, FencedError)],
)
def test_a_producer_that_does_not_start_is_named_by_its_transactional_id(
    ending: Ending, error: type[Exception]
) -> None:
    made: Any = Producer(ending)
    with pytest.raises(error, match=r"transactional id pod-0: .*Coordinator load in progress") as raised:
        KafkaTransactionalSink(KafkaSettings(), "pod-0", lambda: made)
    assert "topic" not in str(raised.value)
