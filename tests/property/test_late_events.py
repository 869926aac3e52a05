"""Late events within the allowed lateness leave no trace: the last revisions are the forecasts in the order of time.

The reference is an engine without allowed lateness that receives each stream's accepted events in order. The test
decides which events are accepted itself, by the rule of `docs/data.md`, one event after the other.
"""

from __future__ import annotations

import math
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rillcast.bundle.bundle import Bundle, Status
from rillcast.bundle.frequency import Frequency
from rillcast.engine.batcher import Batching
from rillcast.engine.device import Device
from rillcast.engine.late import AllowedLateness
from rillcast.engine.step_engine import Outcome, StepEngine
from rillcast.events import EventBatch
from rillcast_training.export.bundle import export
from tests.support.forecasters import HOUR_MS, brief_parity, random_forecaster, small_config
from tests.support.toy import toy_bundle

START = 475_000  # hours since the epoch
Event = tuple[str, int, float]  # stream, period, value
Key = tuple[str, int]


@cache
def forecaster() -> Bundle:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.onnx"
        with brief_parity():
            export(random_forecaster(small_config()), path, name="m")
        return Bundle.load(path)


@cache
def engine_of(name: str, reach: int, last_wins: bool, rows: int) -> StepEngine:
    """Return an engine, created once: loading a model takes longer than an example."""
    lateness = AllowedLateness(reach, Frequency(HOUR_MS), last_wins) if reach else None
    return StepEngine(forecaster(), Device("cpu"), lateness=lateness, batching=Batching(rows))


def emptied(name: str, reach: int = 0, *, last_wins: bool = False, rows: int = 256) -> StepEngine:
    """Return the engine of that name, without a stream."""
    engine = engine_of(name, reach, last_wins, rows)
    engine.residents.release(0)
    return engine


@dataclass
class Seen:
    """The record that consumers keep for a stream and period: the one with the highest revision."""

    forecasts: dict[Key, npt.NDArray[np.float32]] = field(default_factory=dict)
    statuses: dict[Key, int] = field(default_factory=dict)
    revisions: dict[Key, int] = field(default_factory=dict)
    events: Counter[str] = field(default_factory=Counter)

    def take(self, key: Key, revision: int, forecast: npt.NDArray[np.float32], status: int) -> None:
        expected = self.revisions.get(key, -1) + 1
        assert revision == expected, f"{key}: revision {revision}, expected {expected}"
        self.revisions[key] = revision
        self.forecasts[key], self.statuses[key] = forecast, status


