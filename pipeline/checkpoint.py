"""What one commit contains, and when commits and snapshots are due.

Most commits carry no pages. A snapshot, every `snapshot_interval_s`, goes through the partitions one after the other,
`pages_per_commit` pages at a time, for the loop stands still while pages are copied and compressed. What of a partition
had changed when its turn came is written, each page as of the commit that it goes with; the mark goes with the last of
them and says where the partition stood when its turn came. Every page is current up to there, and most are newer, which
a replay knows, for a page says its own offset. A partition is passed over while it is cheaper to replay than to write:
a page of 256 streams is written whole, also where few of them had an event. So it is written when
`snapshot_events_per_stream` came for each of its streams, or when `snapshot_max_interval_s` has passed.

A partition that goes over from one model to another does so in one commit (`handovers`): the last pages and the mark of
the model before, then all pages, a mark and the claim of the one after, all as of the same position. A crash on either
side of that commit finds the model before with its state, or the one after with its own.

A commit that is bounded (partitions are being revoked) takes nothing of other partitions' snapshots along. The last
commit of a partition takes all of its changed pages, and a mark as of its position.

Owns: the positions not yet committed, and the schedule. Does not know: the order of a commit (`pipeline.delivery`),
events, metrics.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.arrays import IntArray
from pipeline.delivery import Budget, Delivery, Snapshot
from pipeline.lanes import Lane, Lanes
from pipeline.residents import NO_WATERMARK
from pipeline.settings import StateSettings
from pipeline.stores.base import Mark


@dataclass(slots=True)
class _Progress:
    """How far a partition is."""

    position: int  # events below it are in the state
    stored: int  # position up to which a replay is not needed
    stored_at: float  # when that was so
    marked: int | None = None  # position of the last mark of this process
    claimed_by: str | None = None  # the model that the store says serves it


@dataclass(frozen=True, slots=True)
class _Turn:
    """A partition that is being written."""

    partition: int
    mark: Mark  # as of when its turn came
    numbers: deque[int]  # of its pages that had changed then and are not written yet


@dataclass(frozen=True, slots=True)
class _Share:
    """What a commit writes of a partition whose turn it is."""

    partition: int
    numbers: list[int]
    mark: Mark | None  # with the last of its pages


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
        lanes: Lanes,
        *,
        snapshots: StateSettings | None,
        interval_s: float,
        clock: Callable[[], float],
    ) -> None:
        """Start with nothing pending.

        Args:
            delivery: the order of a commit.
            lanes: whose pages a snapshot holds.
            snapshots: the schedule of snapshots; None = there is no store.
            interval_s: of commits.
            clock: monotonic seconds.
        """
        self._delivery = delivery
        self._lanes = lanes
        self._snapshots = snapshots
        self._interval_s = interval_s
        self._clock = clock
        self._progress: dict[int, _Progress] = {}
        self._pending: set[int] = set()
        self._resets: dict[int, Mark] = {}
        self._queue: deque[int] = deque()
        self._turn: _Turn | None = None
        self._due_at = clock() + interval_s
        self._snapshot_at = clock() + (snapshots.snapshot_interval_s if snapshots else 0.0)

    @property
    def due(self) -> bool:
        """Whether there is something to commit and it is time."""
        if self._clock() < self._due_at:
            return False
        return bool(self._pending or self._resets) or self.has_pages

    @property
    def has_pages(self) -> bool:
        """Whether the next commit may carry pages of the state, which then has to stand where the positions do."""
        return bool(self._queue) or self._turn is not None or self._snapshot_due()

    def begin(self, partition: int, position: int, *, new_life: bool, claimed_by: str | None = None) -> None:
        """Note where a partition's state stands.

        Args:
            partition: that begins.
            position: events below it are in the state.
            new_life: whatever the store may have of it no longer counts.
            claimed_by: the model that the store says serves it.
        """
        self._end_turns([partition])
        self._progress[partition] = _Progress(position, position, self._clock(), claimed_by=claimed_by)
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
        partitions = list(partitions)
        self._end_turns(partitions)
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
        handovers: Mapping[int, Lane] | None = None,
    ) -> Committed:
        """Commit what is pending, and the part of a snapshot that is due.

        Args:
            live: partitions that are past their replay; only these are snapshot.
            final: partitions whose last commit this is: all of their changed pages go with it.
            within_s: bounds the commit, and leaves the snapshot of others to a later one: a commit that fails for want
                of time is not the end of this process, which has to store their pages yet.
            pages: whether pages may go along, because the states stand where the positions do.
            handovers: the lanes that serve some partitions from this commit on, as soon as the caller has given them to
                it; their states stand where the positions do. Asks for `pages`.

        Raises:
            TransportError: see `Delivery`.
        """
        handovers = handovers or {}
        assert pages or not handovers, "a state is handed over where the positions are"
        budget = Budget(within_s, self._clock)
        last = {*final, *handovers}
        whole = self._whole(live, last) if pages else []
        shares = self._shares(set(live) - last) if pages and within_s is None else []
        snapshots = self._snapshots_of(whole, shares, handovers)
        # State is never stored for a group that has no offset: the two could not be paired again.
        stored = {*whole, *(share.partition for share in shares), *handovers, *(self._resets.keys() & set(live))}
        positions = {p: self.position(p) for p in {*self._pending, *stored}}
        if positions or snapshots:
            self._delivery.commit(positions, list(snapshots.values()), budget)
        marks = {share.partition: share.mark.offset for share in shares if share.mark is not None}
        for p, offset in (marks | {p: self.position(p) for p in (*whole, *handovers)}).items():
            progress = self._progress[p]
            progress.marked = progress.stored = offset
            progress.stored_at = self._clock()
        for lane, snapshot in snapshots.items():
            for p in snapshot.claims:
                self._progress[p].claimed_by = lane.model_id
        self._resets.clear()
        self._pending.clear()
        self._due_at = self._clock() + self._interval_s
        written = snapshots.values()
        return Committed(sum(len(each.pages) for each in written), sum(len(each.marks) for each in written))

    def _snapshots_of(
        self, whole: Collection[int], shares: Sequence[_Share], handovers: Mapping[int, Lane]
    ) -> dict[Lane, Snapshot]:
        """Return what is stored of each model; the models that take over come after those that they take over from."""
        found: dict[Lane, Snapshot] = {}
        marks = {p: mark for p, mark in self._resets.items() if p in self._progress}
        for p in whole:
            if (snapshot := _of(found, lane := self._lanes.of(p))) is not None:
                snapshot.pages.extend(lane.residents.export(p, self.position(p)))
            marks[p] = _mark(p, self.position(p), lane)
        for share in shares:
            p = share.partition
            if (snapshot := _of(found, lane := self._lanes.of(p))) is not None:
                snapshot.pages.extend(lane.residents.export(p, self.position(p), share.numbers))
            if share.mark is not None:
                marks[p] = share.mark
        for p, mark in marks.items():
            lane = self._lanes.of(p)
            if (snapshot := _of(found, lane)) is not None:
                snapshot.marks.append(mark)
                if p not in handovers and self._progress[p].claimed_by != lane.model_id:
                    snapshot.claims.append(p)
        for p, lane in handovers.items():
            if (snapshot := _of(found, lane)) is not None:
                snapshot.pages.extend(lane.residents.export(p, self.position(p)))
                snapshot.marks.append(_mark(p, self.position(p), lane))
                snapshot.claims.append(p)
        return found

    def _snapshot_due(self) -> bool:
        return self._snapshots is not None and self._clock() >= self._snapshot_at

    def _whole(self, live: Collection[int], last: Collection[int]) -> list[int]:
        """Return the partitions all of whose changed pages go with this commit, which is their last."""
        self._end_turns(last)
        if self._snapshots is None:
            return []
        return [p for p in sorted(last) if p in live and self._moved(p)]

    def _shares(self, live: Collection[int]) -> list[_Share]:
        """Return what this commit writes of the partitions whose turn it is."""
        if self._snapshots is None:
            return []
        if self._snapshot_due() and not self._queue and self._turn is None:
            self._queue.extend(p for p in sorted(live) if self._worth_it(p, self._snapshots))
            self._snapshot_at = self._clock() + self._snapshots.snapshot_interval_s
        shares: list[_Share] = []
        room = self._snapshots.pages_per_commit
        while room > 0 and (turn := self._turn or self._next_turn(live)) is not None:
            numbers = [turn.numbers.popleft() for _ in range(min(room, len(turn.numbers)))]
            room -= len(numbers)
            self._turn = turn if turn.numbers else None
            shares.append(_Share(turn.partition, numbers, None if turn.numbers else turn.mark))
        return shares

    def _next_turn(self, live: Collection[int]) -> _Turn | None:
        """Return the next partition of the queue that has moved, as it stands now."""
        while self._queue:
            partition = self._queue.popleft()
            if partition in live and self._moved(partition):
                lane = self._lanes.of(partition)
                mark = _mark(partition, self.position(partition), lane)
                return _Turn(partition, mark, deque(lane.residents.changed(partition)))
        return None

    def _end_turns(self, partitions: Collection[int]) -> None:
        """Write no more of some partitions; what of them is not written yet counts as changed as before."""
        if self._turn is not None and self._turn.partition in partitions:
            self._turn = None
        self._queue = deque(p for p in self._queue if p not in partitions)

    def _worth_it(self, partition: int, snapshots: StateSettings) -> bool:
        """Return whether to write a partition's changed pages now is better than to have them replayed."""
        progress = self._progress[partition]
        enough = snapshots.snapshot_events_per_stream * self._lanes.of(partition).residents.num_to_write(partition)
        return (
            progress.position - progress.stored >= enough
            or self._clock() - progress.stored_at >= snapshots.snapshot_max_interval_s
        )

    def _moved(self, partition: int) -> bool:
        progress = self._progress.get(partition)
        return progress is not None and progress.position != progress.marked


def _of(snapshots: dict[Lane, Snapshot], lane: Lane) -> Snapshot | None:
    """Return the snapshot of a lane, the first time an empty one; None if its states are not stored."""
    if lane.store is None:
        return None
    return snapshots.setdefault(lane, Snapshot(lane.store))


def _mark(partition: int, position: int, lane: Lane) -> Mark:
    residents = lane.residents
    watermark, arrivals = residents.watermark(partition), residents.arrivals(partition)
    return Mark(partition, position, watermark, residents.num_pages(partition), arrivals)
