"""The pending commit: what it carries, and when it is due.

A commit is built and made durable in this order; a crash between any two steps costs repeated work and nothing else:

    1. choose the pages of live partitions, and all changed pages of partitions that leave   (`snapshot_schedule`)
    2. add the first mark of partitions that began a new life
    3. add all pages, a mark and the claim of each model that takes over a partition
    4. add the end of state that superseded models have stored long enough                   (`model_retention`)
    5. take the position of every partition that is pending or stored                        (`positions`)
    6. make results, positions and state durable, in the order of the delivery               (`delivery`)
    7. note what is durable now

A partition goes over from one model to another within one commit (`handovers`): it carries the last pages and the mark
of the model before, then all pages, a mark and the claim of the model after, all as of the same position. A crash on
either side of that commit finds the model before with its state, or the model after with its own.

A bounded commit (partitions are being revoked) carries nothing of other partitions' snapshots.

Owns: the steps above. Does not know: events, metrics, how a store or a sink makes anything durable.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from rillcast.arrays import IntArray
from rillcast.durability.delivery import Budget, Delivery, Snapshot
from rillcast.durability.model_retention import ModelRetention
from rillcast.durability.positions import Positions
from rillcast.durability.snapshot_schedule import Share, SnapshotSchedule, mark_of
from rillcast.serving.router import Router
from rillcast.serving.served_model import ServedModel
from rillcast.settings import StateSettings
from rillcast.stores.base import Restored


@dataclass(frozen=True, slots=True)
class Committed:
    """What a commit made durable, for the metrics."""

    pages: int
    marks: int
    retired: int


class Checkpoint:
    """Used from one thread."""

    def __init__(
        self,
        delivery: Delivery,
        router: Router,
        settings: StateSettings,
        *,
        interval_s: float,
        clock: Callable[[], float],
        wall_clock_ms: Callable[[], int],
    ) -> None:
        """Begin with nothing pending.

        Args:
            delivery: The order of a commit.
            router: Knows the model whose pages a partition has.
            settings: When state is stored, and for how long.
            interval_s: Seconds between commits.
            clock: Monotonic seconds.
            wall_clock_ms: Milliseconds since the epoch.
        """
        self._delivery = delivery
        self._router = router
        self._interval_s = interval_s
        self._clock = clock
        self._positions = Positions()
        self._schedule = SnapshotSchedule(router, self._positions, settings, clock)
        self._retention = ModelRetention(router, settings, clock, wall_clock_ms)
        self._due_at = clock() + interval_s

    @property
    def due(self) -> bool:
        """Whether there is something to commit and it is time."""
        if self._clock() < self._due_at:
            return False
        schedule = self._schedule
        written = schedule.decided_marks or schedule.first_marks or schedule.due
        return bool(self._positions.pending or written or self._retention.due)

    @property
    def has_pages(self) -> bool:
        """Whether the next commit may carry pages, so that the states have to stand where the positions do."""
        return self._schedule.due

    def begin(self, partition: int, position: int, *, new_life: bool, found: Restored | None = None) -> None:
        """Note where a partition's state stands.

        Args:
            partition: The partition that begins.
            position: Events below it are in the state.
            new_life: Whether the state begins without any streams, so that the stored pages no longer count.
            found: What the store had; None = it was not asked.
        """
        self._positions.begin(partition, position)
        mark = None if found is None or new_life else found.mark
        self._schedule.begin(partition, position, new_life=new_life, mark=mark)
        self._retention.begin(partition, found)

    def processed(self, partitions: IntArray, offsets: IntArray, live: Collection[int]) -> None:
        """Note events that are in the state and whose results were handed to the sink; see `Positions.processed`."""
        self._positions.processed(partitions, offsets, live)

    def position(self, partition: int) -> int:
        """Return the offset up to which a partition's events are in the state."""
        return self._positions.of(partition)

    def decided(self, partition: int) -> None:
        """Let the next commit write down the decisions on a partition that its model knows."""
        self._schedule.decided(partition)

    def forget(self, partitions: Iterable[int]) -> None:
        """Drop partitions that are no longer ours to commit."""
        partitions = list(partitions)
        self._positions.forget(partitions)
        self._schedule.forget(partitions)
        self._retention.forget(partitions)

    def commit(
        self,
        live: Collection[int],
        final: Collection[int] = (),
        within_s: float | None = None,
        *,
        pages: bool = True,
        handovers: Mapping[int, ServedModel] | None = None,
    ) -> Committed:
        """Commit everything that is pending, and the part of a snapshot that is due; the steps are in the module head.

        Args:
            live: Partitions that are past their replay; only the pages of these are stored.
            final: Partitions whose last commit this is: it carries all of their changed pages.
            within_s: Most seconds that the commit takes; None = unbounded. A bounded commit leaves the pages of other
                partitions to a later one: if it runs out of time, this process goes on and still has to store them.
            pages: Whether the commit may carry pages, because the states stand where the positions do.
            handovers: By partition, the model that serves it from this commit on, once the caller has assigned it. The
                states of these models stand where the positions do. Requires `pages`.

        Raises:
            TransportError: See `Delivery`.
        """
        handovers = handovers or {}
        assert pages or not handovers, "a partition changes its model where its position is"
        budget = Budget(within_s, self._clock)
        # 1.
        shares = self._shares(set(live), {*final, *handovers}, others=within_s is None) if pages else []
        # 2. and 3.
        snapshots = self._snapshots(shares, handovers)
        # 4.
        if within_s is None and self._retention.due:
            self._add_retirements(snapshots, live)
        # 5. State is stored only with a committed position: without one, a restart could not pair the two.
        stored = {share.partition for share in shares} | handovers.keys()
        stored |= {p for snapshot in snapshots.values() for p, _ in snapshot.retired}
        stored |= self._schedule.first_marks.keys() & set(live)
        stored |= self._schedule.decided_marks.keys()
        positions = {p: self.position(p) for p in {*self._positions.pending, *stored}}
        # 6.
        if positions or snapshots:
            self._delivery.commit(positions, list(snapshots.values()), budget)
        # 7.
        self._note(shares, handovers, snapshots)
        written = snapshots.values()
        return Committed(
            sum(len(each.pages) for each in written),
            sum(len(each.marks) for each in written),
            sum(len(each.retired) for each in written),
        )

    def _shares(self, live: Collection[int], last: Collection[int], *, others: bool) -> list[Share]:
        """Return the pages and marks that this commit carries; `others` = also of partitions that stay."""
        shares = self._schedule.last(last, live)
        return [*shares, *self._schedule.next(set(live) - set(last))] if others else shares

    def _snapshots(self, shares: Sequence[Share], handovers: Mapping[int, ServedModel]) -> dict[ServedModel, Snapshot]:
        """Return what is stored of each model; a model that takes over comes after the one that it takes over from."""
        found: dict[ServedModel, Snapshot] = {}
        marks = {**self._schedule.first_marks, **self._schedule.decided_marks}
        marks |= {s.partition: s.mark for s in shares if s.mark is not None}
        for share in shares:
            p, model = share.partition, self._router.model_of(share.partition)
            if (snapshot := _of(found, model)) is not None:
                snapshot.pages.extend(model.residents.export(p, self.position(p), share.numbers))
        for p, mark in marks.items():
            if (snapshot := _of(found, model := self._router.model_of(p))) is not None:
                # Decisions may have come since the mark was made.
                snapshot.marks.append(mark._replace(silences=model.residents.silences(p, mark.offset)))
                if not self._retention.claims(p, model):
                    snapshot.claims[p] = self._retention.claim_for(p, model)
        for p, model in handovers.items():
            if (snapshot := _of(found, model)) is not None:
                snapshot.pages.extend(model.residents.export(p, self.position(p)))
                mark = mark_of(p, self.position(p), model.residents)
                snapshot.marks.append(mark._replace(silences=model.residents.silences(p, mark.offset)))
                snapshot.claims[p] = self._retention.claim_for(p, model)
        return found

    def _add_retirements(self, snapshots: dict[ServedModel, Snapshot], live: Collection[int]) -> None:
        """Add the end of state that superseded models have stored long enough."""
        claimed = {p for snapshot in snapshots.values() for p in snapshot.claims}  # a partition has one claim a commit
        for p, retirement in self._retention.retire(set(live) - claimed).items():
            if (snapshot := _of(snapshots, self._router.model_of(p))) is not None:
                snapshot.retired.update({(p, model_id): each for model_id, each in retirement.ended.items()})
                snapshot.claims[p] = retirement.claim

    def _note(
        self, shares: Sequence[Share], handovers: Mapping[int, ServedModel], snapshots: Mapping[ServedModel, Snapshot]
    ) -> None:
        """Note what is durable now."""
        marked = {share.partition: share.mark for share in shares if share.mark is not None}
        marked |= {p: mark_of(p, self.position(p), model.residents) for p, model in handovers.items()}
        self._schedule.written(marked)
        for snapshot in snapshots.values():
            self._retention.committed(snapshot.claims, snapshot.retired)
        self._positions.committed()
        self._due_at = self._clock() + self._interval_s


def _of(snapshots: dict[ServedModel, Snapshot], model: ServedModel) -> Snapshot | None:
    """Return the snapshot of a model, a new one the first time; None if its states are not stored."""
    return None if model.store is None else snapshots.setdefault(model, Snapshot(model.store))