def feed(engine: StepEngine, events: list[Event], seen: Seen, first_offset: int = 0) -> None:
    """Step events in one call and record what is published, each revision after its cause."""
    ids = [event[0] for event in events]
    ds = np.array([(START + slot) * HOUR_MS + 17 for _, slot, _ in events], np.int64)
    y = np.array([value for _, _, value in events], np.float32)
    result = engine.step(EventBatch.of(ids, ds, y, first_offset=first_offset))
    revised = result.revised
    for row, (unique_id, slot, _) in enumerate(events):
        outcome, status = Outcome(result.outcome[row]), Status(result.status[row])
        name = status.name if outcome is Outcome.STEPPED else outcome.name
        seen.events[name] += 1
        if outcome is Outcome.STEPPED and status.advanced:
            revision = 0 if result.revision is None else int(result.revision[row])
            seen.take((unique_id, slot), revision, result.forecast[row], status)
        if revised is not None:
            for at in np.flatnonzero(revised.rows == row):
                key = unique_id, int(revised.ds[at] // HOUR_MS) - START
                seen.take(key, int(revised.revision[at]), revised.forecast[at], int(revised.status[at]))


def accepted(
    events: Iterable[Event], reach: int, *, last_wins: bool
) -> tuple[dict[str, dict[int, float]], Counter[str]]:
    """Return the expected events of each stream by period, and how many events were late or known."""
    held: dict[str, dict[int, float]] = defaultdict(dict)
    newest: dict[str, int] = {}
    left: Counter[str] = Counter()
    for unique_id, slot, value in events:
        if unique_id in newest and slot < newest[unique_id] - reach:
            left["LATE"] += 1
            continue
        before = held[unique_id].get(slot)
        if before is not None and (not last_wins or np.float32(before) == np.float32(value)):
            left["DUPLICATE"] += 1
            continue
        if before is not None and math.isnan(before) and math.isnan(value):
            left["DUPLICATE"] += 1
            continue
        held[unique_id][slot] = value
        newest[unique_id] = max(slot, newest.get(unique_id, slot))
    return held, left


def in_order(held: dict[str, dict[int, float]]) -> Seen:
    seen, engine = Seen(), emptied("reference")
    events = [(unique_id, slot, value) for unique_id, slots in held.items() for slot, value in sorted(slots.items())]
    feed(engine, events, seen)
    return seen


def agree(seen: Seen, expected: Seen) -> None:
    assert seen.forecasts.keys() == expected.forecasts.keys()
    for key, forecast in expected.forecasts.items():
        assert seen.statuses[key] == expected.statuses[key], key
        np.testing.assert_array_equal(seen.forecasts[key], forecast, err_msg=str(key))


values = st.one_of(st.floats(-100, 100, width=32), st.just(float("nan")))
# Time goes on by steps that are mostly short; each event is then moved back by a delay.
arrivals = st.lists(
    st.tuples(
        st.sampled_from("aabc"),
        st.sampled_from([0, 1, 1, 1, 1, 1, 2, 3, 5, 9, 20]),
        st.sampled_from([0, 0, 0, 1, 2, 3, 4, 5, 6, 9]),
        values,
    ),
    min_size=1,
    max_size=80,
)
cuts = st.lists(st.integers(1, 30), min_size=1, max_size=6)


def laid_out(drawn: list[tuple[str, int, int, float]]) -> list[Event]:
    now: Counter[str] = Counter()
    events = []
    for unique_id, ahead, delay, value in drawn:
        now[unique_id] += ahead
        events.append((unique_id, now[unique_id] - delay, value))
    return events


def polls(events: list[Event], sizes: list[int]) -> Iterable[tuple[int, list[Event]]]:
    first, turn = 0, 0
    while first < len(events):
        yield first, events[first : first + sizes[turn % len(sizes)]]
        first += sizes[turn % len(sizes)]
        turn += 1


@pytest.mark.parametrize("last_wins", [False, True])
@given(drawn=arrivals, sizes=cuts, reach=st.sampled_from([1, 2, 3, 6]), moves=st.sets(st.integers(0, 80), max_size=3))
@settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_last_revisions_are_the_forecasts_of_the_stream_in_order(
    last_wins: bool, drawn: list[tuple[str, int, int, float]], sizes: list[int], reach: int, moves: set[int]
) -> None:
    """The result depends neither on the polls nor on when another process stores and loads the state."""
    events = laid_out(drawn)
    here, there = "here", "there"
    seen, engine = Seen(), emptied(here, reach, last_wins=last_wins, rows=3)
    for first, poll in polls(events, sizes):
        feed(engine, poll, seen, first)
        end = first + len(poll)
        if moves & set(range(first, end)):
            pages, watermark = engine.residents.export(0, end), engine.residents.watermark(0)
            here, there = there, here
            engine = emptied(here, reach, last_wins=last_wins, rows=3)
            engine.residents.load(0, pages, watermark)
    held, left = accepted(events, reach, last_wins=last_wins)
    agree(seen, in_order(held))
    assert {name: seen.events[name] for name in ("LATE", "DUPLICATE")} == {
        name: left[name] for name in ("LATE", "DUPLICATE")
    }
    assert seen.events.total() == len(events), "every event has one outcome"


@given(drawn=arrivals, sizes=cuts)
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_an_event_that_the_quarantine_refuses_leaves_no_trace_however_events_are_polled(
    drawn: list[tuple[str, int, int, float]], sizes: list[int]
) -> None:
    events = [(*event[:2], 1e30) if nth % 7 == 3 else event for nth, event in enumerate(laid_out(drawn))]
    several, one = Seen(), Seen()
    engine = emptied("several", 3, last_wins=True, rows=3)
    for first, poll in polls(events, sizes):
        feed(engine, poll, several, first)
    engine = emptied("one", 3, last_wins=True)
    for first, poll in polls(events, [1]):
        feed(engine, poll, one, first)
    assert (several.events, several.revisions) == (one.events, one.revisions)
    agree(several, one)


@pytest.mark.parametrize("slot", [17, 20], ids=["late", "a second value"])
def test_a_late_event_that_the_quarantine_refuses_leaves_its_stream_unchanged(slot: int) -> None:
    before = [("a", at, math.sin(at)) for at in range(21) if at != 17]
    seen, expected = Seen(), Seen()
    feed(emptied("several", 3, last_wins=True, rows=3), [*before, ("a", slot, 1e30), ("a", 21, 0.5)], seen)
    feed(emptied("one", 3, last_wins=True), [*before, ("a", 21, 0.5)], expected)
    assert seen.events["QUARANTINED"] == 1
    assert seen.revisions == expected.revisions, "nothing is revised"
    agree(seen, expected)


def test_in_order_there_is_not_one_more_step() -> None:
    calls: dict[bool, int] = {}
    for on in (False, True):
        engine = StepEngine(
            toy_bundle(), Device("cpu"), lateness=AllowedLateness(6, Frequency(HOUR_MS)) if on else None
        )
        slots = np.arange(200) * HOUR_MS
        for slot in slots.tolist():
            events = EventBatch.of(["a", "b", "c"], np.full(3, slot), np.ones(3, np.float32))
            stats = engine.step(events).stats
            calls[on] = calls.get(on, 0) + stats.calls
            assert (stats.late_events, stats.replayed_steps) == (0, 0)
    assert calls[False] == calls[True]


def test_without_allowed_lateness_nothing_else_is_retained() -> None:
    engine = StepEngine(toy_bundle(), Device("cpu"))
    assert engine.residents.retained is None
    engine.step(EventBatch.of(["a"], np.zeros(1, np.int64), np.ones(1, np.float32)))
    assert engine.residents.export(0, 1)[0].rows.keys() == {"sum"}
