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

The state of a model that served a partition before stays stored for a roll-back, and is removed in a commit when it was
superseded `superseded_ttl_s` ago by the wall clock, as the partition's claim says. It changes no stream's state, so a
wall clock may decide it; one that is wrong costs a roll-back its kept state at worst.

A commit that is bounded (partitions are being revoked) takes nothing of other partitions' snapshots along. The last
commit of a partition takes all of its changed pages, and a mark as of its position.

Owns: the positions not yet committed, the claims, and the schedule. Does not know: the order of a commit
(`rillcast.durability.delivery`), events, metrics.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np

from rillcast.arrays import IntArray
from rillcast.durability.delivery import Budget, Delivery, Snapshot
from rillcast.engine.residents import NO_WATERMARK
from rillcast.serving.router import Router, ServedModel
from rillcast.settings import StateSettings
from rillcast.stores.base import Claim, Mark, Restored

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Progress:
    """How far a partition is."""

    position: int  # events below it are in the state
    stored: int  # position up to which a replay is not needed
    stored_at: float  # when that was so
    marked: int | None = None  # position of the last mark of this process
    claim: Claim | None = None  # what the store says of who serves it
    others: Mapping[str, int] = field(default_factory=dict)  # see `Restored`


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
    retired: int


class Checkpoint:
    """The pending commit. Used from one thread."""

    def __init__(
        self,
        delivery: Delivery,
        lanes: Router,
        *,
        snapshots: StateSettings | None,
        interval_s: float,
        in_use: Callable[[], Collection[str]],
        clock: Callable[[], float],
        wall_clock_ms: Callable[[], int],
    ) -> None:
        """Start with nothing pending.

        Args:
            delivery: the order of a commit.
            lanes: whose pages a snapshot holds.
            snapshots: the schedule of snapshots; None = there is no store.
            interval_s: of commits.
            in_use: returns the ids of models whose state is kept however long ago they served.
            clock: monotonic seconds.
            wall_clock_ms: milliseconds since the epoch.
        """
        self._delivery = delivery
        self._lanes = lanes
        self._snapshots = snapshots
        self._interval_s = interval_s
        self._in_use = in_use
        self._clock = clock
        self._wall_clock_ms = wall_clock_ms
        self._progress: dict[int, _Progress] = {}
        self._pending: set[int] = set()
        self._resets: dict[int, Mark] = {}
        self._queue: deque[int] = deque()
        self._turn: _Turn | None = None
        self._due_at = clock() + interval_s
        self._snapshot_at = clock() + (snapshots.snapshot_interval_s if snapshots else 0.0)
        self._retire_at = self._snapshot_at

    @property
    def due(self) -> bool:
        """Whether there is something to commit and it is time."""
        if self._clock() < self._due_at:
            return False
        return bool(self._pending or self._resets) or self.has_pages or self._retire_due()

    @property
    def has_pages(self) -> bool:
        """Whether the next commit may carry pages of the state, which then has to stand where the positions do."""
        return bool(self._queue) or self._turn is not None or self._snapshot_due()

    def begin(self, partition: int, position: int, *, new_life: bool, found: Restored | None = None) -> None:
        """Note where a partition's state stands.

        Args:
            partition: that begins.
            position: events below it are in the state.
            new_life: whatever the store may have of it no longer counts.
            found: what the store had; None = it was not asked.
        """
        self._end_turns([partition])
        progress = self._progress[partition] = _Progress(position, position, self._clock())
        if found is not None:
            progress.claim, progress.others = found.claim, found.others
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
        handovers: Mapping[int, ServedModel] | None = None,
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
        if within_s is None and self._retire_due():
            self._retire(snapshots, live)
        # State is never stored for a group that has no offset: the two could not be paired again.
        retired = {p for each in snapshots.values() for p, _ in each.retired}
        taken = {share.partition for share in shares}
        stored = {*whole, *taken, *handovers, *retired, *(self._resets.keys() & set(live))}
        positions = {p: self.position(p) for p in {*self._pending, *stored}}
        if positions or snapshots:
            self._delivery.commit(positions, list(snapshots.values()), budget)
        marks = {share.partition: share.mark.offset for share in shares if share.mark is not None}
        for p, offset in (marks | {p: self.position(p) for p in (*whole, *handovers)}).items():
            progress = self._progress[p]
            progress.marked = progress.stored = offset
            progress.stored_at = self._clock()
        for snapshot in snapshots.values():
            self._claimed(snapshot)
        self._resets.clear()
        self._pending.clear()
        self._due_at = self._clock() + self._interval_s
        written = snapshots.values()
        return Committed(
            sum(len(each.pages) for each in written),
            sum(len(each.marks) for each in written),
            sum(len(each.retired) for each in written),
        )

    def _claimed(self, snapshot: Snapshot) -> None:
        """Take in the claims of a commit that succeeded, and say which models' state has gone with it."""
        for (p, model_id), before in snapshot.retired.items():
            until = datetime.fromtimestamp(before.at_ms / 1000, UTC).isoformat(timespec="seconds")
            log.info("partition %d: the state of model %s, which served until %s, is removed", p, model_id, until)
        for p, claim in snapshot.claims.items():
            self._progress[p].claim = claim

    def _snapshots_of(
        self, whole: Collection[int], shares: Sequence[_Share], handovers: Mapping[int, ServedModel]
    ) -> dict[ServedModel, Snapshot]:
        """Return what is stored of each model; the models that take over come after those that they take over from."""
        found: dict[ServedModel, Snapshot] = {}
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
                claim = self._progress[p].claim
                if claim is None or claim.model_id != lane.model_id:
                    snapshot.claims[p] = self._claim(p, lane)
        for p, lane in handovers.items():
            if (snapshot := _of(found, lane)) is not None:
                snapshot.pages.extend(lane.residents.export(p, self.position(p)))
                snapshot.marks.append(_mark(p, self.position(p), lane))
                snapshot.claims[p] = self._claim(p, lane)
        return found

    def _claim(self, partition: int, lane: ServedModel) -> Claim:
        """Return the claim of a lane that takes a partition over, be it from one that serves and has not claimed it."""
        progress, now_ms = self._progress[partition], self._wall_clock_ms()
        serving = self._lanes.of(partition)
        pages = {**progress.others, serving.model_id: serving.residents.num_pages(partition)}
        claim = progress.claim or Claim(serving.model_id, now_ms)
        for model_id in (serving.model_id, lane.model_id):
            if claim.model_id != model_id:
                claim = claim.passed_on(model_id, now_ms, pages.get(claim.model_id, 0))
        return claim

    def _retire(self, snapshots: dict[ServedModel, Snapshot], live: Collection[int]) -> None:
        """Add to a commit the end of what models have stored that served long enough ago."""
        assert self._snapshots is not None  # else it is never due
        self._retire_at = self._clock() + self._snapshots.snapshot_interval_s
        spared = self._in_use()
        changes_hands = {
            p for each in snapshots.values() for p in each.claims
        }  # with this commit: its turn comes later
        for p in sorted(set(live) - changes_hands):
            lane, claim = self._lanes.of(p), self._progress[p].claim
            ended = [model_id for model_id in self._superseded(p) if model_id not in spared]
            if not ended or claim is None or claim.model_id != lane.model_id:
                continue  # a claim is written by the model that it is of
            if (snapshot := _of(snapshots, lane)) is not None:
                snapshot.retired.update({(p, model_id): claim.before[model_id] for model_id in ended})
                snapshot.claims[p] = claim.without(ended)

    def _retire_due(self) -> bool:
        return self._clock() >= self._retire_at and any(self._superseded(p) for p in self._progress)

    def _superseded(self, partition: int) -> list[str]:
        """Return the models that served a partition and ceased to longer ago than their state is kept."""
        claim = self._progress[partition].claim
        if self._snapshots is None or not self._snapshots.superseded_ttl_s or claim is None:
            return []
        ended_ms = self._wall_clock_ms() - self._snapshots.superseded_ttl_s * 1000
        return [model_id for model_id, each in claim.before.items() if each.at_ms <= ended_ms]

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


def _of(snapshots: dict[ServedModel, Snapshot], lane: ServedModel) -> Snapshot | None:
    """Return the snapshot of a lane, the first time an empty one; None if its states are not stored."""
    if lane.store is None:
        return None
    return snapshots.setdefault(lane, Snapshot(lane.store))


def _mark(partition: int, position: int, lane: ServedModel) -> Mark:
    residents = lane.residents
    watermark, arrivals = residents.watermark(partition), residents.arrivals(partition)
    return Mark(partition, position, watermark, residents.num_pages(partition), arrivals)
