"""The roll-outs of all routes (`rillcast.serving.routes`), each on its own; one commit may carry hand-overs of several.

Owns: what concerns all roll-outs alike, and which events of a record a route's models follow. Does not know: when a
partition changes its model.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import numpy as np

from rillcast.codecs.observations.decoder import ObservationDecoder
from rillcast.codecs.observations.fields import PolledRecords
from rillcast.codecs.observations.rejections import Rejection
from rillcast.durability.checkpoint import Handovers
from rillcast.engine.step_engine import StepResult
from rillcast.events import EventBatch
from rillcast.rollout.rollout import Rollout
from rillcast.serving.served_model import ServedModel


class RouteDecoder:
    """Decodes the events of one route; see `rillcast.rollout.decoding.Decoder`."""

    def __init__(self, decoder: ObservationDecoder, number: int) -> None:
        """Decode the events of the route with a number."""
        self._decoder = decoder
        self._number = number

    def decode(self, records: PolledRecords) -> tuple[EventBatch, list[Rejection]]:
        """Decode records as on the serving path, and return the events of the route."""
        events, rejections = self._decoder.decode(records)
        if events.routes is not None:
            events = events.take(np.flatnonzero(events.routes == self._number))
        return events, rejections


class Rollouts:
    """Used from one thread."""

    def __init__(self, rollouts: Mapping[str, Rollout]) -> None:
        """Take the roll-out of each route, by its name."""
        self._rollouts = rollouts

    @property
    def busy(self) -> bool:
        """Whether a model has events to catch up with, so that the loop should not wait for new ones."""
        return any(each.busy for each in self._rollouts.values())

    @property
    def due(self) -> bool:
        """Whether a partition may be about to change a model."""
        return any(each.due for each in self._rollouts.values())

    def advance(self, finish_step: Callable[[], object]) -> None:
        """Let each model that follows catch up by a slice; see `Rollout.advance`."""
        for each in self._rollouts.values():
            each.advance(finish_step)

    def handovers(self) -> Handovers:
        """Return the models that take partitions over, by route and partition."""
        found = {name: each.handovers() for name, each in self._rollouts.items() if each.due}
        return {name: handovers for name, handovers in found.items() if handovers}

    def handed_over(self, handovers: Handovers) -> None:
        """The commit has succeeded: let the new models serve."""
        for name, models in handovers.items():
            self._rollouts[name].handed_over(models)

    def live_stepped(self, route: str, model: ServedModel, events: EventBatch, result: StepResult) -> None:
        """Compare what the serving model of a route made of some events, if there is a shadow."""
        if (comparison := self._rollouts[route].comparison).active:
            comparison.live_stepped(model, events, result)

    def forget(self, partitions: Collection[int]) -> None:
        """Forget the states of partitions that leave or are reset to their committed positions."""
        for each in self._rollouts.values():
            each.forget(partitions)

    def close(self) -> None:
        """Close every model that does not serve."""
        for each in self._rollouts.values():
            each.close()
