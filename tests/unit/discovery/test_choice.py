"""Which model and which aggregation are chosen for streams of some cadence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from rillcast.bundle import shipped
from rillcast.discovery.choice import Choice, choose, duration
from rillcast.discovery.fields import Chosen
from rillcast.discovery.profile import Profile, profile, repeated_periods
from rillcast.events import EventBatch

START_MS = 1_764_547_200_000


def events_of(
    steps: Sequence[float], streams: int = 5, count: int = 60, y: float | None = None, jitter_s: float = 0.0
) -> EventBatch:
    """Return streams of one partition with these steps in seconds, one after the other, in the order of time."""
    rng = np.random.default_rng(0)
    rows = []
    for stream in range(streams):
        at = 0.0
        for number in range(count):
            at += steps[number % len(steps)]
            value = float(rng.normal()) if y is None else y
            rows.append((START_MS + round((at + jitter_s * rng.random()) * 1_000), f"s{stream}", value))
    rows.sort()
    return EventBatch.of([row[1] for row in rows], [row[0] for row in rows], [row[2] for row in rows])


def chosen_for(events: EventBatch, y: str | None = "value") -> tuple[Choice, Profile]:
    found = profile(events)
    fields = Chosen("id", "ts", "ms", y, {}, {})
    return choose(fields, found, lambda freq: repeated_periods(events, freq)), found


@pytest.mark.parametrize(
    ("step_s", "model"),
    [(10, "10s"), (60, "1min"), (300, "5min"), (900, "15min"), (3_600, "1h"), (86_400, "1d"), (604_800, "1w")],
)
def test_a_cadence_that_a_shipped_model_has_needs_no_aggregation(step_s: int, model: str) -> None:
    choice, found = chosen_for(events_of([step_s]))
    assert choice.values == {"model": f"universal:{model}"}
    assert found.frequencies == {model: 1.0}


def test_months_are_months() -> None:
    starts = [np.datetime64(f"20{20 + month // 12}-{month % 12 + 1:02d}-01", "ms").astype(int) for month in range(48)]
    events = EventBatch.of(["a"] * 48, starts, np.arange(48, dtype=np.float32))
    assert chosen_for(events)[0].values == {"model": "universal:1mo"}


def test_readings_every_twenty_seconds_are_averaged() -> None:
    choice, _ = chosen_for(events_of([20], count=120))
    assert choice.values == {"model": "universal:1min", "input.aggregate": "mean", "input.close": "partition"}
    assert "every 20s" in choice.why["model"]
    assert "universal export --freq 20s" in choice.why["model"]


def test_jitter_across_the_end_of_a_period_is_aggregated() -> None:
    choice, found = chosen_for(events_of([3_600], jitter_s=1_200.0))
    assert found.frequency == "1h"
    assert choice.values["model"] == "universal:1h"
    # Shifted by half the jitter, neighbours fall into one period now and then.
    shifted = events_of([3_600], jitter_s=1_200.0)
    moved = EventBatch.of(shifted.unique_ids, shifted.ds - 600_000, shifted.y)
    assert chosen_for(moved)[0].values["input.aggregate"] == "mean"


def test_irregular_events_have_several_in_a_period() -> None:
    rng = np.random.default_rng(2)
    events = events_of(rng.exponential(70, 400).tolist(), count=400)
    choice, found = chosen_for(events)
    assert found.regular < 0.1
    assert choice.values["model"] == "universal:5min"
    assert choice.values["input.aggregate"] == "mean"


def test_amounts_are_summed_and_events_without_a_value_counted() -> None:
    assert chosen_for(events_of([20], count=120), "sales.amount")[0].values["input.aggregate"] == "mean"  # some below 0
    positive = events_of([20], count=120, y=3.0)
    assert chosen_for(positive, "sales.amount")[0].values["input.aggregate"] == "sum"
    assert chosen_for(positive, "temperature")[0].values["input.aggregate"] == "mean"
    assert chosen_for(events_of([20], count=120, y=1.0), "n")[0].values["input.aggregate"] == "sum"
    choice, _ = chosen_for(events_of([3_600], y=float("nan")), None)
    assert choice.values["input.aggregate"] == "count"


def test_late_events_are_let_in_by_as_many_periods() -> None:
    events = events_of([3_600])
    order = np.arange(len(events))
    order[[50, 60]] = order[[60, 50]]  # five streams: two periods apart
    late = EventBatch.of(*events_columns(events, order))
    choice, found = chosen_for(late)
    assert found.lateness_ms == 2 * 3_600_000
    assert choice.values["input.allowed_lateness_periods"] == 2


def test_disorder_between_streams_becomes_a_grace_in_a_round_number() -> None:
    events = events_of([20], count=120)
    order = np.arange(len(events))
    order[50:60] = order[50:60][::-1]
    choice, found = chosen_for(EventBatch.of(*events_columns(events, order)))
    assert found.disorder_ms == 20_000
    assert choice.values["input.grace_s"] == 30.0


def test_streams_that_follow_each_other_in_a_file_close_by_themselves() -> None:
    events = events_of([20], count=2_000)
    order = np.lexsort((events.ds, np.array(events.unique_ids)))
    choice, _ = chosen_for(EventBatch.of(*events_columns(events, order)))
    assert choice.values["input.close"] == "stream"


def test_one_event_a_stream_is_a_guess() -> None:
    choice, found = chosen_for(events_of([60], count=1))
    assert found.frequency is None
    assert choice.values == {"model": "universal:1h"}
    assert "unknown" in choice.notes[0]


def test_every_frequency_that_ships_can_be_chosen() -> None:
    for name in shipped.names():
        assert (
            "model" in choose(Chosen("id", "ts", "ms", "v", {}, {}), profile(events_of([60])), lambda _freq: 0.0).values
        ), name


@pytest.mark.parametrize(
    ("ms", "text"), [(0, "0 ms"), (999, "999 ms"), (1_500, "1.5 s"), (90_000, "1.5 min"), (86_400_000, "1 d")]
)
def test_durations_have_the_largest_unit(ms: int, text: str) -> None:
    assert duration(ms) == text


def events_columns(events: EventBatch, order: np.ndarray) -> tuple[list[str], np.ndarray, np.ndarray]:
    return [events.unique_ids[row] for row in order.tolist()], events.ds[order], events.y[order]
