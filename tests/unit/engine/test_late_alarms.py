"""What is told of alarms when the past of a stream is corrected: the difference to the history before."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rillcast.arrays import FloatArray, IntArray
from rillcast.bundle.bundle import Bundle
from rillcast.bundle.frequency import Frequency
from rillcast.engine.device import Device
from rillcast.engine.late import AllowedLateness
from rillcast.engine.late.alarms import OpenAlarms, changes
from rillcast.engine.step_engine import StepEngine, StepResult
from rillcast.events import EventBatch
from tests.support.live_views import published
from tests.support.toy import HOUR_MS, ToyGraph

BUNDLE = Bundle.from_bytes(ToyGraph(alarms=True).build())
FREQUENCY = Frequency(HOUR_MS)
Told = tuple[int, str, int]  # row, change, hour of the step that says it


def step(engine: StepEngine, *events: tuple[str, int, float], first_offset: int = 0) -> tuple[EventBatch, StepResult]:
    ids, hours, y = zip(*events, strict=True)
    batch = EventBatch.of(ids, np.array(hours) * HOUR_MS, np.array(y, np.float32), first_offset=first_offset)
    return batch, engine.step(batch)


def told(events: EventBatch, result: StepResult) -> list[Told]:
    """Return the changes of a poll as those who publish them get them."""
    found = published(events, result, model=BUNDLE.metadata).alarm_changes
    return [(each.row, each.change, each.ds // HOUR_MS) for each in found]


def test_a_correction_tells_what_it_changes() -> None:
    """An alarm of the toy is open while its state is 1 modulo 8: here where y is, and all before it is 0 modulo 8."""
    engine = StepEngine(BUNDLE, Device("cpu"), lateness=AllowedLateness(10, FREQUENCY, True))
    assert told(*step(engine, ("a", 10, 8), ("a", 11, 1))) == [(1, "opened", 11)]
    assert told(*step(engine, ("a", 11, 9), first_offset=2)) == []  # corrected: the state is 1 modulo 8 again
    assert told(*step(engine, ("a", 11, 2), first_offset=3)) == [(0, "closed", 11)]  # the alarm was none
    assert told(*step(engine, ("a", 11, 17), first_offset=4)) == [(0, "opened", 11)]  # it was one after all
    assert told(*step(engine, ("a", 9, 1), first_offset=5)) == [(0, "closed", 11)]  # late: all states change


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 4), st.integers(0, 7), st.integers(1, 24)), max_size=60),
    st.lists(st.integers(1, 9), min_size=1),
)
def test_the_records_have_open_what_the_corrected_history_has(
    arrivals: list[tuple[str, int, int, int]], sizes: list[int]
) -> None:
    """Read in order, records open and close in turns, and end as a stream does that got its events in order."""
    engine = StepEngine(BUNDLE, Device("cpu"), lateness=AllowedLateness(10, FREQUENCY, True))
    hour = dict.fromkeys("ab", 100)
    events: list[tuple[str, int, float]] = []
    for of, later, back, number in arrivals:
        hour[of] += later
        events.append((of, hour[of] - back, float(number)))
    history: dict[str, dict[int, float]] = {"a": {}, "b": {}}
    is_open = dict.fromkeys("ab", False)
    at, turn = 0, 0
    while at < len(events):
        poll = events[at : at + sizes[turn % len(sizes)]]
        for row, change, _ in told(*step(engine, *poll, first_offset=at)):
            unique_id = poll[row][0]
            assert is_open[unique_id] == (change == "closed")
            is_open[unique_id] = change == "opened"
        at += len(poll)
        turn += 1
        for stream, at_hour, y in poll:
            history[stream][at_hour] = y
        for stream, values in history.items():
            state = 0
            for _, value in sorted(values.items()):
                state = (31 * state + int(value)) % 1_000_003
            assert is_open[stream] == (state % 8 == 1), (stream, values)


def rows(*given: tuple[int, int, int, int]) -> tuple[IntArray, IntArray, FloatArray]:
    """Return stream, time and alarm of steps, each given as stream, hour, phase and age."""
    alarm = np.zeros((len(given), 8), np.float32)
    alarm[:, 0], alarm[:, 3] = [each[2] for each in given], [each[3] for each in given]
    which, hours = (np.array([each[at] for each in given], np.int64) for at in (0, 1))
    return which, hours * HOUR_MS, alarm


def test_an_alarm_is_known_by_the_period_in_which_it_opened() -> None:
    before = OpenAlarms.after(4, *rows((0, 9, 1, 0), (0, 10, 2, 1), (1, 10, 2, 3), (2, 10, 3, 4)))
    after = OpenAlarms.after(4, *rows((0, 10, 2, 1), (1, 10, 2, 5), (2, 10, 2, 4), (3, 10, 1, 0)))
    found = changes(np.array([5, 6, 7, 8]), before, after, FREQUENCY)
    # The first is the same alarm; the second is one that opened earlier; the third had ended; the fourth is not known.
    assert [(each.row, each.change, float(each.alarm[3])) for each in found] == [
        (6, "closed", 3), (6, "opened", 5), (7, "opened", 4),
    ]  # fmt: skip


def test_a_stream_without_an_earlier_step_is_told_of_by_the_first() -> None:
    steps = rows((0, 10, 3, 7), (1, 10, 1, 0), (2, 10, 2, 2), (2, 11, 3, 3), (3, 10, 0, 0), (3, 11, 1, 0))
    before = OpenAlarms.after(4, *rows()).or_else(OpenAlarms.before(4, *steps))
    found = changes(np.arange(4), before, OpenAlarms.after(4, *steps), FREQUENCY)
    assert [(each.row, each.change) for each in found] == [(0, "closed"), (1, "opened"), (2, "closed"), (3, "opened")]
