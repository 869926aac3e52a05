"""A model as a worker runs it: its engine, its publisher and its store.

Owns: which three belong together. Does not know: which partitions the model serves, or where its bundle comes from.
"""

from __future__ import annotations

from dataclasses import dataclass

from rillcast.engine.residents import Residents
from rillcast.engine.step_engine import StepEngine
from rillcast.publishing.publisher import Publisher
from rillcast.stores.base import StateStore


@dataclass(frozen=True, slots=True, eq=False)
class ServedModel:
    """A model with states of its own; two of the same bundle are two.

    Attributes:
        engine: Steps events and holds the states.
        publisher: Publishes the results.
        store: Keeps the states; None = they are not stored.
    """

    engine: StepEngine
    publisher: Publisher
    store: StateStore | None

    @property
    def model_id(self) -> str:
        """The identity of the bundle."""
        return self.engine.bundle.metadata.model_id

    @property
    def residents(self) -> Residents:
        """The streams that have state on the device."""
        return self.engine.residents

    def close(self) -> None:
        """Close the store; may be called twice."""
        if self.store is not None:
            self.store.close()
