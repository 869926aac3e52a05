"""Alarms of a network's streams: the evidence of `rillcast_training.model.alarms`, from the parts of its step.

Owns: what the alarms need to know of an event. Does not know: the network, or its other state.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from rillcast.bundle.alarms import LONGEST_SILENCE
from rillcast_training.model.alarms import FIELDS, AlarmModel, Observed
from rillcast_training.model.tails import of_both_sides

JUDGED: Final = 4


class Judged(NamedTuple):
    """Observations and what was forecast for them, `[B]` each.

    Attributes:
        y: The observation.
        expected: The middle quantile of the forecast made one period before.
        tail: Return period of the observation beyond the quantiles; 0 = it lies within them.
        valid: 1 where there are an observation and a forecast of it, else 0; the others need a value only there.
    """

    y: Tensor
    expected: Tensor
    tail: Tensor
    valid: Tensor


def judge(y: Tensor, middle: Tensor, outside: Tensor, valid: Tensor) -> Judged:
    """Compare observations with their forecasts.

    Args:
        y: `[B]` observations.
        middle: `[B]` the middle quantile that was forecast for them.
        outside: `[B]` their return periods beyond the outermost quantiles (`rillcast_training.model.tails`).
        valid: `[B]` bool, whether there are an observation and a forecast of it.
    """
    return Judged(y, middle, of_both_sides(outside, valid), valid.to(torch.float32))


class NetworkAlarms(nn.Module):
    """No parameters. State `[WIDTH, B]`: that of `AlarmModel`."""

    def __init__(self) -> None:
        super().__init__()
        self.alarms = AlarmModel()

    def forward(
        self, state: Tensor, judged: Judged, has: Tensor, advances: Tensor, passed: Tensor, interval: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Take in an event of each stream.

        Args:
            state: `[WIDTH, B]`.
            judged: The observations, and their forecasts.
            has: `[B]` bool, whether there is an observation.
            advances: `[B]` bool, whether the event advances its stream.
            passed: `[B]` periods since the event before, 0 for a stream's first.
            interval: `[B]` periods in which one alarm of a stream is wanted, 0 = none.

        Returns:
            The next state, and `[8, B]` as of `AlarmModel`.
        """
        passed = passed.clamp(max=LONGEST_SILENCE).to(torch.float32)
        y, valid = torch.where(has, judged.y, state[FIELDS.index("last")]), judged.valid > 0
        expected = torch.where(valid, judged.expected, y)
        now = Observed(y, expected, valid, has, advances, passed, judged.tail)
        following: Tensor
        following, outputs = self.alarms(state, now, interval)
        return following, outputs
