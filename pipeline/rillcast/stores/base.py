"""The contract of a state store: pages of state rows outlive the process.

A page is the state of up to `PAGE_SLOTS` streams of one partition as of an input offset. A mark says that all pages of
a partition are current up to an offset W, where a replay begins after a restore. Pages may be newer than the mark; an
event below a page's offset was already applied to it and must not be applied again.

The contract that every store keeps:

  1. `begin_restore(partition)` starts loading the last committed state of a partition. `poll_restore(timeout_s)`
     returns partitions that became complete since the last call, and never cancelled ones. Loading ends at the state
     that was committed when it began, judged by the position reached, never by the last record seen.
  2. `stage(pages, marks)` adds a snapshot, or a part of one, to the commit in preparation. A restore sees it once that
     commit has succeeded, and all of it then. (Through a sink without transactions pages may be visible earlier, each
     with its own offset, but a mark never before its pages.) The arrays may be reused after the call. A partition is
     not staged while it is being restored.
  3. `commit()` is called right after the commit has succeeded, `discard()` after it has failed.
  4. A page replaces the stored page of the same partition and number; a mark replaces the stored mark. A page without
     streams is a tombstone. Free slots of a page are not stored: they come back as zeros.
  5. Stored state belongs to one model: a store of another model id neither sees nor changes it. Only claims are shared
     by the stores of all models. `claim(claims)` adds to the commit in preparation that this store's model serves these
     partitions from then on, and which models served them before; a restore returns the last claim. A claim is never
     visible before the pages and the mark that were staged before it.
  6. `erase(partition)` adds to the commit in preparation that nothing of a partition is stored any more, whether it was
     whole or damaged. The partition is neither restored nor staged meanwhile.
  7. `retire(partition, model_id, before)` adds to the commit in preparation that nothing is stored any more of another
     model, which served the partition before. No other call changes another model's state. If the store can tell that
     a process has that model open, the model's state stays, and so does its name in the partition's claim, for a later
     try.
  8. A damaged page, or one that names another model, partition or number than its place, is refused with a `StateError`
     that says where it is; nothing is ever skipped.

A store knows nothing of models, of events, or of the meaning of streams. It is used from one thread.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from rillcast.engine.pages import Arrivals, Page, Silence


class Mark(NamedTuple):
    """All pages of `partition` are current up to input position `offset`.

    Attributes:
        partition: Partition of the input.
        offset: W, where a replay begins.
        watermark_ms: Newest event time in the partition below `offset`; eviction uses it.
        pages: Number of pages of the partition; those numbered from 0 to `pages - 1` exist or are tombstones.
        arrivals: New streams below `offset`; the limit on new streams uses them.
        silences: Decisions that a replay from `offset` takes again, in the order of their positions, and the last one.
    """

    partition: int
    offset: int
    watermark_ms: int
    pages: int
    arrivals: Arrivals = Arrivals()
    silences: tuple[Silence, ...] = ()


class Superseded(NamedTuple):
    """A model that does not serve a partition any more.

    Attributes:
        at_ms: Wall clock in milliseconds since the epoch when another model took over.
        pages: Upper bound of the numbers of its stored pages, exclusive.
    """

    at_ms: int
    pages: int = 0


@dataclass(frozen=True, slots=True)
class Claim:
    """The model that serves a partition, and those that served it before.

    Attributes:
        model_id: Id of the model that serves it.
        since_ms: Wall clock in milliseconds since the epoch when that began; 0 = unknown.
        before: Former models whose state is still stored, by model id.
    """

    model_id: str
    since_ms: int = 0
    before: Mapping[str, Superseded] = field(default_factory=dict)

    def passed_on(self, model_id: str, now_ms: int, pages: int) -> Claim:
        """Return the claim of a model that takes over.

        Args:
            model_id: Id of that model.
            now_ms: Wall clock. A time before this claim comes from a clock that was set back. It is replaced by the
                claim's time, since a time that is too early would remove the model's state too early.
            pages: Upper bound of the numbers of the former model's stored pages, exclusive.
        """
        now_ms = max(now_ms, self.since_ms)
        before = {**self.before, self.model_id: Superseded(now_ms, pages)}
        before.pop(model_id, None)
        return Claim(model_id, now_ms, before)

    def without(self, model_ids: Collection[str]) -> Claim:
        """Return the claim without former models of which nothing is stored any more."""
        before = {model_id: each for model_id, each in self.before.items() if model_id not in model_ids}
        return Claim(self.model_id, self.since_ms, before)


@dataclass(frozen=True, slots=True)
class Restored:
    """The stored state of one partition.

    Attributes:
        partition: Partition of the input.
        mark: The mark; None if nothing is stored (then there are no pages either).
        pages: The pages in the order of their numbers.
        claim: The last claim to the partition, by the store's model or another; None = no model has claimed it.
        others: By the id of another model, a number above those of its stored pages. Empty in stores that do not need
            it to retire a model.
    """

    partition: int
    mark: Mark | None
    pages: Sequence[Page]
    claim: Claim | None = None
    others: Mapping[str, int] = field(default_factory=dict)


class StateStore(Protocol):
    """See the module's docstring for the contract."""

    def begin_restore(self, partition: int) -> None:
        """Start loading a partition; if it is being loaded already, start again."""
        ...

    def poll_restore(self, timeout_s: float) -> Sequence[Restored]:
        """Continue loading for at most about `timeout_s`, and return the partitions that became complete.

        Raises:
            StateError: A stored page or mark is damaged or foreign.
            TransportError: The store cannot be reached.
        """
        ...

    def cancel_restore(self, partition: int) -> None:
        """Stop loading a partition; one that is not being loaded is no error."""
        ...

    def stage(self, pages: Sequence[Page], marks: Sequence[Mark]) -> None:
        """Add pages and marks to the commit in preparation.

        Raises:
            TransportError: The store cannot take them.
        """
        ...

    def claim(self, claims: Mapping[int, Claim]) -> None:
        """Add to the commit in preparation that this store's model serves these partitions.

        Raises:
            TransportError: The store cannot take it.
        """
        ...

    def retire(self, partition: int, model_id: str, before: Superseded) -> None:
        """Remove, with the commit in preparation, the state of a model that served a partition before.

        Raises:
            TransportError: The store cannot take it.
        """
        ...

    def erase(self, partition: int) -> None:
        """Remove, with the commit in preparation, all state of a partition.

        Raises:
            TransportError: The store cannot be reached.
        """
        ...

    def commit(self) -> None:
        """Make the staged changes the stored state: their commit has succeeded."""
        ...

    def discard(self) -> None:
        """Drop the staged changes: their commit has failed."""
        ...

    @property
    def bytes_staged(self) -> int:
        """Bytes handed to storage since the store was opened, for the metric."""
        ...

    def close(self) -> None:
        """Release resources; may be called twice."""
        ...
