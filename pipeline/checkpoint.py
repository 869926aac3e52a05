"""What one commit contains, and in which order; when commits and snapshots are due.

`at_least_once`
    1. every forecast and dead letter so far is durable                       (sink.flush)
    2. the positions after the last events that they cover are durable        (source.commit)
    3. pages of the state that changed, and marks, are durable                (store.stage, sink.flush)
    4. the store may show the pages                                           (store.commit)

`exactly_once`
    1. pages and marks join the open transaction                              (store.stage)
    2. forecasts, dead letters, pages and positions become visible together   (sink.commit)
    3. the store may show the pages                                           (store.commit)

Most commits carry no pages. A snapshot, every `snapshot_interval_s`, goes through the partitions one after the other:
all changed pages of a partition and its mark are in one commit, and a commit takes partitions until it has
`pages_per_commit` pages. A partition is passed over while it is cheaper to replay than to write: a page of 256 streams
is written whole, also where few of them had an event. So it is written when `snapshot_events_per_stream` came for each
of its streams, or when `snapshot_max_interval_s` has passed.

Either way stored state is never ahead of the committed positions: pages that a crash kept from being written cost a
longer replay and nothing else. A crash before the positions are durable means, at_least_once, that events are read
again and their forecasts published again, with the same `source`.

A commit that is bounded (partitions are being revoked) takes nothing of other partitions' snapshots along, and each of
its steps gets what is left of its time. A step that knows no time-out of its own is given up when the time is over, and
the process with it: what hangs might still commit, after the partitions have a new owner.

Owns: the positions not yet committed, and the schedule. Does not know: events, models, metrics.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pipeline.arrays import IntArray
from pipeline.errors import TransportError
from pipeline.residents import NO_WATERMARK, Residents
from pipeline.settings import StateSettings
from pipeline.stores.base import Mark, Page, StateStore
from pipeline.transports.base import Sink, Source, TransactionalSink
from pipeline.transports.watchdog import GivenUp, call_within


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
        except GivenUp as error:
            raise TransportError(
                f"{what} did not end within worker.revoke_timeout_s ({error}); this member ends without it, and what "
                f"it had is read again by its successors"
            ) from error


class Delivery(Protocol):
    """One of the two orders above."""

    def commit(
        self, positions: Mapping[int, int], pages: Sequence[Page], marks: Sequence[Mark], budget: Budget
    ) -> None:
        """Make everything published so far, the pages and the positions durable.

        Raises:
            DeliveryError: published records are not, and nothing was committed.
            TransportError: it is not, and the worker has to end or, if `TransactionAborted`, to go back.
        """
        ...


class AtLeastOnce:
    """Repeats after a crash, never a loss."""

    def __init__(self, source: Source, sink: Sink, store: StateStore | None, flush_timeout_s: float) -> None:
        self._source = source
        self._sink = sink
        self._store = store
        self._flush_timeout_s = flush_timeout_s

    def commit(
        self, positions: Mapping[int, int], pages: Sequence[Page], marks: Sequence[Mark], budget: Budget
    ) -> None:
        """See `Delivery`; the order is that of the module's docstring."""
        self._sink.flush(budget.capped(self._flush_timeout_s))
        if positions:
            self._source.commit(positions, budget.left_s)
        if self._store is not None and (pages or marks):
            store = self._store
            budget.spend(lambda: store.stage(pages, marks), "storing the state")
            self._sink.flush(budget.capped(self._flush_timeout_s))
            budget.spend(store.commit, "storing the state")


class ExactlyOnce:
    """Everything of a commit, or nothing."""

    def __init__(self, source: Source, sink: TransactionalSink, store: StateStore | None) -> None:
        self._source = source
        self._sink = sink
        self._store = store

    def commit(
        self, positions: Mapping[int, int], pages: Sequence[Page], marks: Sequence[Mark], budget: Budget
    ) -> None:
        """See `Delivery`; the order is that of the module's docstring."""
        store = self._store if pages or marks else None
        if store is not None:
            budget.spend(lambda: store.stage(pages, marks), "storing the state")
        self._sink.commit(positions, self._source.group(), budget.left_s)
        if store is not None:
            budget.spend(store.commit, "storing the state")


@dataclass(slots=True)
class _Progress:
    """How far a partition is."""

    position: int  # events below it are in the state
    stored: int  # position up to which a replay is not needed
    stored_at: float  # when that was so
    marked: int | None = None  # position of the last mark of this process


@dataclass(frozen=True, slots=True)
class Committed:
    """What a commit did, for the metrics."""

    pages: int
    marks: int


