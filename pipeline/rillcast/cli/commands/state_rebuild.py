"""`rillcast state rebuild`: erase stored state, so that the next start replays the retained events.

Owns: the warning before a loss, and the order: the group is stopped, the plan is shown and confirmed, each partition is
erased in one commit. Does not know: how a store erases, or a worker replays.
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
    """Consequences of erasing one partition.

    Attributes:
        partition: Number of the partition.
        offset: Position of the stored state; None if there is none, or it is unreadable.
        streams: Number of streams in the stored state.
        damage: Reason why the state is unreadable; None if it is readable.
        committed: The group's position; output of the replay is suppressed up to it. None if it has none.
        beginning: The first retained event, at which the replay begins.
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
            return "no stored state; nothing to erase"
        held = f"unreadable state ({self.damage})" if self.damage else f"{self.streams:,} streams as of {self.offset:,}"
        if self.beginning is None:
            return f"erases {held}; the next run reads its file from the beginning, as every run does"
        if self.committed is None:
            return f"erases {held}; the group has no position, so all retained events are forecast and published again"
        replayed = max(0, self.committed - self.beginning)
        text = f"erases {held}; {replayed:,} retained events are replayed without output"
        if self.beginning:
            text += (
                f". EVENTS BEFORE {self.beginning:,} ARE LOST: the streams start without them, and differ for a while"
            )
        return text


def chosen(asked: Sequence[int] | None, partitions: Sequence[int]) -> Sequence[int]:
    """Return the partitions of the flag, all by default.

    Raises:
        SettingsError: A partition does not exist.
    """
    if unknown := sorted(set(asked or ()) - set(partitions)):
        raise SettingsError(f"partition {unknown[0]} does not exist; there are {list(partitions)}")
    return partitions if asked is None else sorted(set(asked))


def require_stopped(group_id: str, members: int) -> None:
    """Refuse while the group runs, because it would store its pages again after they are erased.

    Raises:
        TransportError: The group has members.
    """
    if members:
        raise TransportError(
            f"group {group_id} has {members} members, expected none; nothing was changed. "
            f"Stop the service first; a killed member counts until its session ends"
        )


def losses(store: StateStore, partitions: Sequence[int], assignments: Sequence[Assignment]) -> list[Loss]:
    """Return the consequences of erasing each of `partitions`.

    Raises:
        TransportError: The store cannot be read.
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
    """Ask for confirmation, unless `--yes` was given.

    Raises:
        SettingsError: The answer is no, or standard input is not a terminal.
    """
    if args.yes or not any(loss.stored for loss in plan):
        return
    if not sys.stdin.isatty():
        raise SettingsError("nothing was changed; use --yes to erase this state")
    if input("Erase it? [y/N] ").strip().lower() not in ("y", "yes"):
        raise SettingsError("nothing was changed: the answer was not yes")


def erase(store: StateStore, plan: Sequence[Loss], commit: Callable[[], None]) -> list[int]:
    """Erase the stored state of each partition, with one commit each, and return their numbers.

    Raises:
        TransportError: The store cannot be written; the partitions before are erased.
    """
    erased = []
    for loss in plan:
        if loss.stored:
            store.erase(loss.partition)
            commit()
            store.commit()
            erased.append(loss.partition)
    return erased
