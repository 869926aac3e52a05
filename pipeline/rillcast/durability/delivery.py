"""The two orders of a commit.

`at_least_once`
    1. every forecast and dead letter so far is durable                       (sink.flush)
    2. the positions after the last events that they cover are durable        (source.commit)
    3. pages of the state that changed, and marks, are durable                (store.stage, sink.flush)
    4. the store may show the pages                                           (store.commit)

`exactly_once`
    1. pages and marks join the open transaction                              (store.stage)
    2. forecasts, dead letters, pages and positions become visible together   (sink.commit)
    3. the store may show the pages                                           (store.commit)

Either way stored state is never ahead of the committed positions: pages that a crash kept from being written cost a
longer replay and nothing else. A crash before the positions are durable means, at_least_once, that events are read
again and their forecasts published again, with the same `source`.

A commit that is bounded (partitions are being revoked) gives each of its steps what is left of its time. A step that
knows no time-out of its own is given up when the time is over, and the process with it: what hangs might still commit,
after the partitions have a new owner.

Owns: the orders, and the time that they may take. Does not know: when a commit is due or what is in it, events, models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from rillcast.engine.pages import Page
from rillcast.errors import TransportError
from rillcast.stores.base import Claim, Mark, StateStore, Superseded
from rillcast.transports.base import Sink, Source, TransactionalSink
from rillcast.transports.kafka.common.watchdog import TimedOut, call_within


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What one commit stores of one model.

    Attributes:
        store: of the model.
        pages: that changed.
        marks: of partitions all of whose pages are current.
        claims: by partition, that this model serves it from this commit on.
        retired: by partition and model id, models that served it before and whose state is removed.
    """

    store: StateStore
    pages: list[Page] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    claims: dict[int, Claim] = field(default_factory=dict)
    retired: dict[tuple[int, str], Superseded] = field(default_factory=dict)


class Budget:
    """How long a commit may take.

    Args:
        within_s: in all; None = as long as the time-outs of its parts allow.
        clock: monotonic seconds.
    """

    def __init__(self, within_s: float | None, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._ends_at = None if within_s is None else clock() + within_s

    @property
    def left_s(self) -> float | None:
        """What is left of it; None = it is not bounded."""
        return None if self._ends_at is None else max(0.0, self._ends_at - self._clock())

    def capped(self, timeout_s: float) -> float:
        """Return `timeout_s`, or what is left if that is less."""
        return timeout_s if (left_s := self.left_s) is None else min(timeout_s, left_s)

    def spend(self, call: Callable[[], None], what: str) -> None:
        """Make a call that knows no time-out.

        Raises:
            TransportError: the time is over and the call is still under way; the process has to end.
        """
        if (left_s := self.left_s) is None:
            call()
            return
        try:
            call_within(left_s, call, at_late_end=lambda: None)
        except TimedOut as error:
            raise TransportError(
                f"{what} did not end within worker.revoke_timeout_s ({error}); this member ends without it, and what "
                f"it had is read again by its successors"
            ) from error


class Delivery(Protocol):
    """One of the two orders above."""

    def commit(self, positions: Mapping[int, int], snapshots: Sequence[Snapshot], budget: Budget) -> None:
        """Make everything published so far, the snapshots in their order and the positions durable.

        Raises:
            DeliveryError: published records are not, and nothing was committed.
            TransportError: it is not, and the worker has to end or, if `TransactionAborted`, to go back.
        """
        ...


class AtLeastOnce:
    """Repeats after a crash, never a loss."""

    def __init__(self, source: Source, sink: Sink, flush_timeout_s: float) -> None:
        self._source = source
        self._sink = sink
        self._flush_timeout_s = flush_timeout_s

    def commit(self, positions: Mapping[int, int], snapshots: Sequence[Snapshot], budget: Budget) -> None:
        """See `Delivery`; the order is that of the module's docstring."""
        self._sink.flush(budget.capped(self._flush_timeout_s))
        if positions:
            self._source.commit(positions, budget.left_s)
        if snapshots:
            budget.spend(lambda: _stage(snapshots), "storing the state")
            self._sink.flush(budget.capped(self._flush_timeout_s))
            budget.spend(lambda: _show(snapshots), "storing the state")


class ExactlyOnce:
    """Everything of a commit, or nothing."""

    def __init__(self, source: Source, sink: TransactionalSink) -> None:
        self._source = source
        self._sink = sink

    def commit(self, positions: Mapping[int, int], snapshots: Sequence[Snapshot], budget: Budget) -> None:
        """See `Delivery`; the order is that of the module's docstring."""
        if snapshots:
            budget.spend(lambda: _stage(snapshots), "storing the state")
        self._sink.commit(positions, self._source.group(), budget.left_s)
        if snapshots:
            budget.spend(lambda: _show(snapshots), "storing the state")


def _stage(snapshots: Sequence[Snapshot]) -> None:
    for snapshot in snapshots:
        snapshot.store.stage(snapshot.pages, snapshot.marks)
        for (partition, model_id), before in snapshot.retired.items():
            snapshot.store.retire(partition, model_id, before)
        snapshot.store.claim(snapshot.claims)


def _show(snapshots: Sequence[Snapshot]) -> None:
    for snapshot in snapshots:
        snapshot.store.commit()
