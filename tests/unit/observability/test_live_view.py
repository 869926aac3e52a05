"""The live_view shows what was last forecast, stays small, and counts what it says it counts."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rillcast.bundle.bundle import Status
from rillcast.events import EventBatch
from rillcast.observability.live_view import RATE_WINDOW_S, REVISIONS, LiveView
from tests.support.live_views import HOUR_MS, START_MS, SettableClock, metadata, published, put, stepped


def times(*slots: int) -> list[int]:
    return [START_MS + HOUR_MS * slot for slot in slots]


def test_a_stream_shows_its_actuals_in_order_and_the_forecast_of_its_last_event() -> None:
    live_view = LiveView(metadata())
    put(live_view, ["a", "b", "a"], [0, 0, 1], [1.0, 5.0, 2.0])
    put(live_view, ["a"], [2], [3.0])

    shown = live_view.stream("a")

    assert shown["ds"] == times(0, 1, 2)
    assert shown["y"] == [1.0, 2.0, 3.0]
    assert shown["forecast"]["ds"] == times(3, 4, 5)
    assert shown["forecast"]["quantiles"] == {
        "0.1": [13.1, 23.1, 33.1],
        "0.5": [13.5, 23.5, 33.5],
        "0.9": [13.9, 23.9, 33.9],
    }
    assert shown["one_step"]["median"] == [11.5, 12.5, 13.5]
    assert shown["one_step"]["ds"] == times(1, 2, 3)
    assert shown["events"] == 3


def test_slots_of_calendar_months_are_shown_where_they_begin() -> None:
    live_view = LiveView(metadata(freq="1mo"))
    put(live_view, ["a", "a"], [7 * 24, 40 * 24], [1.0, 2.0])  # 8 May and 10 June 2024

    shown = live_view.stream("a")

    june, *later = (days * 24 for days in (31, 61, 92, 123))
    assert shown["one_step"]["ds"] == times(june, later[0])
    assert shown["forecast"]["ds"] == times(*later)
    assert [each["ds"] for each in shown["revisions"]] == [times(june, *later[:2])]


@given(polls=st.lists(st.integers(1, 12), min_size=1, max_size=8))
def test_the_forecasts_before_the_newest_are_kept_however_their_events_were_polled(polls: list[int]) -> None:
    live_view, slot = LiveView(metadata()), 0
    for count in polls:
        slots = list(range(slot, slot + count))
        put(live_view, ["a"] * count + ["b"], [*slots, slot], [*map(float, slots), 7.0])
        slot += count

    revisions = live_view.stream("a")["revisions"]

    before = list(range(slot - 1))[-REVISIONS:]
    assert [each["ds"] for each in revisions] == [times(at + 1, at + 2, at + 3) for at in before]
    assert [each["median"] for each in revisions] == [[10.5 + y, 20.5 + y, 30.5 + y] for y in before]
    assert "revisions" not in live_view.streams()[0], "small charts have no room for them"


def test_events_that_moved_no_state_are_counted_but_not_shown() -> None:
    live_view = LiveView(metadata())
    put(live_view, ["a", "a", "a"], [5, 5, 3], [1.0, 8.0, 9.0], [Status.OK, Status.DUPLICATE, Status.LATE])

    assert live_view.stream("a")["y"] == [1.0]
    assert live_view.stream("a")["status"] == "ok"
    assert live_view.summary()["events"] == 3


def test_missing_values_are_null_and_the_document_is_strict_json() -> None:
    live_view = LiveView(metadata())
    put(live_view, ["a", "a"], [0, 1], [math.nan, 2.0], [Status.MISSING, Status.OK], covered=[math.nan, 1.0])

    document: dict[str, Any] = {"summary": live_view.summary(), "streams": live_view.streams()}

    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document["streams"][0]["y"] == [None, 2.0]
    assert document["streams"][0]["covered"] == [None, 1.0]


@pytest.mark.parametrize("value", [1e15, -1e15, 123456.78, 0.1, 1e-7, -3.25e-30, 0.0])
def test_numbers_keep_six_significant_digits(value: float) -> None:
    live_view = LiveView(metadata())
    put(live_view, ["a"], [0], [value])

    assert live_view.stream("a")["y"] == [pytest.approx(float(np.float32(value)), rel=5e-6)]


def test_only_the_first_streams_are_followed() -> None:
    live_view = LiveView(metadata(), max_streams=2)
    put(live_view, ["a", "b", "c"], [0, 0, 0], [1.0, 2.0, 3.0], num_streams=3)

    assert [stream["unique_id"] for stream in live_view.streams()] == ["a", "b"]
    assert live_view.summary()["followed"] == 2
    assert live_view.summary()["streams"] == 3
    with pytest.raises(KeyError):
        live_view.stream("c")


def test_a_stream_that_was_asked_for_is_followed_from_its_next_event_on() -> None:
    live_view = LiveView(metadata(), max_streams=1, max_asked=1)
    put(live_view, ["a", "z"], [0, 0], [1.0, 2.0])
    live_view.follow("z")
    with pytest.raises(KeyError):
        live_view.stream("z")

    put(live_view, ["z"], [1], [3.0])

    assert live_view.stream("z")["y"] == [3.0]


def test_the_stream_asked_for_longest_ago_makes_room() -> None:
    live_view = LiveView(metadata(), max_streams=1, max_asked=2)
    put(live_view, ["a"], [0], [0.0])
    for name in ("x", "y", "x", "z"):  # asking again for x makes y the oldest
        live_view.follow(name)
    put(live_view, ["x", "y", "z"], [0, 0, 0], [1.0, 2.0, 3.0])

    assert {stream["unique_id"] for stream in live_view.streams()} == {"a", "x", "z"}
    assert live_view.stream("z")["y"] == [3.0]


def test_a_live_view_without_room_follows_nobody_and_still_counts() -> None:
    live_view = LiveView(metadata(), max_streams=0, max_asked=0)
    live_view.follow("a")
    put(live_view, ["a"], [0], [1.0], covered=[1.0])

    assert live_view.streams() == []
    assert live_view.summary()["events"] == 1
    assert live_view.summary()["coverage"]["observed"] == 1.0


@given(
    polls=st.lists(st.lists(st.sampled_from("abc"), max_size=12), max_size=8),
    history=st.integers(min_value=1, max_value=5),
)
def test_the_history_is_the_newest_events_of_each_stream_however_they_were_polled(
    polls: list[list[str]], history: int
) -> None:
    live_view = LiveView(metadata(), max_streams=3, history=history)
    expected: dict[str, list[float]] = defaultdict(list)
    arrived = 0
    for poll in polls:
        values = [float(arrived + i) for i in range(len(poll))]
        arrived += len(poll)
        for name, value in zip(poll, values, strict=True):
            expected[name].append(value)
        put(live_view, poll, [int(value) for value in values], values)

    shown = {stream["unique_id"]: live_view.stream(stream["unique_id"]) for stream in live_view.streams()}

    assert {name: stream["y"] for name, stream in shown.items()} == {n: v[-history:] for n, v in expected.items()}
    assert {name: stream["events"] for name, stream in shown.items()} == {n: len(v) for n, v in expected.items()}
    for name, stream in shown.items():
        assert stream["forecast"]["quantiles"]["0.5"][0] == pytest.approx(expected[name][-1] + 10.5)


def test_coverage_counts_every_stream_and_leaves_out_what_met_no_forecast() -> None:
    live_view = LiveView(metadata(), max_streams=1)
    put(live_view, ["a", "b", "b", "a"], [0, 0, 1, 1], [1.0] * 4, covered=[math.nan, 1.0, 0.0, 1.0])

    coverage = live_view.summary()["coverage"]

    assert coverage == {"nominal": 0.8, "observed": pytest.approx(2 / 3), "forecasts": 3}
    assert live_view.stream("a")["coverage"] == 1.0


def test_coverage_is_unknown_where_the_bundle_does_not_score_it() -> None:
    live_view = LiveView(metadata(scores=("pinball",)))
    put(live_view, ["a", "a"], [0, 1], [1.0, 1.0])

    assert live_view.summary()["coverage"]["observed"] is None
    assert live_view.stream("a")["coverage"] is None


def test_the_rate_covers_the_last_seconds_only() -> None:
    clock = SettableClock()
    live_view = LiveView(metadata(), clock=clock)
    for second in range(20):
        clock.now += 1.0
        put(live_view, ["a"] * 10, list(range(10 * second, 10 * second + 10)), [0.0] * 10)
    steady = live_view.summary()["events_per_second"]
    clock.now += RATE_WINDOW_S + 1.0

    assert steady == pytest.approx(10.0, rel=0.25)
    assert live_view.summary()["events_per_second"] == 0.0


def test_latency_percentiles_are_of_the_newest_samples() -> None:
    live_view = LiveView(metadata())
    assert live_view.summary()["latency_s"] == {"p50": None, "p99": None}
    live_view.record_latency(np.full(20_000, 9.0, dtype=np.float32))
    for _ in range(8):
        live_view.record_latency(np.linspace(0.0, 1.0, 1_024, dtype=np.float32))

    latency = live_view.summary()["latency_s"]

    assert latency["p50"] == pytest.approx(0.5, abs=0.01)
    assert latency["p99"] == pytest.approx(0.99, abs=0.01)


def test_the_callers_arrays_are_copied() -> None:
    live_view = LiveView(metadata())
    forecast = np.ones((1, 3, 3), dtype=np.float32)
    y = np.ones(1, dtype=np.float32)
    live_view.observe(published(EventBatch.of(["a"], [START_MS], y), stepped(1, forecast=forecast)))
    forecast[:] = y[:] = -1.0

    assert live_view.stream("a")["y"] == [1.0]
    assert live_view.stream("a")["forecast"]["quantiles"]["0.1"] == [1.0, 1.0, 1.0]


def test_a_stream_nobody_heard_of_is_an_error() -> None:
    with pytest.raises(KeyError, match="ghost"):
        LiveView(metadata()).stream("ghost")


@pytest.mark.parametrize("sizes", [{"max_streams": -1}, {"max_asked": -1}, {"history": 0}])
def test_sizes_that_make_no_sense_are_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(sizes))}={next(iter(sizes.values()))}"):
        LiveView(metadata(), **sizes)  # type: ignore[arg-type]
