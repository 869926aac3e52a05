"""Runs of a busy stream's events go through the sequence graph without changing a result."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rillcast.engine.batcher import Batching, Runs
from rillcast.engine.device import Device
from rillcast.engine.step_engine import Outcome, StepEngine
from rillcast.events import EventBatch
from tests.support.toy import HOUR_MS, toy_bundle, unroll

BUNDLE = toy_bundle(sequence=True)
# Slots from the event before: mostly the next one; the values: every seventh makes the graph refuse its run.
gaps = st.sampled_from([1] * 12 + [0, -2, 3])
arrivals = st.lists(st.tuples(st.integers(0, 2), gaps, st.integers(1, 30)), min_size=1, max_size=150)


def make_engine(runs: Runs) -> StepEngine:
    return StepEngine(BUNDLE, Device("cpu"), batching=Batching(4, runs=runs))


@given(events=arrivals, polls=st.lists(st.integers(1, 60), min_size=1, max_size=4),
       lengths=st.sampled_from([(2,), (8, 3), (64, 16, 4)]), run_rows=st.integers(2, 200))  # fmt: skip
def test_forecasts_equal_the_unroll_whatever_is_taken_in_runs(
    events: list[tuple[int, int, int]], polls: list[int], lengths: tuple[int, ...], run_rows: int
) -> None:
    engine = make_engine(Runs(lengths, run_rows))
    clock = dict.fromkeys(range(3), 1000)
    ids, ds, y = [], [], []
    for stream, gap, value in events:
        clock[stream] += gap
        ids.append(f"s{stream}")
        ds.append(clock[stream] * HOUR_MS)
        y.append(value)
    found: list[int] = []
    first = number = 0
    while first < len(ids):
        last = min(len(ids), first + polls[number % len(polls)])
        number += 1
        times, values = np.array(ds[first:last]), np.array(y[first:last], np.float32)
        result = engine.step(EventBatch.of(ids[first:last], times, values, first_offset=first))
        assert (result.outcome == Outcome.STEPPED).all()
        found += result.forecast[:, 0, 0].astype(int).tolist()
        first = last
    for name in set(ids):
        mine = [n for n, unique_id in enumerate(ids) if unique_id == name]
        assert [found[n] for n in mine] == unroll([y[n] for n in mine])


def step_hours(engine: StepEngine, hours: range, y: list[float], streams: int = 2) -> tuple[int, list[float]]:
    """Step all streams through the hours at once; return how many events went in runs, and the last forecasts."""
    ids = [f"s{stream}" for _ in hours for stream in range(streams)]
    ds = np.array([hour * HOUR_MS for hour in hours for _ in range(streams)])
    values = np.repeat(np.array(y, np.float32), streams)
    result = engine.step(EventBatch.of(ids, ds, values))
    return result.stats.in_runs, result.forecast[-streams:, 0, 0].tolist()


def test_consecutive_events_of_busy_streams_go_in_runs() -> None:
    engine = make_engine(Runs((8,), 100))
    assert step_hours(engine, range(17), [1.0] * 17)[0] == 32, "all but each stream's first event"
    assert step_hours(engine, range(17, 33), [1.0] * 16)[0] == 32, "and go on from one poll to the next"


def test_gaps_repeats_and_missing_values_are_never_offered_in_a_run() -> None:
    engine = make_engine(Runs((4,), 100))
    step_hours(engine, range(1), [1.0])
    assert step_hours(engine, range(2, 6), [1.0] * 4)[0] == 0, "the hour between is missing"
    assert step_hours(engine, range(6, 10), [1.0, 1.0, 1.0, float("nan")])[0] == 0


def test_a_refused_run_is_stepped_event_by_event() -> None:
    engine = make_engine(Runs((4,), 100))
    step_hours(engine, range(1), [1.0])
    in_runs, forecasts = step_hours(engine, range(1, 5), [2.0, 14.0, 3.0, 4.0])
    assert in_runs == 0
    assert forecasts == [unroll([1, 2, 14, 3, 4])[-1]] * 2


def test_a_bundle_without_a_sequence_graph_steps_event_by_event() -> None:
    engine = StepEngine(toy_bundle(), Device("cpu"))
    in_runs, forecasts = step_hours(engine, range(9), [3.0] * 9)
    assert (in_runs, forecasts[0]) == (0, unroll([3] * 9)[-1])
