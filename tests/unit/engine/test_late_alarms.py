"""An alarm is told once, whatever corrections come."""

from __future__ import annotations

import numpy as np

from rillcast.bundle.bundle import Bundle
from rillcast.engine.device import Device
from rillcast.engine.late import AllowedLateness
from rillcast.engine.step_engine import StepEngine
from rillcast.events import EventBatch
from tests.support.toy import HOUR_MS, ToyGraph


def test_a_correction_of_the_event_that_opened_an_alarm_opens_none() -> None:
    """An alarm of the toy is open while its state is 1 modulo 8."""
    bundle = Bundle.from_bytes(ToyGraph(alarms=True).build())
    engine = StepEngine(bundle, Device("cpu"), lateness=AllowedLateness(10, bundle.metadata.frequency, True))

    def phases(*events: tuple[int, int], first_offset: int) -> list[int]:
        hours, y = zip(*events, strict=True)
        ids = ["a"] * len(events)
        batch = EventBatch.of(ids, np.array(hours) * HOUR_MS, np.array(y, np.float32), first_offset=first_offset)
        result = engine.step(batch)
        assert result.alarm is not None
        return [int(phase) for phase in result.alarm[:, 0]]

    assert phases((10, 8), (11, 1), first_offset=0) == [0, 1]
    assert phases((11, 9), first_offset=2) == [0]  # corrected: the state is 1 modulo 8 again
    assert phases((9, 8), first_offset=3) == [0]  # late
    assert phases((12, 2), first_offset=4) == [2 if (31 * (31 * (31 * 8 + 8) + 9) + 2) % 8 == 1 else 3]
