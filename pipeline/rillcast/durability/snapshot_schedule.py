"""Which pages of the state go with the next commit.

Most commits carry no pages. Every `snapshot_interval_s` a snapshot goes through the partitions one after the other, at
most `pages_per_commit` pages per commit, because the loop stands still while pages are copied and compressed. The pages
of a partition that had changed when the snapshot came to it are written, each as of the commit that carries it. The
mark goes with the last of them and says where the partition stood when the snapshot came to it. Every page is current
up to there; most are newer, and a replay knows which, because a page names its own offset.

A partition is skipped while a replay costs less than writing it: a page of 256 streams is written whole, even if few of
them had an event. It is written once each of its streams had `snapshot_events_per_stream` events on average, or after
`snapshot_max_interval_s`.

The last commit of a partition carries all of its changed pages, and a mark as of its position.

Owns: what is stored of each partition, and whose pages are written next. Does not know: claims, the order of a commit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from rillcast.durability.positions import Positions
from rillcast.engine.residents import NO_WATERMARK, Residents
from rillcast.serving.router import Router
from rillcast.settings import StateSettings
from rillcast.stores.base import Mark


@dataclass(frozen=True, slots=True)
class Share:
    """What one commit carries of one partition.

    Attributes:
        partition: The partition.
        numbers: The pages; None = all that changed.
        mark: The mark, with the last of its pages.
    """

    partition: int
    numbers: Sequence[int] | None
    mark: Mark | None


@dataclass(slots=True)
class _Stored:
    """What is stored of a partition."""

    position: int  # a replay begins here or above
    at: float  # when that became true, in monotonic seconds
    marked: int | None = None  # offset of the last mark that this process wrote
    mark: Mark | None = None  # the mark that is stored, by this process or one before


@dataclass(frozen=True, slots=True)
class _Writing:
    """The partition whose pages are being written, over one or more commits."""

    partition: int
    mark: Mark  # as of when the snapshot came to it
    numbers: deque[int]  # its pages that had changed by then and are not written yet


class SnapshotSchedule:
    """Used from one thread."""

    def __init__(
        self, router: Router, positions: Positions, settings: StateSettings, clock: Callable[[], float]
    ) -> None:
        """Begin with nothing stored.

        Args:
            router: Knows the model whose pages a partition has.
            positions: How far each partition is.
            settings: Intervals and sizes.
            clock: Monotonic seconds.
        """
        self._router = router
        self._positions = positions
        self._settings = settings
        self._clock = clock
        self._stored: dict[int, _Stored] = {}
        self._first_marks: dict[int, Mark] = {}
        self._decided: set[int] = set()
        self._queue: deque[int] = deque()
        self._writing: _Writing | None = None
        self._snapshot_at = clock() + settings.snapshot_interval_s

    @property
    def due(self) -> bool:
        """Whether the next commit may carry pages, so that the states have to stand where the positions do."""
        return bool(self._queue) or self._writing is not None or self._begins

    @property
    def first_marks(self) -> Mapping[int, Mark]:
        """The marks, by partition, that end what the store may have of an earlier life."""
        return self._first_marks

    @property
    def decided_marks(self) -> Mapping[int, Mark]:
        """The marks, by partition, that are written again because of a decision; their pages are stored already."""
        return {partition: self._mark_of(partition) for partition in self._decided}

    def decided(self, partition: int) -> None:
        """Note that a decision on a partition has to be written down."""
        self._decided.add(partition)

    def _mark_of(self, partition: int) -> Mark:
        """Return the mark that is stored; if none is, the one of a state without streams from which a replay begins."""
        stored = self._stored[partition]
        return stored.mark or Mark(partition, stored.position, NO_WATERMARK, 0)

    def begin(self, partition: int, position: int, *, new_life: bool, mark: Mark | None = None) -> None:
        """Note where the state of a partition begins.

        Args:
            partition: The partition.
            position: Events below it are in the state.
            new_life: Whether the state begins without any streams, so that the stored pages no longer count.
            mark: The mark that is stored and counts; None = there is none.
        """
        self._stop_writing([partition])
        self._stored[partition] = _Stored(position, self._clock(), mark=mark)
        if new_life and self._router.stores_state:
            # Otherwise a crash between two snapshots could leave pages of the old life among those of the new one.
            self._first_marks[partition] = Mark(partition, position, NO_WATERMARK, 0)

    def forget(self, partitions: Collection[int]) -> None:
        """Drop partitions that are no longer ours."""
        self._stop_writing(partitions)
        for partition in partitions:
            self._stored.pop(partition, None)
            self._first_marks.pop(partition, None)
            self._decided.discard(partition)

    def last(self, partitions: Iterable[int], live: Collection[int]) -> list[Share]:
        """Return what the last commit of some partitions carries of them: all changed pages."""
        partitions = set(partitions)
        self._stop_writing(partitions)
        if not self._router.stores_state:
            return []
        return [
            Share(p, None, mark_of(p, self._positions.of(p), self._router.model_of(p).residents))
            for p in sorted(partitions)
            if p in live and self._moved(p)
        ]

    def next(self, live: Collection[int]) -> list[Share]:
        """Return what the next commit carries of the partitions that the snapshot has come to."""
        if not self._queue and self._writing is None and self._begins:
            self._queue.extend(p for p in sorted(live) if self._worth_writing(p))
            self._snapshot_at = self._clock() + self._settings.snapshot_interval_s
        shares: list[Share] = []
        room = self._settings.pages_per_commit
        while room > 0 and (writing := self._writing or self._next_partition(live)) is not None:
            numbers = [writing.numbers.popleft() for _ in range(min(room, len(writing.numbers)))]
            room -= len(numbers)
            self._writing = writing if writing.numbers else None
            shares.append(Share(writing.partition, numbers, None if writing.numbers else writing.mark))
        return shares

    def written(self, marks: Mapping[int, Mark]) -> None:
        """Note that a commit succeeded, and the marks, by partition, that it carried with pages."""
        for partition, mark in marks.items():
            self._stored[partition] = _Stored(mark.offset, self._clock(), mark.offset, mark)
            self._router.model_of(partition).residents.silences.forget_before(partition, mark.offset)
        self._first_marks.clear()
        self._decided.clear()

    @property
    def _begins(self) -> bool:
        """Whether a snapshot begins."""
        return self._router.stores_state and self._clock() >= self._snapshot_at

    def _next_partition(self, live: Collection[int]) -> _Writing | None:
        """Return the next partition of the queue that has moved since its last mark, as it stands now."""
        while self._queue:
            partition = self._queue.popleft()
            if partition in live and self._moved(partition):
                residents = self._router.model_of(partition).residents
                mark = mark_of(partition, self._positions.of(partition), residents)
                return _Writing(partition, mark, deque(residents.changed(partition)))
        return None

    def _stop_writing(self, partitions: Collection[int]) -> None:
        """Write no more of some partitions; their pages that are not written yet still count as changed."""
        if self._writing is not None and self._writing.partition in partitions:
            self._writing = None
        self._queue = deque(p for p in self._queue if p not in partitions)

    def _worth_writing(self, partition: int) -> bool:
        """Return whether writing a partition's changed pages now costs less than having their events replayed."""
        stored, residents = self._stored[partition], self._router.model_of(partition).residents
        enough = self._settings.snapshot_events_per_stream * residents.num_to_write(partition)
        return (
            self._positions.of(partition) - stored.position >= enough
            or self._clock() - stored.at >= self._settings.snapshot_max_interval_s
        )

    def _moved(self, partition: int) -> bool:
        stored = self._stored.get(partition)
        return stored is not None and self._positions.of(partition) != stored.marked


def mark_of(partition: int, position: int, residents: Residents) -> Mark:
    """Return the mark of a partition whose states stand at a position."""
    watermark, arrivals = residents.watermark(partition), residents.arrivals(partition)
    return Mark(partition, position, watermark, residents.num_pages(partition), arrivals)
