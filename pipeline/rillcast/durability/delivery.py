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

Either way stored state is never ahead of the committed positions: a crash that prevents pages from being written costs
a longer replay and nothing else. Under `at_least_once`, a crash before the positions are durable has events read again
and their forecasts published again, with the same `source`.

A bounded commit (partitions are being revoked) gives each of its steps the time that is left. A step without a time-out
of its own is abandoned when the time is over, and the process ends with it: a call that hangs might still commit after
the partitions have a new owner.

Owns: the orders, and the time that they may take. Does not know: when a commit is due or what it carries, events,
models.
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
        store: The store of the model.
        pages: Pages that changed.
        marks: Marks of partitions all of whose pages are current.
        claims: By partition, the claim that this model serves it from this commit on.
        retired: By partition and model id, models that served it before and whose state is removed.
    """

    store: StateStore
    pages: list[Page] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    claims: dict[int, Claim] = field(default_factory=dict)
    retired: dict[tuple[int, str], Superseded] = field(default_factory=dict)


class Budget:
    """How long a commit may take.

    Args:
        within_s: Seconds in all; None = as long as the time-outs of its parts allow.
        clock: Monotonic seconds.
    """

    def __init__(self, within_s: float | None, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._ends_at = None if within_s is None else clock() + within_s

    @property
    def left_s(self) -> float | None:
        """Seconds that are left; None = unbounded."""
        return None if self._ends_at is None else max(0.0, self._ends_at - self._clock())

    def capped(self, timeout_s: float) -> float:
        """Return `timeout_s`, or the seconds that are left if they are fewer."""
        return timeout_s if (left_s := self.left_s) is None else min(timeout_s, left_s)

    def spend(self, call: Callable[[], None], what: str) -> None:
        """Make a call that has no time-out of its own.

        Args:
            call: The call.
            what: What it does, for the message.

        Raises:
            TransportError: The time is over and the call is still under way; the process has to end.
        """
        if (left_s := self.left_s) is None:
            call()
            return
        try:
            call_within(left_s, call, at_late_end=lambda: None)
        except TimedOut as error:
            raise TransportError(
                f"{what} did not end within worker.revoke_timeout_s ({error}); this member ends without it, and its "
                f"successors read the events again"
            ) from error


class Delivery(Protocol):
    """One of the two orders above."""

    def commit(self, positions: Mapping[int, int], snapshots: Sequence[Snapshot], budget: Budget) -> None:
        """Make durable: everything published so far, the snapshots in their order, and the positions.

        Args:
            positions: By partition, the offset of the next record to read.
            snapshots: The state that is stored.
            budget: How long it may take.

        Raises:
            DeliveryError: Published records are not durable, and nothing was committed.
            TransactionAborted: Nothing is visible; the worker resets to the committed positions.
            TransportError: Another step failed; the worker has to end.
        """
        ...


class AtLeastOnce:
    """A crash repeats results and never loses one."""

    def __init__(self, source: Source, sink: Sink, flush_timeout_s: float) -> None:
        self._source = source
        self._sink = sink
        self._flush_timeout_s = flush_timeout_s

    def commit(self, positions: Mapping[int, int], snapshots: Sequence[Snapshot], budget: Budget) -> None:
        """See `Delivery`, and the order in the module's docstring."""
        self._sink.flush(budget.capped(self._flush_timeout_s))
        if positions:
            self._source.commit(positions, budget.left_s)
        if snapshots:
            budget.spend(lambda: _stage(snapshots), "storing the state")
            self._sink.flush(budget.capped(self._flush_timeout_s))
            budget.spend(lambda: _show(snapshots), "storing the state")


class ExactlyOnce:
    """A crash leaves everything of a commit, or nothing."""

    def __init__(self, source: Source, sink: TransactionalSink) -> None:
        self._source = source
        self._sink = sink

    def commit(self, positions: Mapping[int, int], snapshots: Sequence[Snapshot], budget: Budget) -> None:
        """See `Delivery`, and the order in the module's docstring."""
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
