"""The models of one route, and which of them serves which partition.

A route has one model, the default, except during a roll-out (`rillcast.rollout.rollout`). Exactly one of its models
serves a partition. A partition changes its model between two commits (`Checkpoint.commit(handovers=...)`), never within
a poll. A service has a route for each table of `[[models]]`, or else a single one (`rillcast.serving.routes`).

Owns: which model serves which partition, which models are open, and how a poll's events are divided among them.
Does not know: where models come from, when a partition changes its model, transports, commits.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from typing import NamedTuple

import numpy as np

from rillcast.engine.pages import Silence
from rillcast.engine.periods import Taken
from rillcast.engine.step_engine import Advanced, StepResult
from rillcast.errors import RillcastError, ServedByAnotherKindError
from rillcast.events import EventBatch
from rillcast.serving.served_model import ServedModel

log = logging.getLogger(__name__)


class ModelResult(NamedTuple):
    """The result of one model's share of a poll.

    Attributes:
        model: The model that stepped the events.
        events: The events of its partitions, or the periods that these closed.
        result: Row `i` belongs to event `i`.
        route: Name of the route that the model serves; empty where the service has one model.
        taken: The raw events that closed these periods; None where events are not aggregated.
    """

    model: ServedModel
    events: EventBatch
    result: StepResult
    route: str = ""
    taken: Taken | None = None


class Router:
    """Used from one thread, except `step`: it may run in another while no partition is assigned or dropped."""

    def __init__(
        self,
        default: ServedModel,
        open_model: Callable[[str], ServedModel | None] = lambda _model_id: None,
        name: str = "",
    ) -> None:
        """Begin with one model.

        Args:
            default: The model that partitions begin with.
            open_model: Opens a model that served before, by its id; returns None if there is no such model.
            name: Name of the route; empty where it is the only one and has none.
        """
        self.default = default
        self.name = name
        self._starts: dict[int, int] = {}
        self._open_model = open_model
        self._assigned: dict[int, ServedModel] = {}
        self._retained: set[ServedModel] = set()
        self._expected: frozenset[str] = frozenset()
        self._closed_bytes = 0

    @property
    def all(self) -> Collection[ServedModel]:
        """The default model, and every other model that serves a partition."""
        return dict.fromkeys([self.default, *self._assigned.values()])

    @property
    def in_use(self) -> set[str]:
        """The ids of the models that serve, follow or are expected to: their stored state must stay."""
        return {*self._expected, *(model.model_id for model in self._open)}

    @property
    def stores_state(self) -> bool:
        """Whether the states are stored; the settings decide it for all models alike."""
        return self.default.store is not None

    @property
    def bytes_staged(self) -> int:
        """Bytes handed to the stores so far."""
        return self._closed_bytes + sum(model.store.bytes_staged for model in self._open if model.store is not None)

    def model_of(self, partition: int) -> ServedModel:
        """Return the model that serves a partition."""
        return self._assigned.get(partition, self.default)

    def find(self, model_id: str) -> ServedModel | None:
        """Return the open model with an id; None if none is open."""
        return next((model for model in self._open if model.model_id == model_id), None)

    def open(self, model_id: str) -> ServedModel | None:
        """Return the model with an id, opened now if it is not open yet; None if it is unavailable.

        Raises:
            ServedByAnotherKindError: It cannot run beside the models of this service.
        """
        if (model := self.find(model_id)) is not None:
            return model
        try:
            return self._open_model(model_id)
        except ServedByAnotherKindError:
            raise
        except RillcastError as error:
            log.warning("model %s, which served before, cannot be opened: %s", model_id, error)
            return None

    def expect(self, model_ids: Iterable[str]) -> None:
        """Count these models as in use, and no others that are not open; each call replaces the call before."""
        self._expected = frozenset(model_ids)

    def assign(self, partition: int, model: ServedModel) -> None:
        """Let a model serve a partition from the next event on; the states of the model before stay untouched."""
        before = self._open
        self._assigned[partition] = model
        self._close_unused(before)

    def start_at(self, partition: int, position: int) -> None:
        """Pass over the events of a partition below a position: the states have them, and another route's lack them."""
        self._starts[partition] = position

    def drop(self, partition: int) -> None:
        """Forget a partition and its states."""
        self._starts.pop(partition, None)
        before = self._open
        model = self.model_of(partition)
        model.residents.release(partition)
        model.publisher.forget(partition)
        self._assigned.pop(partition, None)
        self._close_unused(before)

    def set_default(self, model: ServedModel) -> None:
        """Let partitions begin with another model; partitions that the model before serves stay with it."""
        before = self._open
        self.default = model
        self._close_unused(before)

    def retain(self, model: ServedModel) -> None:
        """Keep a model open that may serve no partition: it follows, to take over or as a shadow."""
        self._retained.add(model)

    def release(self, model: ServedModel) -> None:
        """Retain a model no longer; close it unless it serves."""
        before = self._open
        self._retained.discard(model)
        self._close_unused(before)

    def step(self, events: EventBatch) -> list[ModelResult]:
        """Let each event advance its stream, with the model of its partition."""
        if self._starts:
            events = self._from_start(events)
        if not len(events):
            return []
        if len(self.all) == 1:
            return self._results(self.default, self.default.engine.advance(events))
        shares: dict[ServedModel, list[int]] = {}
        for partition in np.unique(events.partitions).tolist():
            shares.setdefault(self.model_of(partition), []).append(partition)
        results: list[ModelResult] = []
        for model, partitions in shares.items():
            share = events.take(np.flatnonzero(np.isin(events.partitions, partitions)))
            results += self._results(model, model.engine.advance(share))
        return results

    def silence(self, partition: int, silence: Silence) -> list[ModelResult]:
        """Let the time of a partition go on without an event; nothing where it has come so far already."""
        model = self.model_of(partition)
        advanced = model.engine.silence(partition, silence)
        return [] if advanced is None else self._results(model, [advanced])

    def finish(self, partition: int, offset: int) -> list[ModelResult]:
        """Step the open periods of a partition that has ended with a record."""
        model = self.model_of(partition)
        advanced = model.engine.finish(partition, offset)
        return [] if advanced is None else self._results(model, [advanced])

    def discard(self) -> None:
        """Discard everything that was staged for a commit that failed."""
        for model in self._open:
            if model.store is not None:
                model.store.discard()

    def close(self) -> None:
        """Close the store of every model."""
        for model in self._open:
            model.close()

    @property
    def _open(self) -> Collection[ServedModel]:
        return dict.fromkeys([*self.all, *self._retained])

    def _close_unused(self, before: Collection[ServedModel]) -> None:
        """Close the models of `before` that neither serve nor are retained."""
        for model in before:
            if model not in self._open and model.store is not None:
                self._closed_bytes += model.store.bytes_staged
                model.close()

    def _from_start(self, events: EventBatch) -> EventBatch:
        """Return the events that the states lack; a partition that has come to its start passes nothing over."""
        lacking = np.ones(len(events), np.bool_)
        for partition, position in list(self._starts.items()):
            own = events.partitions == partition
            lacking &= ~own | (events.offsets >= position)
            if own.any() and events.offsets[own][-1] >= position - 1:
                del self._starts[partition]
        return events if lacking.all() else events.take(np.flatnonzero(lacking))

    def _results(self, model: ServedModel, advanced: Iterable[Advanced]) -> list[ModelResult]:
        return [ModelResult(model, each.events, each.result, self.name, each.taken) for each in advanced]