class Checkpoint:
    """The pending commit. Used from one thread."""

    def __init__(
        self,
        delivery: Delivery,
        residents: Residents,
        *,
        snapshots: StateSettings | None,
        interval_s: float,
        clock: Callable[[], float],
    ) -> None:
        """Start with nothing pending.

        Args:
            delivery: the order of a commit.
            residents: whose pages a snapshot holds.
            snapshots: the schedule of snapshots; None = there is no store.
            interval_s: of commits.
            clock: monotonic seconds.
        """
        self._delivery = delivery
        self._residents = residents
        self._snapshots = snapshots
        self._interval_s = interval_s
        self._clock = clock
        self._progress: dict[int, _Progress] = {}
        self._pending: set[int] = set()
        self._resets: dict[int, Mark] = {}
        self._queue: deque[int] = deque()
        self._due_at = clock() + interval_s
        self._snapshot_at = clock() + (snapshots.snapshot_interval_s if snapshots else 0.0)

    @property
    def due(self) -> bool:
        """Whether there is something to commit and it is time."""
        if self._clock() < self._due_at:
            return False
        return bool(self._pending or self._queue or self._resets) or self._snapshot_due()

    @property
    def has_pages(self) -> bool:
        """Whether the next commit may carry pages of the state, which then has to stand where the positions do."""
        return bool(self._queue) or self._snapshot_due()

    def begin(self, partition: int, position: int, *, new_life: bool) -> None:
        """Note where a partition's state stands; `new_life` = whatever the store may have of it no longer counts."""
        self._progress[partition] = _Progress(position, position, self._clock())
        if new_life and self._snapshots is not None:
            # Without this, pages of the old life could be taken for ones of the new between two snapshots.
            self._resets[partition] = Mark(partition, position, NO_WATERMARK, 0)

    def processed(self, partitions: IntArray, offsets: IntArray, live: Collection[int]) -> None:
        """Note events that are in the state and whose results, in `live` partitions, were handed to the sink.

        Args:
            partitions: `(n,)` int64.
            offsets: `(n,)` int64, increasing within a partition.
            live: partitions that are past their replay, so that their positions are to be committed.
        """
        for partition in np.unique(partitions).tolist():
            # A committed position is the next offset to read: the last processed one plus one.
            self._progress[partition].position = int(offsets[partitions == partition][-1]) + 1
            if partition in live:
                self._pending.add(partition)

    def position(self, partition: int) -> int:
        """Return the offset up to which a partition's events are in the state."""
        return self._progress[partition].position

    def forget(self, partitions: Iterable[int]) -> None:
        """Drop partitions that are no longer ours to commit."""
        for partition in partitions:
            self._progress.pop(partition, None)
            self._resets.pop(partition, None)
            self._pending.discard(partition)

    def commit(
        self,
        live: Collection[int],
        final: Collection[int] = (),
        within_s: float | None = None,
        *,
        pages: bool = True,
    ) -> Committed:
        """Commit what is pending, and the part of a snapshot that is due.

        Args:
            live: partitions that are past their replay; only these are snapshot.
            final: partitions whose last commit this is: all of their changed pages go with it.
            within_s: bounds the commit, and leaves the snapshot of others to a later one: a commit that fails for want
                of time is not the end of this process, which has to store their pages yet.
            pages: whether pages may go along, because the states stand where the positions do.

        Raises:
            TransportError: see `Delivery`.
        """
        budget = Budget(within_s, self._clock)
        partitions = self._snapshot_now(live, final, alone=within_s is not None) if pages else []
        exported = [page for p in partitions for page in self._residents.export(p, self.position(p))]
        marks = {p: mark for p, mark in self._resets.items() if p in self._progress}
        for p in partitions:
            marks[p] = Mark(p, self.position(p), self._residents.watermark(p), self._residents.num_pages(p))
        # State is never stored for a group that has no offset: the two could not be paired again.
        positions = {p: self.position(p) for p in {*self._pending, *partitions, *(self._resets.keys() & set(live))}}
        if positions or marks:
            self._delivery.commit(positions, exported, list(marks.values()), budget)
        for p in partitions:
            progress = self._progress[p]
            progress.marked = progress.stored = marks[p].offset
            progress.stored_at = self._clock()
        self._resets.clear()
        self._pending.clear()
        self._due_at = self._clock() + self._interval_s
        return Committed(len(exported), len(marks))

    def _snapshot_due(self) -> bool:
        return self._snapshots is not None and self._clock() >= self._snapshot_at

    def _snapshot_now(self, live: Collection[int], final: Collection[int], *, alone: bool) -> list[int]:
        """Return the partitions whose changed pages go with this commit."""
        if self._snapshots is None:
            return []
        chosen = [p for p in sorted(final) if p in live and self._moved(p)]
        if alone:
            return chosen
        if self._snapshot_due() and not self._queue:
            self._queue.extend(p for p in sorted(live) if self._worth_it(p, self._snapshots))
            self._snapshot_at = self._clock() + self._snapshots.snapshot_interval_s
        size = 0
        while self._queue and size < self._snapshots.pages_per_commit:
            partition = self._queue.popleft()
            if partition in live and partition not in chosen and self._moved(partition):
                chosen.append(partition)
                size += self._residents.num_changed(partition)
        return chosen

    def _worth_it(self, partition: int, snapshots: StateSettings) -> bool:
        """Return whether to write a partition's changed pages now is better than to have them replayed."""
        progress = self._progress[partition]
        enough = snapshots.snapshot_events_per_stream * self._residents.num_to_write(partition)
        return (
            progress.position - progress.stored >= enough
            or self._clock() - progress.stored_at >= snapshots.snapshot_max_interval_s
        )

    def _moved(self, partition: int) -> bool:
        progress = self._progress.get(partition)
        return progress is not None and progress.position != progress.marked
