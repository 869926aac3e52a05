"""When an event is, and its status.

Owns: the clock of a stream. Does not know: values, experts.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rillcast.bundle.bundle import Status
from rillcast.bundle.frequency import parse
from rillcast_training.model.experts.layout import turned
from rillcast_training.model.periods import periods_of


class Time(NamedTuple):
    """When an event is, `[1, B]` each.

    Attributes:
        period: The newest period, this event's included.
        known: Periods since the stream's first value, that one included; 0 = no value yet.
        newest_value: Period of the newest value, this event's included.
        value_before: Period of the newest value before.
        on: Whether the event advances its stream with a value.
        new: Whether that is the stream's first one.
        had: Whether the stream had a value before.
        passed: Periods since the event before; 0 = it does not advance, or the stream is new.
    """

    period: Tensor
    known: Tensor
    newest_value: Tensor
    value_before: Tensor
    on: Tensor
    new: Tensor
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
    newest, age, before = torch.split(turned(clock, 3), 1, dim=0)
    gap = torch.where(age > 0, period - newest, 1)
    advances = gap > 0
    on = advances & observed
    known = (age - 1).clamp(min=0)
    had = known > 0
    passed = gap.clamp(min=0)
    known = torch.where(had, known + passed, on.to(torch.int64))
    status = torch.where(observed, int(Status.OK), int(Status.MISSING))
    status = torch.where(gap > 1, int(Status.GAP), status)
    status = torch.where(known < context, int(Status.WARMING_UP), status)
    status = torch.where(advances, status, torch.where(gap < 0, int(Status.LATE), int(Status.DUPLICATE)))
    time = Time(
        period=torch.where(advances, period, newest),
        known=known,
        newest_value=torch.where(on, period, before),
        value_before=before,
        on=on,
        new=on & ~had,
        had=had,
        passed=passed,
    )
    return time, status[0].to(torch.int8)
