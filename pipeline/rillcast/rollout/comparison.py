"""A model in the shadow beside the one that serves: their scores, for the same events.

From the position at which the shadow has caught up with a partition, the scores of both are counted there, each under
its model's id. The serving model is ahead by what the shadow has still to step; over minutes the sums are of the same
events. Scores are in units of each stream's scale as each model knows it, so compare the ratio of a model's error to
its own seasonal-naive error rather than the errors.

Owns: which events count. Does not know: how they are stepped, what becomes of the figures.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from rillcast.engine.step_engine import Outcome, StepResult
from rillcast.events import EventBatch
from rillcast.observability.metrics import Metrics, Role
from rillcast.serving.router import ServedModel


class Comparison:
    """Used from one thread."""

    def __init__(self, metrics: Metrics) -> None:
        """Compare nothing yet."""
        self._metrics = metrics
        self._model_id: str | None = None
        self._since: dict[int, int] = {}

    def current(self, model_id: str, positions: Mapping[int, int]) -> None:
        """Count from these positions on, where nothing is counted yet: the shadow has caught up with them."""
        if model_id != self._model_id:
            self._model_id, self._since = model_id, {}
        for number, position in positions.items():
            self._since.setdefault(number, position)

    def forget(self, partitions: Iterable[int]) -> None:
        """Count nothing of these partitions until the shadow has caught up anew."""
        for number in partitions:
            self._since.pop(number, None)

    def drop(self, model_id: str) -> None:
        """Compare no more with a model."""
        if model_id == self._model_id:
            self._model_id, self._since = None, {}

    @property
    def active(self) -> bool:
        """Whether anything is compared."""
        return bool(self._since)

    def served(self, lane: ServedModel, events: EventBatch, result: StepResult) -> None:
        """Take in what the serving model made of some events."""
        if self.active:
            self._count(lane, "live", events, result)

    def shadow_stepped(self, lane: ServedModel, events: EventBatch, result: StepResult) -> None:
        """Take in what a following model made of some events; only the shadow's are counted."""
        if lane.model_id == self._model_id and self._since:
            self._count(lane, "shadow", events, result)

    def _count(self, lane: ServedModel, role: Role, events: EventBatch, result: StepResult) -> None:
        if result.score is None:
            return
        counted = np.zeros(len(events), np.bool_)
        for number, since in self._since.items():
            counted |= (events.partitions == number) & (events.offsets >= since)
        counted &= result.outcome == Outcome.STEPPED
        if counted.any():
            self._metrics.compared(role, lane.engine.bundle.metadata, result.score[counted])
