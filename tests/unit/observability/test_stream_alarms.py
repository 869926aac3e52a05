"""Open alarms are known from the events of their streams, stay few, and are named to Prometheus within a bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from rillcast.bundle.bundle import Status
from rillcast.engine.late import AlarmChange
from rillcast.events import EventBatch
from rillcast.observability import stream_alarms
from rillcast.observability.stream_alarms import AlarmCollector, StreamAlarms
from tests.support.live_views import HOUR_MS, START_MS, metadata, published, silence, stepped

NONE = (0,) * 8
OPENS = (1, 1, 5_000, 0, 0, 10.5, 20, 168)
STILL_OPEN = (2, 1, 5_000, 3, 1, 10.5, 20, 168)
CLOSES = (3, 1, 5_000, 5, 3, 10.5, 20, 168)
MILD = (1, -3, 200, 0, 0, 10.5, 0.1, 168)


def put(
    alarms: StreamAlarms,
    ids: Sequence[str],
    rows: Sequence[Sequence[float]] | None,
    *,
    hour: int = 0,
    partition: int = 0,
    status: Sequence[Status] | None = None,
) -> None:
    events = EventBatch.of(
        ids, START_MS + HOUR_MS * (hour + np.zeros(len(ids), int)), [1.0] * len(ids), partition=partition
    )
    alarms.observe(published(events, stepped(len(ids), alarm=rows, status=status), model=metadata()))


def test_an_alarm_is_open_from_the_event_that_opened_it_to_the_one_that_closed_it() -> None:
    alarms = StreamAlarms()
    put(alarms, ["a", "b"], [OPENS, NONE])
    (opened,) = alarms.open()
    assert (opened.unique_id, opened.kind, opened.direction, opened.severity) == ("a", "spike", "up", "critical")
    assert (opened.first, opened.last, opened.closed) == (START_MS, START_MS, None)
    assert (opened.expected, opened.observed) == (10.5, 20)

    put(alarms, ["a"], [STILL_OPEN], hour=3)
    (still,) = alarms.open()
    assert (still.first, still.last) == (START_MS, START_MS + 2 * HOUR_MS)

    put(alarms, ["a"], [CLOSES], hour=5)
    assert alarms.open() == []
    (closed,) = alarms.closed()
    assert (closed.first, closed.last, closed.closed) == (START_MS, START_MS + 2 * HOUR_MS, START_MS + 5 * HOUR_MS)
    assert alarms.of(["a", "b"]) == {"a": [closed]}


def test_a_correction_of_the_past_changes_what_is_open_at_once() -> None:
    """Events of a stream count in their order, corrections among them."""
    alarms = StreamAlarms()
    ends, begins = np.array(CLOSES, np.float32), np.array(OPENS, np.float32)

    def correct(row: int, alarm: Sequence[Sequence[float]], found: list[AlarmChange]) -> None:
        events = EventBatch.of(["a"] * 3, START_MS + np.array([7, 8, 9]) * HOUR_MS, [1.0] * 3)
        result = replace(stepped(3, alarm=alarm), late=np.arange(3) == row, corrected_alarms=found)
        alarms.observe(published(events, result, model=metadata()))

    correct(1, [OPENS, NONE, STILL_OPEN], [AlarmChange(1, START_MS + 8 * HOUR_MS, ends)])
    assert [one.first for one in alarms.open()] == [START_MS + 6 * HOUR_MS]  # the third event has one
    correct(2, [STILL_OPEN, NONE, NONE], [AlarmChange(2, START_MS + 8 * HOUR_MS, ends)])
    assert not alarms.open()
    assert alarms.closed(1)[0].closed == START_MS + 9 * HOUR_MS
    correct(2, [NONE, NONE, NONE], [AlarmChange(2, START_MS + 8 * HOUR_MS, begins)])
    assert [one.first for one in alarms.open()] == [START_MS + 8 * HOUR_MS]


def test_an_alarm_that_was_open_before_a_restart_is_known_after_one_event() -> None:
    alarms = StreamAlarms()
    put(alarms, ["a"], [STILL_OPEN], hour=3)
    assert [alarm.first for alarm in alarms.open()] == [START_MS]


@pytest.mark.parametrize("rows", [[NONE], None], ids=["another state", "a model without alarms"])
def test_an_alarm_that_the_state_does_not_have_any_more_is_over(rows: list[tuple[int, ...]] | None) -> None:
    alarms = StreamAlarms()
    put(alarms, ["a"], [OPENS])
    put(alarms, ["a"], rows, hour=1)
    assert alarms.open() == []
    assert [alarm.closed for alarm in alarms.closed()] == [START_MS + HOUR_MS]


@pytest.mark.parametrize("status", [Status.LATE, Status.DUPLICATE])
def test_late_events_and_repeats_say_nothing_of_the_present(status: Status) -> None:
    alarms = StreamAlarms()
    put(alarms, ["a"], [OPENS])
    put(alarms, ["a"], [NONE], hour=-4, status=[status])
    assert len(alarms.open()) == 1


def test_alarms_of_a_partition_that_leaves_are_dropped() -> None:
    alarms = StreamAlarms()
    put(alarms, ["a", "c"], [OPENS, CLOSES], partition=0)
    put(alarms, ["b", "d"], [OPENS, CLOSES], partition=1)
    alarms.forget(0)
    assert [alarm.unique_id for alarm in (*alarms.open(), *alarms.closed())] == ["b", "d"]


def test_the_table_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_alarms, "_MOST_OPEN", 3)
    alarms = StreamAlarms()
    put(alarms, [f"s{number}" for number in range(5)], [OPENS] * 5)
    assert [alarm.unique_id for alarm in alarms.open()] == ["s0", "s1", "s2"]
    for _ in range(stream_alarms._MOST_CLOSED + 5):
        put(alarms, ["a"], [CLOSES])
    assert len(alarms.closed()) == stream_alarms._MOST_CLOSED


def test_prometheus_has_a_series_for_the_first_streams_and_counts_them_all() -> None:
    registry, alarms = CollectorRegistry(), StreamAlarms()
    AlarmCollector(alarms, 2, registry)
    put(alarms, ["a"], [OPENS])
    put(alarms, ['b "quoted"', "c"], [MILD, MILD])
    labels = {"unique_id": 'b "quoted"', "kind": "drift", "direction": "down", "severity": "warning"}
    assert registry.get_sample_value("rillcast_stream_alarm", labels) == 1
    assert generate_latest(registry).count(b"rillcast_stream_alarm{") == 2, "the setting bounds the series"
    assert registry.get_sample_value("rillcast_open_alarms", {"severity": "critical"}) == 1
    assert registry.get_sample_value("rillcast_open_alarms", {"severity": "warning"}) == 2
    put(alarms, ["a"], [CLOSES], hour=5)
    assert registry.get_sample_value("rillcast_open_alarms", {"severity": "critical"}) == 0
    assert b'unique_id="a"' not in generate_latest(registry)
    assert b'unique_id="c"' in generate_latest(registry), "the next one has the free place"


def test_a_silence_is_an_alarm_beside_that_of_the_model_until_it_is_over() -> None:
    alarms = StreamAlarms()
    put(alarms, ["quiet"], [OPENS])
    for over, kinds in ((False, ["spike", "silence"]), (True, ["spike"])):
        events = EventBatch.of(["a", "b"], [START_MS] * 2, [0.1] * 2, partition=3, first_offset=40)
        result = replace(stepped(2), overdue=[silence(over=over)])
        alarms.observe(published(events, result))
        assert [alarm.kind for alarm in alarms.open()] == kinds
        assert len(alarms.of(["quiet"])["quiet"]) == 2
    (closed,) = alarms.closed()
    assert (closed.first, closed.last) == (START_MS + HOUR_MS, START_MS + 40 * HOUR_MS)
    assert (closed.closed, closed.severity, closed.observed) == (START_MS + 41 * HOUR_MS, "critical", None)
