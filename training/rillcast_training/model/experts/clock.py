"""When an event is, and its status.

Owns: the clock of a stream. Does not know: values, experts.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rillcast.bundle.frequency import parse
from rillcast_training.model.periods import periods_of
from rillcast_training.model.status import status_of


class Time(NamedTuple):
    """When an event is, `[1, B]` each.

    Attributes:
        period: The newest period, this event's included.
        known: Periods since the stream's first value, that one included; 0 = no value yet.
        newest_value: Period of the newest value, this event's included.
        value_before: Period of the newest value before.
        advances: Whether the event advances its stream.
        on: Whether it does so with a value.
        had: Whether the stream had a value before.
        passed: Periods since the event before; 0 = it does not advance, or the stream is new.
    """

    period: Tensor
    known: Tensor
    newest_value: Tensor
    value_before: Tensor
    advances: Tensor
    on: Tensor
    had: Tensor
    passed: Tensor


def read(ds: Tensor, observed: Tensor, clock: Tensor, freq: str, context: int) -> tuple[Time, Tensor]:
    """Return when events are, and their status `[B]` int8.

    Args:
        ds: `[B]` int64, milliseconds since the epoch.
        observed: `[1, B]` bool, whether the event has a value.
        clock: `[B, 3]` int64: newest period, periods known plus one, period of the newest value.
        freq: Frequency of the periods.
        context: Slots until a stream counts as warm.
    """
    period = periods_of(ds, parse(freq)).unsqueeze(0)
    newest, age, before = (part.reshape(1, -1) for part in torch.split(clock, 1, dim=1))
    gap = torch.where(age > 0, period - newest, 1)
    advances = gap > 0
    on = advances & observed
    had = age > 1
    passed = torch.where(advances, gap, 0)
    age = torch.where(had, age + passed, torch.where(on, 2, 1))
    time = Time(
        period=torch.where(advances, period, newest),
        known=age - 1,
        newest_value=torch.where(on, period, before),
        value_before=before,
        advances=advances,
        on=on,
        had=had,
        passed=passed,
    )
    return time, status_of(observed[0], gap[0], (age <= context)[0])
