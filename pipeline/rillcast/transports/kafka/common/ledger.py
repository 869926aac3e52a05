"""Counts the records that a sink failed to deliver.

Owns: the count, the first reason, and whether sending again could help. Does not know: either client library.
Invariant: after one lost record every check raises, until the transaction that held the record is aborted.
"""

from __future__ import annotations

from rillcast.errors import DeliveryError
from rillcast.transports.kafka.common import failures


class FailureLedger:
    """Belongs to one producer. Written from callbacks and read between calls, both on one thread."""

    def __init__(self, bootstrap_servers: str) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._failed = 0
        self.first: object = None
        self.rejected = False

    def note(self, reason: object, *, rejected: bool) -> None:
        """Count one lost record.

        Args:
            reason: The client's error, or a text with more detail.
            rejected: Whether the brokers refuse the record itself (too large, not allowed), so that a retry is useless.
        """
        self._failed += 1
        self.rejected |= rejected
        if self.first is None:
            self.first = reason

    def raise_failure(self) -> None:
        """Raise if a record was lost.

        Raises:
            DeliveryError: At least one record was not delivered.
        """
        if self._failed:
            raise self.error()

    def error(self) -> DeliveryError:
        """Return the error for what was noted so far."""
        return failures.not_delivered(self._bootstrap_servers, self._failed, self.first)

    def clear(self) -> None:
        """Forget the failures of a transaction that was aborted; `rejected` stays, since its caller still asks."""
        self._failed, self.first = 0, None
