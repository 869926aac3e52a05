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
     thing, which all models' stores share: `claim(claims)` adds to the commit that is being built that from it on
     this store's model serves these partitions, and which models did so before; a restore says what was claimed last. A
     claim is never seen before the pages and the mark that were staged before it.
  6. `erase(partition)` adds to the commit that is being built that nothing is stored of a partition any more, be it
     whole or damaged. It is for a partition that is neither restored nor staged meanwhile.
  7. `retire(partition, model_id, before)` adds to the commit that is being built that nothing is stored any more of
     another model, which served the partition once: it is the only way in which a store touches what is not its own.
     A model that a process has open is left alone where the store can know it, and stays named in the partition's
     claim, so that it is tried again later.
  8. A damaged page, or one that says another model, partition or number than its place, is refused with a `StateError`
     that names it; nothing is ever skipped.

A store knows nothing of streams' meaning, models or events. It is used from one thread.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from rillcast.engine.pages import Arrivals, Page


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


class Superseded(NamedTuple):
    """A model that serves a partition no more.

    Attributes:
        at_ms: wall clock, milliseconds since the epoch, when another model took over.
        pages: its stored pages have numbers below it.
    """

    at_ms: int
    pages: int = 0


@dataclass(frozen=True, slots=True)
class Claim:
    """Who serves a partition, and who did before.

    Attributes:
        model_id: serves it.
        since_ms: wall clock, milliseconds since the epoch, when that began; 0 = not known.
        before: by model id, those whose state is still stored.
    """

    model_id: str
    since_ms: int = 0
    before: Mapping[str, Superseded] = field(default_factory=dict)

    def passed_on(self, model_id: str, now_ms: int, pages: int) -> Claim:
        """Return the claim of a model that takes over.

        Args:
            model_id: of that model.
            now_ms: wall clock. One that stands before this claim was set back, and is not believed: a model has not
                served for less than no time, and a time that is too early would end the keeping of its state early.
            pages: stored pages of the model that served have numbers below it.
        """
        now_ms = max(now_ms, self.since_ms)
        before = {**self.before, self.model_id: Superseded(now_ms, pages)}
        before.pop(model_id, None)
        return Claim(model_id, now_ms, before)

    def without(self, model_ids: Collection[str]) -> Claim:
        """Return it as it is when nothing is stored any more of some models that served before."""
        before = {model_id: each for model_id, each in self.before.items() if model_id not in model_ids}
        return Claim(self.model_id, self.since_ms, before)


@dataclass(frozen=True, slots=True)
class Restored:
    """What a store had for one partition.

    Attributes:
        partition: of the input.
        mark: None where it has nothing (then there are no pages either).
        pages: in the order of their numbers.
        claim: the last one of the partition, by the store's model or another; None = none has claimed it.
        others: by the id of another model, a number above those of the pages that are stored of it. Only where to
            retire a model takes knowing it.
    """

    partition: int
    mark: Mark | None
    pages: Sequence[Page]
    claim: Claim | None = None
    others: Mapping[str, int] = field(default_factory=dict)


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

    def claim(self, claims: Mapping[int, Claim]) -> None:
        """Add to the commit that is being built that this store's model serves these partitions.

        Raises:
            TransportError: the store cannot take it.
        """
        ...

    def retire(self, partition: int, model_id: str, before: Superseded) -> None:
        """Forget, with the commit that is being built, what is stored of a model that served a partition before.

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
