"""Loads stored state, for the partitions that are served and for the models that follow.

Both may load from the same store at the same time: a model that serves some partitions may follow in others. A store
returns every partition that has become complete to whoever polls it; the restorer keeps each for the one that asked.

Owns: which partition of which model is being loaded, and for which purpose. Does not know: where a partition goes on
from, or who serves it.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

from rillcast.serving.served_model import ServedModel
from rillcast.stores.base import Restored


class Purpose(enum.Enum):
    """Why a partition is loaded."""

    SERVE = "serve"
    FOLLOW = "follow"


class Restorer:
    """Used from one thread. A partition of a model is loaded for one purpose at a time."""

    def __init__(self) -> None:
        self._purposes: dict[tuple[ServedModel, int], Purpose] = {}
        self._complete: dict[tuple[ServedModel, int], Restored] = {}

    def begin(self, model: ServedModel, partition: int, purpose: Purpose) -> None:
        """Start to load a partition; start again if it is being loaded, for either purpose.

        A model without a store has nothing to load: the partition is complete at the next `poll`.
        """
        self.cancel(model, partition)
        self._purposes[model, partition] = purpose
        if model.store is None:
            self._complete[model, partition] = Restored(partition, None, ())
        else:
            model.store.begin_restore(partition)

    def poll(self, model: ServedModel, purpose: Purpose, timeout_s: float) -> Sequence[Restored]:
        """Load for at most about `timeout_s`, and return the partitions that are complete for this purpose.

        Raises:
            StateError, TransportError: See `StateStore.poll_restore`; also for partitions of the other purpose.
        """
        if not any(key[0] is model and each is purpose for key, each in self._purposes.items()):
            return ()
        if model.store is not None:
            self._complete |= {(model, each.partition): each for each in model.store.poll_restore(timeout_s)}
        done = [key for key in self._complete if key[0] is model and self._purposes[key] is purpose]
        for key in done:
            del self._purposes[key]
        return [self._complete.pop(key) for key in done]

    def cancel(self, model: ServedModel, partition: int) -> None:
        """Stop loading a partition; without effect if it is not being loaded."""
        self._purposes.pop((model, partition), None)
        self._complete.pop((model, partition), None)
        if model.store is not None:
            model.store.cancel_restore(partition)


def put_in_place(model: ServedModel, restored: Restored) -> None:
    """Load a model's slots with the pages that its mark covers.

    A page with a higher number belongs to streams that began after the mark: the replay brings these back.
    """
    mark = restored.mark
    assert mark is not None  # else there is nothing to put in place
    pages = [page for page in restored.pages if page.number < mark.pages]
    model.residents.load(restored.partition, pages, mark.watermark_ms, mark.arrivals, mark.silences)
