"""What a transactional sink says about a producer that does not start, and what a failed one leaves; the rest needs a
broker."""

from __future__ import annotations

import gc
import logging
import weakref
from typing import Any

import pytest

from rillcast.errors import FencedError, TransactionAborted, TransportError
from rillcast.settings import KafkaSettings
from rillcast.transports.kafka.common.transactions import Ending, KafkaTransactionalSink, TransactionFault


class Unfinished:
    """Ends no transaction with positions."""

    def __init__(self, ending: Ending) -> None:
        self._ending = ending

    def initialize(self, _timeout_s: float) -> None:
        pass

    def begin(self) -> None:
        pass

    close = begin

    def flush(self, _timeout_s: float) -> None:
        pass

    abort = flush

    def send_offsets(self, _positions: object, _group: object, _timeout_s: float) -> None:
        raise TransactionFault(self._ending, "Timed out")


class Commit:
    """What a commit carries: models, among other things."""


@pytest.mark.parametrize("ending", [Ending.ABORTABLE, Ending.UNCERTAIN])
def test_a_transaction_that_failed_leaves_with_what_its_commit_carried(
    ending: Ending, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model in a cycle of an error and its frames stayed in memory until Python's next full collection."""
    monkeypatch.setattr(logging.getLogger(KafkaTransactionalSink.__module__), "disabled", True)  # pytest keeps errors
    producer: Any = Unfinished(ending)
    sink = KafkaTransactionalSink(KafkaSettings(), "pod-0", lambda: producer)

    def commit() -> None:
        carried = Commit()
        alive.append(weakref.ref(carried))
        sink.commit({0: 1}, None)

    alive: list[weakref.ref[Commit]] = []
    gc.disable()
    try:
        try:
            commit()
        except TransactionAborted:
            assert alive[0]() is not None, "the error holds the frames that it has passed"
        assert alive[0]() is None
    finally:
        gc.enable()


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
