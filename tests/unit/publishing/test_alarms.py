"""Alarms as records: which are published, as what, and how they are scored."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from rillcast import cli
from rillcast.bundle.alarms import slots_per_alarm
from rillcast.bundle.frequency import parse
from rillcast.codecs.observations.rejections import Reason
from rillcast.engine.late import AlarmChange
from rillcast.errors import DataError, SettingsError
from rillcast.events import EventBatch
from rillcast.publishing.alarms import Alarm, AlarmPublisher
from rillcast.service.build import build
from rillcast.settings import Settings
from rillcast.transports.base import Channel
from tests.support.formats import SCHEMAS
from tests.support.live_views import HOUR_MS, START_MS, published, silences, stepped
from tests.support.memory import Log, MemorySink
from tests.support.toy import write_toy

# phase, kind, strength, age, calm, expected, observed, level
NONE = (0, 0, 0, 0, 0, 0, 0, 0)
OPENS = (1, -1, 5_000, 0, 0, 10.5, 0.1, 168)
OPEN = (2, -1, 5_000, 3, 1, 10.5, 0.1, 168)
CLOSES = (3, 1, 300, 20, 8, 10.5, 99, 168)


def records(
    rows: Sequence[Sequence[float]], limit: int | None = None, live: Sequence[bool] | None = None
) -> tuple[list[bytes], dict[str, int], list[Reason]]:
    """Return the records of these outputs, of one event each, the counts, and the reasons of what was left out."""
    log, counts = Log({0: []}), dict[str, int]()
    sink = MemorySink(log)
    if limit is not None:
        sink.largest[Channel.ALARMS] = limit
    ids, ds = [f"s{i}" for i in range(len(rows))], START_MS + np.arange(len(rows)) * HOUR_MS
    events = EventBatch.of(ids, ds, np.full(len(rows), 0.1), partition=3, first_offset=40)
    done = published(events, stepped(len(rows), alarm=rows), live=live)
    AlarmPublisher(sink, count=counts.__setitem__).observe(done)
    sink.flush(1.0)
    found = [value for _, value, _ in log.published[Channel.ALARMS] if value is not None]
    return found, counts, [one.reason for one in done.rejections]


def test_a_record_comes_where_an_alarm_opens_and_where_it_closes() -> None:
    found, counts, _ = records([NONE, OPENS, OPEN, CLOSES])
    first, last = (json.loads(value) for value in found)
    assert first == {
        "unique_id": "s1",
        "ds": "2024-05-01T01:00:00.000Z",
        "change": "opened",
        "kind": "spike",
        "direction": "down",
        "severity": "critical",
        "strength": 5000.0,
        "first": "2024-05-01T01:00:00.000Z",
        "last": "2024-05-01T01:00:00.000Z",
        "expected": 10.5,
        "observed": 0.1,
        "freq": "1h",
        "model": "toy@0123456789abcdef",
        "source": {"partition": 3, "offset": 41},
    }
    assert (last["change"], last["severity"], last["direction"]) == ("closed", "warning", "up")
    assert last["kind"] == "level shift"  # the evidence lasted for twelve hours
    assert (last["first"], last["last"]) == ("2024-04-30T07:00:00.000Z", "2024-04-30T19:00:00.000Z")
    assert counts == {"opened": 1, "closed": 1}


def test_an_alarm_that_its_topic_does_not_take_is_left_out_and_named() -> None:
    found, counts, reasons = records([OPENS, CLOSES], limit=50)
    assert (found, counts, reasons) == ([], {}, [Reason.ALARM_TOO_LARGE] * 2)


def test_events_that_were_published_before_or_not_stepped_bring_none() -> None:
    assert len(records([OPENS, OPENS], live=[True, False])[0]) == 1


def test_a_late_event_has_the_records_of_what_it_corrects_in_their_place() -> None:
    """Times of an alarm are those of the step that says it; `ds` and `source` are those of the event that corrected."""
    log = Log({0: []})
    sink = MemorySink(log)
    events = EventBatch.of(["a", "b", "c"], START_MS + np.array([9, 2, 9]) * HOUR_MS, [0.1] * 3, first_offset=40)
    ends, begins = np.array(CLOSES, np.float32), np.array(OPENS, np.float32)
    found = [AlarmChange(1, START_MS + 8 * HOUR_MS, ends), AlarmChange(1, START_MS + 9 * HOUR_MS, begins)]
    result = replace(stepped(3, alarm=[OPENS, NONE, CLOSES]), corrected_alarms=found)
    AlarmPublisher(sink).observe(published(events, result))
    sink.flush(1.0)
    read = [json.loads(value or b"") for _, value, _ in log.published[Channel.ALARMS]]
    assert [(one["unique_id"], one["change"]) for one in read] == [
        ("a", "opened"), ("b", "closed"), ("b", "opened"), ("c", "closed"),
    ]  # fmt: skip
    assert {(one["ds"], one["source"]["offset"]) for one in read[1:3]} == {("2024-05-01T02:00:00.000Z", 41)}
    assert (read[1]["first"], read[1]["last"]) == ("2024-04-30T12:00:00.000Z", "2024-05-01T00:00:00.000Z")
    assert read[2]["first"] == "2024-05-01T09:00:00.000Z"


def test_a_model_without_alarms_has_none() -> None:
    log = Log({0: []})
    events = EventBatch.of(["a"], np.array([START_MS]), [0.0])
    AlarmPublisher(MemorySink(log)).observe(published(events, stepped(1)))
    assert not log.published[Channel.ALARMS]


def test_records_keep_their_schema_and_are_read_back() -> None:
    schema = json.loads((SCHEMAS / "alarm.schema.json").read_text())
    kind = jsonschema.validators.validator_for(schema)
    kind.check_schema(schema)
    found, _, _ = records([OPENS, CLOSES])
    for value in found:
        kind(schema, format_checker=kind.FORMAT_CHECKER).validate(json.loads(value))
    alarm = Alarm.read(found[0])
    assert (alarm.unique_id, alarm.ds, alarm.kind, alarm.offset) == ("s0", START_MS, "spike", 40)
    silence, _ = silences(Channel.ALARMS)
    kind(schema, format_checker=kind.FORMAT_CHECKER).validate(json.loads(silence))
    assert (Alarm.read(silence).kind, Alarm.read(silence).observed) == ("silence", None)
    with pytest.raises(DataError, match="no alarm record"):
        Alarm.read(b'{"unique_id": "a"}')


def test_a_silence_has_both_records_and_names_what_showed_it() -> None:
    opened, closed = (json.loads(value) for value in silences(Channel.ALARMS))
    assert opened == {
        "unique_id": "quiet",
        "ds": "2024-05-01T05:00:00.000Z",
        "change": "opened",
        "kind": "silence",
        "direction": None,
        "severity": "warning",
        "strength": 224.0,
        "first": "2024-05-01T01:00:00.000Z",
        "last": "2024-05-01T04:00:00.000Z",
        "expected": None,
        "observed": None,
        "freq": "1h",
        "model": "toy@0123456789abcdef",
        "source": {"partition": 3, "offset": 41},
    }
    assert (closed["change"], closed["severity"], closed["first"]) == ("closed", "critical", opened["first"])
    assert len(silences(Channel.ALARMS, live=[True, False])) == 1, "the other was published before"


@pytest.mark.parametrize(
    ("rate", "freq", "slots"),
    [("1/week", "1h", 168), ("2/day", "5min", 144), ("0.5/month", "1h", 1461), ("1/week", "1w", 50)],
)
def test_a_rate_is_a_number_of_periods(rate: str, freq: str, slots: float) -> None:
    assert slots_per_alarm(rate, parse(freq)) == pytest.approx(slots, rel=1e-3)


@pytest.mark.parametrize("rate", ["", "1", "0/week", "week", "1/fortnight", "-1/day"])
def test_what_is_no_rate_is_refused(rate: str) -> None:
    with pytest.raises(ValueError, match=r"alarms\.per_stream"):
        Settings(alarms={"per_stream": rate})


def test_alarms_need_a_model_that_finds_them(tmp_path: Path) -> None:
    model = write_toy(tmp_path / "toy.onnx")
    settings = {"path": str(tmp_path / "in.jsonl"), "overdue_periods": 0}
    (tmp_path / "in.jsonl").write_text("")
    with pytest.raises(SettingsError, match="no output 'alarm'"):
        build(
            Settings(
                model=model,
                input=settings,
                output={"path": str(tmp_path / "out.jsonl")},
                alarms={"path": str(tmp_path / "alarms.jsonl")},
            )
        )


def test_alarms_have_a_place_of_their_own() -> None:
    with pytest.raises(ValueError, match=r"alarms\.path is 'a\.jsonl', as is the path of another output"):
        Settings(output={"path": "o.jsonl"}, anomalies={"path": "a.jsonl"}, alarms={"path": "a.jsonl"})
    with pytest.raises(ValueError, match=r"alarms\.topic is 'forecasts'"):
        Settings(output={"topic": "forecasts"}, alarms={"topic": "forecasts"})
    with pytest.raises(ValueError, match=r"use alarms\.path"):
        Settings(output={"path": "o.jsonl"}, alarms={"topic": "alarms"})


def test_alarms_of_a_file_are_scored_by_labelled_windows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hours = [np.datetime_as_string(np.datetime64(START_MS + hour * HOUR_MS, "ms"), unit="s") for hour in range(300)]
    (tmp_path / "y.csv").write_text("unique_id,ds,y\n" + "".join(f"s0,{ds},{n}\n" for n, ds in enumerate(hours)))
    (tmp_path / "labels.json").write_text(json.dumps({"s0": [[hours[100], hours[119]]]}))
    found, _, _ = records([OPENS])
    opened = json.loads(found[0]) | {"ds": hours[100] + "Z"}
    (tmp_path / "alarms.jsonl").write_text(json.dumps(opened) + "\n")
    score = ["anomalies", "--score", str(tmp_path / "labels.json"), "--file", str(tmp_path / "alarms.jsonl")]
    assert cli.main([*score, "--data", str(tmp_path / "y.csv"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["precision"], document["recall"], document["delay"]) == (1, 1, 0)
    assert document["nab"]["standard"] == pytest.approx(100)
    assert cli.main(score) == 2
    assert "--data" in capsys.readouterr().err
    (tmp_path / "labels.json").write_text(json.dumps({"other": []}))
    assert cli.main([*score, "--data", str(tmp_path / "y.csv")]) == 2
    assert "'other'" in capsys.readouterr().err
