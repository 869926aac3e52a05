"""The pending commit: what it carries, and when it is due.

A commit is built and made durable in this order; a crash between any two steps costs repeated work and nothing else:

    1. choose the pages of live partitions, and all changed pages of partitions that leave   (`snapshot_schedule`)
    2. add the first mark of partitions that began a new life
    3. add all pages, a mark and the claim of each model that takes over a partition
    4. add the end of state that superseded models have stored long enough                   (`model_retention`)
    5. take the position of every partition that is pending or stored                        (`positions`)
    6. make results, positions and state durable, in the order of the delivery               (`delivery`)
    7. note what is durable now

Steps 1 to 4 are done for each route (`route_snapshots`); all routes share the positions and the commit.

A partition goes over from one model to another within one commit (`handovers`): it carries the last pages and the mark
of the model before, then all pages, a mark and the claim of the model after, all as of the same position. A crash on
either side of that commit finds the model before with its state, or the model after with its own.

A bounded commit (partitions are being revoked) carries nothing of other partitions' snapshots.

Owns: the steps above. Does not know: events, metrics, how a store or a sink makes anything durable.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from rillcast.arrays import IntArray
from rillcast.durability.delivery import Budget, Delivery
from rillcast.durability.positions import Positions
from rillcast.durability.route_snapshots import RouteSnapshots
from rillcast.serving.routes import Routes
from rillcast.serving.served_model import ServedModel
from rillcast.settings import StateSettings
from rillcast.stores.base import Restored

Handovers = Mapping[str, Mapping[int, ServedModel]]


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
        routes: Routes,
        settings: StateSettings,
        *,
        interval_s: float,
        clock: Callable[[], float],
        wall_clock_ms: Callable[[], int],
    ) -> None:
        """Begin with nothing pending.

        Args:
            delivery: The order of a commit.
            routes: Know the model whose pages a partition has.
            settings: When state is stored, and for how long.
            interval_s: Seconds between commits.
            clock: Monotonic seconds.
            wall_clock_ms: Milliseconds since the epoch.
        """
        self._delivery = delivery
        self._interval_s = interval_s
        self._clock = clock
        self._positions = Positions()
        self._routes = {
            router.name: RouteSnapshots(router, self._positions, settings, clock, wall_clock_ms) for router in routes
        }
        self._due_at = clock() + interval_s

    @property
    def due(self) -> bool:
        """Whether there is something to commit and it is time."""
        if self._clock() < self._due_at:
            return False
        return bool(self._positions.pending) or any(route.due for route in self._routes.values())

    @property
    def has_pages(self) -> bool:
        """Whether the next commit may carry pages, so that the states have to stand where the positions do."""
        return any(route.has_pages for route in self._routes.values())

    def begin(self, partition: int, position: int) -> None:
        """Note the position of a partition: events below it are in the states of every route."""
        self._positions.begin(partition, position)

    def begin_route(
        self, route: str, partition: int, position: int, *, new_life: bool, found: Restored | None = None
    ) -> None:
        """Note where a partition's state of one route stands.

        Args:
            route: Name of the route.
            partition: The partition that begins.
            position: Events of the route below it are in the state.
            new_life: Whether the state begins without any streams, so that the stored pages no longer count.
            found: What the store had; None = it was not asked.
        """
        self._routes[route].begin(partition, position, new_life=new_life, found=found)

    def processed(self, partitions: IntArray, offsets: IntArray, live: Collection[int]) -> None:
        """Note events that are in the state and whose results were handed to the sink; see `Positions.processed`."""
        self._positions.processed(partitions, offsets, live)

    def position(self, partition: int) -> int:
        """Return the offset up to which a partition's events are in the state."""
        return self._positions.of(partition)

    def decided(self, route: str, partition: int) -> None:
        """Let the next commit write down the decisions on a partition that a route's model knows."""
        self._routes[route].decided(partition)

    def forget(self, partitions: Iterable[int]) -> None:
        """Drop partitions that are no longer ours to commit."""
        partitions = list(partitions)
        self._positions.forget(partitions)
        for route in self._routes.values():
            route.forget(partitions)

    def commit(
        self,
        live: Collection[int],
        final: Collection[int] = (),
        within_s: float | None = None,
        *,
        pages: bool = True,
        handovers: Handovers | None = None,
    ) -> Committed:
        """Commit everything that is pending, and the part of a snapshot that is due; the steps are in the module head.

        Args:
            live: Partitions that are past their replay; only the pages of these are stored.
            final: Partitions whose last commit this is: it carries all of their changed pages.
            within_s: Most seconds that the commit takes; None = unbounded. A bounded commit leaves the pages of other
                partitions to a later one: if it runs out of time, this process goes on and still has to store them.
            pages: Whether the commit may carry pages, because the states stand where the positions do.
            handovers: By route and partition, the model that serves it from this commit on, once the caller has
                assigned it. The states of these models stand where the positions do. Requires `pages`.

        Raises:
            TransportError: See `Delivery`.
        """
        handovers = handovers or {}
        assert pages or not handovers, "a partition changes its model where its position is"
        budget, others = Budget(within_s, self._clock), within_s is None
        # 1. to 4.
        commits = {
            name: route.next(set(live), final, handovers.get(name, {}), pages=pages, others=others)
            for name, route in self._routes.items()
        }
        # 5. State is stored only with a committed position: without one, a restart could not pair the two.
        snapshots = [snapshot for commit in commits.values() for snapshot in commit.snapshots.values()]
        stored = {p for commit in commits.values() for p in commit.stored}
        positions = {p: self.position(p) for p in {*self._positions.pending, *stored}}
        # 6.
        if positions or snapshots:
            self._delivery.commit(positions, snapshots, budget)
        # 7.
        for name, commit in commits.items():
            self._routes[name].committed(commit)
        self._positions.committed()
        self._due_at = self._clock() + self._interval_s
        return Committed(
            sum(len(each.pages) for each in snapshots),
            sum(len(each.marks) for each in snapshots),
            sum(len(each.retired) for each in snapshots),
        )
