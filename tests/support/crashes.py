"""Runs of a worker that die at a numbered step of some commit; `Log` and `Shelf` outlive them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from hypothesis import strategies as st

from rillcast.codecs.observations.decoder import ObservationDecoder
from rillcast.engine.late import AllowedLateness
from rillcast.engine.pages import Page
from rillcast.engine.periods import Aggregation
from rillcast.engine.residents import Limits
from rillcast.settings import StateSettings, WorkerSettings
from rillcast.stores.base import Claim, Mark, StateStore, Superseded
from tests.support import workers
from tests.support.memory import Crash, Log, MemorySink, MemorySource, MemoryTransactionalSink
from tests.support.stores import TOY_ID, MemoryStore, Shelf

Delivery = Literal["at_least_once", "exactly_once"]
POINTS = ("flush", "stage", "page", "offsets", "store", "done")


class VisibleStore(MemoryStore):
    """Shows everything at once that is staged, as a topic does that is written outside a transaction."""

    def __init__(self, shelf: Shelf, model_id: str = TOY_ID) -> None:
        super().__init__(shelf, model_id)
        self.between: Callable[[], None] = lambda: None

    def stage(self, pages: Sequence[Page], marks: Sequence[Mark]) -> None:
        self.fail_stage()
        for page in pages:
            super().stage([page], [])
            super().commit()
            self.between()
        super().stage([], marks)
        super().commit()

    def claim(self, claims: Mapping[int, Claim]) -> None:
        super().claim(claims)
        super().commit()

    def retire(self, partition: int, model_id: str, before: Superseded) -> None:
        super().retire(partition, model_id, before)
        super().commit()
        self.between()


class Bomb:
    """Crashes the worker at the `count`-th call."""

    def __init__(self, count: int) -> None:
        self._left = count

    def __call__(self) -> None:
        self._left -= 1
        if self._left == 0:
            raise Crash


def arm(harness: workers.Harness, store: MemoryStore, point: str, count: int) -> None:
    """Kill the worker when it reaches a point of a commit for the `count`-th time."""
    bomb = Bomb(count)
    if not arm_store(store, point, bomb):
        arm_transport(harness, point, bomb)


def arm_store(store: MemoryStore, point: str, bomb: Bomb) -> bool:
    """Put a bomb into a store, and return whether the point is in a store."""
    if point == "stage":
        store.fail_stage = bomb
    elif point == "page" and isinstance(store, VisibleStore):
        store.between = bomb
    elif point == "store":
        commit = store.commit

        def bomb_then_commit() -> None:
            bomb()
            commit()

        store.commit = bomb_then_commit  # type: ignore[method-assign]
    else:
        return False
    return True


def arm_transport(harness: workers.Harness, point: str, bomb: Bomb) -> None:
    """Put a bomb into the source or the sink."""
    if isinstance(harness.sink, MemoryTransactionalSink):
        if point in ("flush", "offsets"):
            harness.sink.before_end = bomb
        else:
            harness.sink.after_end = bomb
    elif point == "flush":
        harness.sink.fail_flush = bomb
    else:
        harness.source.fail_commit = bomb


def tick(harness: workers.Harness) -> Callable[[MemorySource], None]:
    """Let a second pass, so that a commit follows each poll; stop at the end of the log."""

    def pass_time(source: MemorySource) -> None:
        harness.clock.now += 1
        if all(lag == 0 for lag in source.lag().values()):
            source.before_poll.clear()

    return pass_time


def run_once(
    log: Log,
    shelf: Shelf,
    delivery: Delivery,
    *,
    visible: bool,
    per_poll: Callable[[], int],
    pages_per_commit: int = 1,
    crash: tuple[str, int] | None = None,
    limits: Limits | None = None,
    lateness: AllowedLateness | None = None,
    aggregation: Aggregation | None = None,
    decoder: ObservationDecoder | None = None,
    told_overdue: int = 0,
) -> workers.Harness:
    """Run a worker with stored state to the end of the log, or to its death at a point of a commit."""
    stores: list[MemoryStore] = []

    def make(_sink: MemorySink) -> StateStore:
        stores.append(VisibleStore(shelf) if visible else MemoryStore(shelf, polls_per_restore=2))
        return stores[0]

    harness = workers.build(
        log,
        per_poll=per_poll,
        settings=WorkerSettings(commit_interval_s=0.5, delivery=delivery),
        snapshots=StateSettings(snapshot_interval_s=2, snapshot_max_interval_s=2, pages_per_commit=pages_per_commit),
        store=make,
        limits=limits,
        lateness=lateness,
        aggregation=aggregation,
        decoder=decoder,
        told_overdue=told_overdue,
    )
    harness.source.before_poll.extend([tick(harness)] * 10_000)
    if crash is not None:
        arm(harness, stores[0], *crash)
    with contextlib.suppress(Crash):
        harness.worker.run()
    return harness


crash_points = st.lists(st.tuples(st.sampled_from(POINTS), st.integers(1, 15)), max_size=5)
