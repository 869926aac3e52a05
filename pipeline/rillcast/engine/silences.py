"""The decisions that partitions were silent up to a time: those that are known, and how far they have been applied.

Owns: them, by partition. Does not know: who decides, or what a decision does to streams.
"""

from __future__ import annotations

from collections.abc import Sequence

from rillcast.engine.pages import Silence
from rillcast.engine.slot_state import NEVER


class Silences:
    """Used from one thread."""

    def __init__(self) -> None:
        """Know none."""
        self._known: dict[int, list[Silence]] = {}
        self._applied_to: dict[int, int] = {}

    def applied_to(self, partition: int) -> int:
        """Return the event time that a partition has reached by silence; `NEVER` if it was never silent."""
        return self._applied_to.get(partition, NEVER)

    def known(self, partition: int, since: int = 0) -> tuple[Silence, ...]:
        """Return the decisions at or behind a position, and the last one, in the order of their positions."""
        known = self._known.get(partition, [])
        return tuple(each for nth, each in enumerate(known, 1) if each.position >= since or nth == len(known))

    def due(self, partition: int) -> list[Silence]:
        """Return the known decisions of a partition that have not been applied yet."""
        return [each for each in self._known.get(partition, ()) if each.watermark_ms > self.applied_to(partition)]

    def know(self, partition: int, silence: Silence) -> None:
        """Take in a decision that is not applied yet; a later one at the same position replaces the one before."""
        known = self._known.setdefault(partition, [])
        if silence not in known:
            known[:] = [each for each in known if each.position != silence.position]
            known.append(silence)
            known.sort()

    def apply(self, partition: int, silence: Silence) -> None:
        """Take in a decision that is applied now."""
        self.know(partition, silence)
        self._applied_to[partition] = max(silence.watermark_ms, self.applied_to(partition))

    def forget_before(self, partition: int, position: int) -> None:
        """Forget the decisions before a position, from which a replay begins at the earliest, but for the last one."""
        if partition in self._known:
            self._known[partition] = list(self.known(partition, position))

    def load(self, partition: int, silences: Sequence[Silence]) -> None:
        """Take in stored decisions of a partition, in place of those that are known."""
        self._known[partition] = list(silences)

    def release(self, partition: int) -> None:
        """Forget a partition."""
        self._known.pop(partition, None)
        self._applied_to.pop(partition, None)
