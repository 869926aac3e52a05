"""The restores of one store, shared by those who ask for them.

The partitions that are served and a model that follows them may load from the same store at the same time: a model that
has taken over some partitions goes on with those that come, while it warms up for others. A store hands out what it has
loaded to whoever polls it; this hands it to the one who asked.

Owns: who asked for which partition. Does not know: what becomes of the state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

from rillcast.stores.base import Restored, StateStore

Asker: TypeAlias = Literal["serving", "following"]


class Restores:
    """Used from one thread. A partition is loaded for one asker at a time."""

    def __init__(self, store: StateStore) -> None:
        """Load nothing yet."""
        self._store = store
        self._askers: dict[int, Asker] = {}
        self._done: list[Restored] = []

    def begin(self, partition: int, asker: Asker) -> None:
        """Start loading a partition, anew if it is being loaded, for whomever."""
        self.cancel(partition)
        self._store.begin_restore(partition)
        self._askers[partition] = asker

    def poll(self, asker: Asker, timeout_s: float) -> Sequence[Restored]:
        """Go on loading for at most about `timeout_s`, and return what is complete of what this one asked for.

        Raises:
            StateError, TransportError: see `StateStore.poll_restore`; also for what the other one asked for.
        """
        if not any(each == asker for each in self._askers.values()):
            return ()
        self._done += self._store.poll_restore(timeout_s)
        own = [restored for restored in self._done if self._askers[restored.partition] == asker]
        self._done = [restored for restored in self._done if self._askers[restored.partition] != asker]
        for restored in own:
            del self._askers[restored.partition]
        return own

    def cancel(self, partition: int) -> None:
        """Stop loading a partition; one that is not being loaded is no error."""
        self._askers.pop(partition, None)
        self._done = [restored for restored in self._done if restored.partition != partition]
        self._store.cancel_restore(partition)
