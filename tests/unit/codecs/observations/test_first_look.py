"""The first events of an input: unlikely times and an observation that no record has are said aloud."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from rillcast.codecs.connect import open_decoder
from rillcast.errors import DataError
from rillcast.settings import Settings
from tests.support.hostile import NOON_MS, polled
from tests.support.toy import ToyGraph

SECONDS = NOON_MS // 1_000


def records(n: int, **members: Any) -> list[bytes]:
    return [
        json.dumps({"unique_id": "a", "ds": SECONDS + 3_600 * number, "y": 1.0} | members).encode()
        for number in range(n)
    ]


def decode(values: list[bytes], path: Path | None = None, **given: Any) -> int:
    source = {} if path is None else {"path": str(path)}
    settings = Settings.model_validate({"model": "m.onnx", "input": given | source})
    events, _ = open_decoder(settings, ToyGraph().metadata()).decode(polled(values))
    return len(events)


def test_a_file_in_another_unit_is_refused_before_it_is_stepped() -> None:
    with pytest.raises(DataError, match=r"in.jsonl: all 30 times lie in 1970.*set input.fields.ds_unit to s"):
        decode(records(30), Path("in.jsonl"))
    assert decode(records(30), Path("in.jsonl"), fields={"ds_unit": "s"}) == 30


def test_a_topic_in_another_unit_is_warned_about_once(caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings.model_validate({"model": "m.onnx"})
    decoder = open_decoder(settings, ToyGraph().metadata())
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            decoder.decode(polled(records(30)))
    assert [line for line in caplog.messages if "set input.fields.ds_unit to s" in line] == [caplog.messages[0]]
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("first", [1_990, 0], ids=["years", "row numbers"])
def test_years_and_row_numbers_are_refused(first: int) -> None:
    values = [json.dumps({"unique_id": "a", "ds": first + n, "y": 1}).encode() for n in range(30)]
    with pytest.raises(DataError, match=r"within a minute of 1970-01-01.*(years|row numbers)"):
        decode(values, Path("in.jsonl"))


def test_times_of_1970_that_fill_their_periods_are_taken() -> None:
    values = [json.dumps({"unique_id": "a", "ds": n * 3_600_000, "y": 1}).encode() for n in range(30)]
    assert decode(values, Path("in.jsonl")) == 30


def test_records_without_the_observation_are_warned_about_with_their_members(
    caplog: pytest.LogCaptureFixture,
) -> None:
    values = [
        json.dumps({"unique_id": "a", "ds": NOON_MS + n, "cpu": {"load": 1, "temp": 2}}).encode() for n in range(12)
    ]
    with caplog.at_level(logging.WARNING):
        assert decode(values) == 12
    (line,) = (line for line in caplog.messages if "no" in line and "'y'" in line)
    assert "none of the first 12 records has a member 'y'" in line
    assert "['cpu.load', 'cpu.temp', 'ds', 'unique_id']" in line
    assert "input.fields.y" in line


@pytest.mark.parametrize("members", [{"y": None}, {"y": 2.0}])
def test_records_with_a_null_observation_are_not(members: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    values = [json.dumps({"unique_id": "a", "ds": NOON_MS + n * 3_600_000} | members).encode() for n in range(12)]
    with caplog.at_level(logging.WARNING):
        decode(values)
    assert caplog.messages == []
