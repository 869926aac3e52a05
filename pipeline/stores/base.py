"""What a state store is: the place where pages of state rows outlive the process.

A page is the state of up to `PAGE_SLOTS` streams of one partition as of an input offset. A mark says that all pages of
a partition are current up to an offset W: whatever a restore has to replay begins there. Pages may be newer than the
mark; an event below a page's offset was already applied to it and must not be applied again.

The contract that every store keeps:

  1. `begin_restore(partition)` starts loading what was last committed for a partition; `poll_restore(timeout_s)`
     returns partitions that are complete since the last call, and never those that were cancelled. Loading ends at what
     was committed when it began, judged by the position reached, never by the last record seen.
  2. `stage(pages, marks)` hands over a snapshot, or a part of one, as part of the commit that is being built. A restore
     sees it when that commit has succeeded, and all of it then. (Through a sink without transactions pages may be seen
     before, each with its own offset, but a mark never before its pages.) The arrays may be reused after the call. A
     partition is not staged while it is being restored.
  3. `commit()` is called right after the commit has succeeded, `discard()` after it has failed.
  4. A page replaces the stored page of the same partition and number; a mark the stored mark. A page without streams is
     a tombstone. What a page holds in free slots is not stored: it comes back as zeros.
  5. What is stored belongs to one model: a store made for another model id neither sees nor touches it. But for one
     thing, which all models' stores share: `claim(partitions)` adds to the commit that is being built that from it on
     this store's model serves these partitions, and a restore says which model's claim was the last. A claim is never
     seen before the pages and the mark that were staged before it.
  6. `erase(partition)` adds to the commit that is being built that nothing is stored of a partition any more, be it
     whole or damaged. It is for a partition that is neither restored nor staged meanwhile.
  7. A damaged page, or one that says another model, partition or number than its place, is refused with a `StateError`
     that names it; nothing is ever skipped.

A store knows nothing of streams' meaning, models or events. It is used from one thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from pipeline.arrays import AnyArray, IntArray


@dataclass(frozen=True, slots=True)
class Page:
    """The state of some streams of one partition.

    Attributes:
        partition: of the input.
        number: of the page within its partition, from 0.
        offset: input position up to which the page is current: events below it are in it.
        unique_ids: `n` stream ids, n at most `PAGE_SLOTS`, in slot order; "" = the slot is free.
        last_ds: `(n,)` int64, event time of each stream's newest event, milliseconds.
        rows: by name of the state, `(n, *row_shape)`.
    """

    partition: int
    number: int
    offset: int
    unique_ids: tuple[str, ...]
    last_ds: IntArray
    rows: Mapping[str, AnyArray]


class Arrivals(NamedTuple):
    """How many new streams a partition took in the last second that brought any, by the records' timestamps.

    Attributes:
        second: since the epoch.
        streams: taken in it.
    """

    second: int = 0
    streams: int = 0


class Mark(NamedTuple):
    """All pages of `partition` are current up to input position `offset`.

    Attributes:
        partition: of the input.
        offset: W, where a replay begins.
        watermark_ms: newest event time seen in the partition below `offset`, which eviction goes by.
        pages: how many pages the partition has; those with a number from 0 to `pages - 1` exist or are tombstones.
        arrivals: below `offset`, which the limit on new streams goes by.
    """

    partition: int
    offset: int
    watermark_ms: int
    pages: int
    arrivals: Arrivals = Arrivals()


@dataclass(frozen=True, slots=True)
class Restored:
    """What a store had for one partition.

    Attributes:
        partition: of the input.
        mark: None where it has nothing (then there are no pages either).
        pages: in the order of their numbers.
        served_by: id of the model that claimed the partition last, be it the store's or another; None = none has.
    """

    partition: int
    mark: Mark | None
    pages: Sequence[Page]
    served_by: str | None = None


class StateStore(Protocol):
    """See the module's docstring for the contract."""

    def begin_restore(self, partition: int) -> None:
        """Start loading a partition; one that is being loaded already starts anew."""
        ...

    def poll_restore(self, timeout_s: float) -> Sequence[Restored]:
        """Go on loading for at most about `timeout_s`, and return the partitions that became complete.

        Raises:
            StateError: a stored page or mark is damaged or foreign.
            TransportError: the store cannot be reached.
        """
        ...

    def cancel_restore(self, partition: int) -> None:
        """Stop loading a partition; one that is not being loaded is no error."""
        ...

    def stage(self, pages: Sequence[Page], marks: Sequence[Mark]) -> None:
        """Add pages and marks to the commit that is being built.

        Raises:
            TransportError: the store cannot take them.
        """
        ...

    def claim(self, partitions: Sequence[int]) -> None:
        """Add to the commit that is being built that this store's model serves these partitions.

        Raises:
            TransportError: the store cannot take it.
        """
        ...

    def erase(self, partition: int) -> None:
        """Forget, with the commit that is being built, all that is stored of a partition.

        Raises:
            TransportError: the store cannot be reached.
        """
        ...

    def commit(self) -> None:
        """Make what was staged the stored state: the commit that it belongs to has succeeded."""
        ...

    def discard(self) -> None:
        """Drop what was staged: the commit that it belongs to has failed."""
        ...

    @property
    def bytes_staged(self) -> int:
        """Bytes handed to storage so far, for the metric."""
        ...

    def close(self) -> None:
        """Release resources; may be called twice."""
        ...
