"""`rillcast state rebuild`: let go of stored state, so that the next start steps the retained events again.

Owns: what an operator is told before anything is lost, and the order: the group is stopped, the plan is shown and
confirmed, each partition is erased in one commit. Does not know: how a store erases, or a worker replays.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

from rillcast.errors import SettingsError, StateError, TransportError
from rillcast.stores.base import StateStore
from rillcast.stores.copying import load
from rillcast.transports.base import Assignment


class Loss(NamedTuple):
    """What erasing one partition means.

    Attributes:
        partition: of the input.
        offset: as of which the stored state is; None if there is none, or it cannot be read.
        streams: in the stored state.
        damage: why it cannot be read; None if it can.
        committed: the group's position, up to which the replay is suppressed; None if it has none.
        beginning: the first event that is retained, with which the replay begins.
    """

    partition: int
    offset: int | None
    streams: int
    damage: str | None
    committed: int | None
    beginning: int | None

    @property
    def stored(self) -> bool:
        """Whether there is anything to erase."""
        return self.offset is not None or self.damage is not None

    def consequence(self) -> str:
        """Return, in a sentence, what the next start does."""
        if not self.stored:
            return "nothing is stored; it is left as it is"
        held = f"unreadable state ({self.damage})" if self.damage else f"{self.streams:,} streams as of {self.offset:,}"
        if self.beginning is None:
            return f"{held} go; the next run reads its file from the beginning, as it does anyway"
        if self.committed is None:
            return f"{held} go; the group has no position, so what is retained is forecast and published as if new"
        replayed = max(0, self.committed - self.beginning)
        text = f"{held} go; {replayed:,} retained events are stepped again, their output suppressed"
        if self.beginning:
            text += f". EVENTS BEFORE {self.beginning:,} ARE GONE: the streams begin anew there, and differ for a while"
        return text


def chosen(asked: Sequence[int] | None, partitions: Sequence[int]) -> Sequence[int]:
    """Return the partitions that were asked for, all by default.

    Raises:
        SettingsError: one does not exist.
    """
    if unknown := sorted(set(asked or ()) - set(partitions)):
        raise SettingsError(f"partition {unknown[0]} does not exist; there are {list(partitions)}")
    return partitions if asked is None else sorted(set(asked))


def require_stopped(group_id: str, members: int) -> None:
    """Refuse while the group runs: it would store its pages again, next to what is erased.

    Raises:
        TransportError: it has members.
    """
    if members:
        raise TransportError(
            f"group {group_id} has {members} members; stop the service first (a member that was killed counts until "
            f"its session ends), or its next snapshot would mix with what is erased. Nothing was changed"
        )


def losses(store: StateStore, partitions: Sequence[int], assignments: Sequence[Assignment]) -> list[Loss]:
    """Return what erasing each of `partitions` means.

    Raises:
        TransportError: the store cannot be read.
    """
    positions = {each.partition: each for each in assignments}
    found = []
    for partition in partitions:
        at = positions.get(partition)
        committed, beginning = (at.committed, at.beginning) if at is not None else (None, None)
        try:
            restored = load(store, partition)
        except StateError as error:
            found.append(Loss(partition, None, 0, str(error), committed, beginning))
            continue
        offset = restored.mark.offset if restored.mark is not None else None
        streams = sum(sum(map(bool, page.unique_ids)) for page in restored.pages)
        found.append(Loss(partition, offset, streams, None, committed, beginning))
    return found


def confirm(args: argparse.Namespace, plan: Sequence[Loss]) -> None:
    """Ask whether to go on, unless `--yes` was said.

    Raises:
        SettingsError: the answer is no, or nobody is there to ask.
    """
    if args.yes or not any(loss.stored for loss in plan):
        return
    if not sys.stdin.isatty():
        raise SettingsError("nothing was changed: say --yes to erase this state")
    if input("Erase it? [y/N] ").strip().lower() not in ("y", "yes"):
        raise SettingsError("nothing was changed")


def erase(store: StateStore, plan: Sequence[Loss], commit: Callable[[], None]) -> list[int]:
    """Erase what is stored of each partition, one commit each, and return them.

    Raises:
        TransportError: the store cannot be written; the partitions before are erased.
    """
    erased = []
    for loss in plan:
        if loss.stored:
            store.erase(loss.partition)
            commit()
            store.commit()
            erased.append(loss.partition)
    return erased
