"""What a commit stores of one route (`rillcast.serving.routes`): pages, marks, claims, and the end of superseded state.

Owns: steps 1 to 4 of a commit (`rillcast.durability.checkpoint`), and what is noted of them afterwards. Does not know:
other routes, or how anything becomes durable.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from rillcast.durability.delivery import Snapshot
from rillcast.durability.model_retention import ModelRetention
from rillcast.durability.positions import Positions
from rillcast.durability.snapshot_schedule import Share, SnapshotSchedule, mark_of
from rillcast.serving.router import Router
from rillcast.serving.served_model import ServedModel
from rillcast.settings import StateSettings
from rillcast.stores.base import Restored


@dataclass(frozen=True, slots=True)
class RouteCommit:
    """What one commit carries of one route.

    Attributes:
        shares: The pages and marks of the models that serve.
        handovers: By partition, the model that serves it from this commit on.
        snapshots: What is stored, by model.
        stored: The partitions of which something is stored, so that their positions go with it.
    """

    shares: Sequence[Share]
    handovers: Mapping[int, ServedModel]
    snapshots: Mapping[ServedModel, Snapshot]
    stored: Collection[int]


class RouteSnapshots:
    """Used from one thread."""

    def __init__(
        self,
        router: Router,
        positions: Positions,
        settings: StateSettings,
        clock: Callable[[], float],
        wall_clock_ms: Callable[[], int],
    ) -> None:
        """Begin with nothing stored.

        Args:
            router: Knows the model whose pages a partition has.
            positions: How far each partition is, for all routes.
            settings: When state is stored, and for how long.
            clock: Monotonic seconds.
            wall_clock_ms: Milliseconds since the epoch.
        """
        self._router = router
        self._positions = positions
        self._schedule = SnapshotSchedule(router, positions, settings, clock)
        self._retention = ModelRetention(router, settings, clock, wall_clock_ms)

    @property
    def due(self) -> bool:
        """Whether there is something to store and it is time."""
        schedule = self._schedule
        return bool(schedule.decided_marks or schedule.first_marks or schedule.due or self._retention.due)

    @property
    def has_pages(self) -> bool:
        """Whether the next commit may carry pages, so that the states have to stand where the positions do."""
        return self._schedule.due

    def begin(self, partition: int, position: int, *, new_life: bool, found: Restored | None = None) -> None:
        """Note where the state of a partition stands; see `Checkpoint.begin`."""
        mark = None if found is None or new_life else found.mark
        self._schedule.begin(partition, position, new_life=new_life, mark=mark)
        self._retention.begin(partition, found)

    def decided(self, partition: int) -> None:
        """Let the next commit write down the decisions on a partition that its model knows."""
        self._schedule.decided(partition)

    def forget(self, partitions: Sequence[int]) -> None:
        """Drop partitions that are no longer ours."""
        self._schedule.forget(partitions)
        self._retention.forget(partitions)

    def next(
        self,
        live: Collection[int],
        final: Iterable[int],
        handovers: Mapping[int, ServedModel],
        *,
        pages: bool,
        others: bool,
    ) -> RouteCommit:
        """Return what the next commit carries.

        Args:
            live: Partitions that are past their replay.
            final: Partitions whose last commit this is.
            handovers: By partition, the model that serves it from this commit on.
            pages: Whether the commit may carry pages.
            others: Whether it may carry snapshots of partitions that stay, and the end of superseded state.
        """
        # 1.
        shares = self._shares(live, {*final, *handovers}, others=others) if pages else []
        # 2. and 3.
        snapshots = self._snapshots(shares, handovers)
        # 4.
        if others and self._retention.due:
            self._add_retirements(snapshots, live)
        stored = {share.partition for share in shares} | handovers.keys()
        stored |= {p for snapshot in snapshots.values() for p, _ in snapshot.retired}
        stored |= self._schedule.first_marks.keys() & set(live)
        stored |= self._schedule.decided_marks.keys()
        return RouteCommit(shares, handovers, snapshots, stored)

    def committed(self, commit: RouteCommit) -> None:
        """Note what is durable now."""
        marked = {share.partition: share.mark for share in commit.shares if share.mark is not None}
        marked |= {p: mark_of(p, self._positions.of(p), model.residents) for p, model in commit.handovers.items()}
        self._schedule.written(marked)
        for snapshot in commit.snapshots.values():
            self._retention.committed(snapshot.claims, snapshot.retired)

    def _shares(self, live: Collection[int], last: Collection[int], *, others: bool) -> list[Share]:
        """Return the pages and marks that a commit carries; `others` = also of partitions that stay."""
        shares = self._schedule.last(last, live)
        return [*shares, *self._schedule.next(set(live) - set(last))] if others else shares

    def _snapshots(self, shares: Sequence[Share], handovers: Mapping[int, ServedModel]) -> dict[ServedModel, Snapshot]:
        """Return what is stored of each model; a model that takes over comes after the one that it takes over from."""
        found: dict[ServedModel, Snapshot] = {}
        position = self._positions.of
        marks = {**self._schedule.first_marks, **self._schedule.decided_marks}
        marks |= {s.partition: s.mark for s in shares if s.mark is not None}
        for share in shares:
            p, model = share.partition, self._router.model_of(share.partition)
            if (snapshot := _of(found, model)) is not None:
                snapshot.pages.extend(model.residents.export(p, position(p), share.numbers))
        for p, mark in marks.items():
            if (snapshot := _of(found, model := self._router.model_of(p))) is not None:
                # Decisions may have come since the mark was made.
                snapshot.marks.append(mark._replace(silences=model.residents.silences.known(p, mark.offset)))
                if not self._retention.claims(p, model):
                    snapshot.claims[p] = self._retention.claim_for(p, model)
        for p, model in handovers.items():
            if (snapshot := _of(found, model)) is not None:
                snapshot.pages.extend(model.residents.export(p, position(p)))
                mark = mark_of(p, position(p), model.residents)
                snapshot.marks.append(mark._replace(silences=model.residents.silences.known(p, mark.offset)))
                snapshot.claims[p] = self._retention.claim_for(p, model)
        return found

    def _add_retirements(self, snapshots: dict[ServedModel, Snapshot], live: Collection[int]) -> None:
        """Add the end of state that superseded models have stored long enough."""
        claimed = {p for snapshot in snapshots.values() for p in snapshot.claims}  # a partition has one claim a commit
        for p, retirement in self._retention.retire(set(live) - claimed).items():
            if (snapshot := _of(snapshots, self._router.model_of(p))) is not None:
                snapshot.retired.update({(p, model_id): each for model_id, each in retirement.ended.items()})
                snapshot.claims[p] = retirement.claim


def _of(snapshots: dict[ServedModel, Snapshot], model: ServedModel) -> Snapshot | None:
    """Return the snapshot of a model, a new one the first time; None if its states are not stored."""
    return None if model.store is None else snapshots.setdefault(model, Snapshot(model.store))
