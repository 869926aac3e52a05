"""A shadow compared with the model that serves: their scores, for the same events.

Once the shadow has caught up with a partition, the scores of both are counted there from that position on, each under
its model's id. The serving model is ahead by the events that the shadow has yet to step; over minutes the sums are of
the same events. Each model scores in units of its own scale of a stream. So compare the ratio of a model's error to its
own seasonal-naive error, not the errors.

Owns: which events count. Does not know: how they are stepped, or where the figures go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from rillcast.engine.step_engine import Outcome, StepResult
from rillcast.events import EventBatch
from rillcast.observability.route_metrics import Role, RouteMetrics
from rillcast.serving.served_model import ServedModel


class Comparison:
    """Used from one thread."""

    def __init__(self, metrics: RouteMetrics) -> None:
        """Compare nothing yet."""
        self._metrics = metrics
        self._model_id: str | None = None
        self._since: dict[int, int] = {}

    @property
    def active(self) -> bool:
        """Whether anything is compared."""
        return bool(self._since)

    def caught_up(self, model_id: str, positions: Mapping[int, int]) -> None:
        """Count from these positions on, by partition, unless a partition is counted already."""
        if model_id != self._model_id:
            self._model_id, self._since = model_id, {}
        for number, position in positions.items():
            self._since.setdefault(number, position)

    def forget(self, partitions: Iterable[int]) -> None:
        """Count nothing of these partitions until the shadow has caught up again."""
        for number in partitions:
            self._since.pop(number, None)

    def end(self, model_id: str) -> None:
        """Stop comparing a model; without effect if another one is compared."""
        if model_id == self._model_id:
            self._model_id, self._since = None, {}

    def live_stepped(self, model: ServedModel, events: EventBatch, result: StepResult) -> None:
        """Count what the serving model made of some events."""
        if self.active:
            self._count(model, "live", events, result)

    def shadow_stepped(self, model: ServedModel, events: EventBatch, result: StepResult) -> None:
        """Count what a following model made of some events, if it is the shadow."""
        if model.model_id == self._model_id and self.active:
            self._count(model, "shadow", events, result)

    def _count(self, model: ServedModel, role: Role, events: EventBatch, result: StepResult) -> None:
        if result.score is None:
            return
        counted = np.zeros(len(events), np.bool_)
        for number, since in self._since.items():
            counted |= (events.partitions == number) & (events.offsets >= since)
        counted &= result.outcome == Outcome.STEPPED
        if counted.any():
            self._metrics.compared(role, model.engine.bundle.metadata, result.score[counted])
