"""Every reader of observations gives one answer: topics in JSON, files of the service, and tables of training.

A value is put into CSV, JSON Lines and Parquet, read by the service and by training, and decoded as a topic's record.
All accept it with the same meaning, or all refuse it. Accepted and refused forms with their right meaning stand in
tests/unit/reading; here hypothesis looks for forms in which the readers differ.
"""

from __future__ import annotations

import csv
import json
import math
import tempfile
from collections.abc import Iterator
from contextlib import closing
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rillcast.codecs.connect import open_decoder
from rillcast.codecs.observations.decoder import ObservationDecoder
from rillcast.codecs.observations.fields import Fields
from rillcast.codecs.observations.msgpack import MessagePackFormat
from rillcast.errors import DataError
from rillcast.reading.refusals import RefusedValueError
from rillcast.reading.times import UNITS, read_time
from rillcast.reading.values import read_id, read_number
from rillcast.settings import Settings
from rillcast.transports.connect import open_source
from rillcast_training.data.columns import Columns
from rillcast_training.data.tables import read
from tests.support.hostile import NOON_MS, polled
from tests.support.transports import Listener

MAX_ABS: Final = 1e15


class Event(NamedTuple):
    """An observation as its values in the service: `y` is float32, None = missing."""

    unique_id: str
    ds: int
    y: float | None


def event(unique_id: str, ds: int, y: float | None) -> Event:
    return Event(unique_id, ds, None if y is None or math.isnan(y) else float(np.float32(y)))


def expected(row: dict[str, Any], unit: str) -> Event | None:
    """The answer of the one reader; None = refused."""
    try:
        y = read_number(row["y"])
        if y is not None and abs(y) > MAX_ABS:
            return None
        return event(read_id(row["unique_id"]), read_time(row["ds"], unit), y)
    except RefusedValueError:
        return None


def of_topic(value: bytes, unit: str, *, form: Any = None) -> Event | None:
    decoder = ObservationDecoder(form=form, fields=Fields(ds_unit=unit))  # type: ignore[arg-type]  # a text
    events, rejections = decoder.decode(polled([value]))
    assert len(events) + len(rejections) == 1
    return event(events.unique_ids[0], int(events.ds[0]), float(events.y[0])) if len(events) else None


def of_service(path: Path, unit: str) -> Event | None:
    given = {"path": str(path), "fields": {"ds_unit": unit}, "max_future_s": 0}
    config = Settings.model_validate({"model": "m.onnx", "input": given})
    with closing(open_source(config)) as source:
        source.open(Listener())
        events, rejections = open_decoder(config, None).decode(source.poll(10, 0.0))
    assert len(events) + len(rejections) == 1
    return event(events.unique_ids[0], int(events.ds[0]), float(events.y[0])) if len(events) else None


def of_training(path: Path, unit: str) -> Event | None:
    try:
        frame = read(path, Columns(unit=unit))  # type: ignore[arg-type]  # a text
    except DataError:
        return None
    return event(frame["unique_id"][0], frame["ds"][0], frame["y"][0])


def answers(row: dict[str, Any], unit: str, folder: Path) -> Iterator[tuple[str, Event | None]]:
    """The answer of every reader that can be given the row."""
    as_text = all(isinstance(value, str) for value in row.values())
    if as_text:
        path = folder / "in.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([row.keys(), row.values()])
        yield "CSV of the service", of_service(path, unit)
        yield "CSV of training", of_training(path, unit)
    if not any(isinstance(value, date | time | Decimal) for value in row.values()):
        line = json.dumps(row).encode()
        (folder / "in.jsonl").write_bytes(line + b"\n")
        yield "a topic in JSON", of_topic(line, unit)
        yield "a topic in MessagePack", of_topic(msgspec.msgpack.encode(row), unit, form=MessagePackFormat())
        yield "JSON Lines of the service", of_service(folder / "in.jsonl", unit)
        yield "JSON Lines of training", of_training(folder / "in.jsonl", unit)
    path = folder / "in.parquet"
    pl.DataFrame({name: [value] for name, value in row.items()}).write_parquet(path)
    yield "Parquet of the service", of_service(path, unit)
    yield "Parquet of training", of_training(path, unit)


def check(row: dict[str, Any], unit: str = "ms") -> None:
    right = expected(row, unit)
    with tempfile.TemporaryDirectory() as folder:
        found = dict(answers(row, unit, Path(folder)))
    assert found == dict.fromkeys(found, right), row


def digits(longest: int) -> st.SearchStrategy[str]:
    return st.text("0123456789", min_size=1, max_size=longest)


DATES = st.one_of(
    st.dates(date(1600, 1, 1), date(2199, 12, 31)).map(str),
    st.sampled_from(
        ["2024-5-1", "2024/05/01", "2024-05", "20240501", "01/05/2024", "2024-02-30", "1599-12-31", "2024"]
    ),
)
CLOCKS = st.one_of(
    st.times().map(str),
    st.sampled_from(
        ["", "00:00", "9:05", "24:00", "24:00:01", "23:59:60", "12:00:00.1234567", "12:00:00,5", "12", "25:00"]
    ),
)
OFFSETS = st.sampled_from(
    ["", "Z", "z", " Z", "+00:00", "-0530", "+02", " +02:00", " UTC", "gmt", "+24:00", "+02:60", "CET"]
)
BLANKS = st.sampled_from(["", "", "", " ", "\t", "  "])
MOMENTS = st.builds(
    lambda a, day, t, clock, offset, b: f"{a}{day}{t if clock else ''}{clock}{offset}{b}",
    BLANKS, DATES, st.sampled_from(["T", " ", "t", "  ", ""]), CLOCKS, OFFSETS, BLANKS,
)  # fmt: skip
DIGITS = st.builds(
    lambda sign, whole, rest: f"{sign}{whole}{rest}",
    st.sampled_from(["", "-", "+", " "]), digits(20), st.sampled_from(["", ".0", ".5", "e3", "E-2", "_0", ",5", "%"]),
)  # fmt: skip
WORDS = st.sampled_from(
    [
        "",
        " ",
        "NA",
        "n/a",
        "#N/A",
        "<NA>",
        "null",
        "NULL",
        "None",
        "NaN",
        "-nan",
        "NaT",
        "\\N",
        "inf",
        "-Infinity",
        "true",
        "x",
    ]
)
NUMBERS = st.one_of(
    DIGITS,
    WORDS,
    st.floats().map(repr),
    st.builds(lambda t: t, st.sampled_from([".5", "5.", "+.5e1", "1e15", "1.1e15", "1,000.5"])),
)


@settings(max_examples=80)
@given(st.one_of(MOMENTS, DIGITS, WORDS), st.sampled_from(UNITS))
def test_a_time_in_text_means_the_same_to_every_reader(ds: str, unit: str) -> None:
    check({"unique_id": "a", "ds": ds, "y": "1"}, unit)


@settings(max_examples=50)
@given(NUMBERS)
def test_a_number_in_text_means_the_same_to_every_reader(y: str) -> None:
    check({"unique_id": "a", "ds": str(NOON_MS), "y": y})


@settings(max_examples=80)
@given(
    st.one_of(
        st.integers(-(2**62), 2**62),
        st.integers(NOON_MS // 1000 - 10**6, NOON_MS // 1000 + 10**6),
        st.integers(19_000_000, 22_011_232),
        st.floats(-1e14, 1e14),
        st.booleans(),
        st.datetimes(datetime(1600, 1, 1), datetime(2199, 12, 31)),  # noqa: DTZ001  naive, as Parquet often has
        st.dates(date(1600, 1, 1), date(2199, 12, 31)),
        st.times(),
    ),
    st.sampled_from(UNITS),
)
def test_a_time_of_any_type_means_the_same_to_every_reader(ds: Any, unit: str) -> None:
    check({"unique_id": "a", "ds": ds, "y": 1.5}, unit)


IDS = st.one_of(
    st.integers(-(2**62), 2**62),
    st.text(max_size=5),
    st.floats(-1e6, 1e6),
    st.integers(0, 50).map(float),
    st.booleans(),
    st.decimals(0, 99, places=1),
)
VALUES = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(2**62), 2**62),
    st.booleans(),
    st.decimals(-99, 99, places=3),
    st.none(),
    NUMBERS,
)


@settings(max_examples=80)
@given(IDS, VALUES)
def test_ids_and_values_of_any_type_mean_the_same_to_every_reader(unique_id: Any, y: Any) -> None:
    check({"unique_id": unique_id, "ds": NOON_MS, "y": y})


def test_a_record_of_another_form_changes_no_neighbour() -> None:
    usual = json.dumps({"unique_id": "a", "ds": "2024-05-01T12:00:00.0006Z", "y": 0.1}).encode()
    other = json.dumps({"unique_id": 7, "ds": " 2024-05-01 12:00 ", "y": "NA"}).encode()
    events, rejections = ObservationDecoder().decode(polled([usual, other, usual]))
    assert rejections == []
    alone, _ = ObservationDecoder().decode(polled([usual]))
    assert events.unique_ids == ["a", "7", "a"]
    assert events.ds.tolist() == [int(alone.ds[0]), NOON_MS, int(alone.ds[0])]
    np.testing.assert_array_equal(events.y, [alone.y[0], np.nan, alone.y[0]])


LAYOUTS = {
    "byte order mark": b"\xef\xbb\xbfunique_id,ds,y\na,{0},1\nb,{0},2\n",
    "CRLF": b"unique_id,ds,y\r\na,{0},1\r\nb,{0},2\r\n",
    "CR": b"unique_id,ds,y\ra,{0},1\rb,{0},2\r",
    "blanks in the header": b" unique_id , ds ,y\na,{0},1\nb,{0},2\n",
    "blank lines": b"\n\nunique_id,ds,y\n\na,{0},1\n  \n,,\nb,{0},2\n\n\n",
    "UTF-16": "unique_id,ds,y\na,{0},1\nb,{0},2\n".encode("utf-16"),
    "JSON with a byte order mark": b'\xef\xbb\xbf{"unique_id":"a","ds":{0},"y":1}\n{"unique_id":"b","ds":{0},"y":2}\n',
    "JSON with CR": b'{"unique_id":"a","ds":{0},"y":1}\r{"unique_id":"b","ds":{0},"y":2}\r',
    "JSON with CRLF and blank lines": b'\r\n{"unique_id":"a","ds":{0},"y":1}\r\n \r\n{"unique_id":"b","ds":{0},"y":2}',
    "JSON in UTF-16": '{"unique_id":"a","ds":{0},"y":1}\n{"unique_id":"b","ds":{0},"y":2}\n'.encode("utf-16"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_with_one_meaning_is_read(layout: str, tmp_path: Path) -> None:
    path = tmp_path / ("in.jsonl" if "JSON" in layout else "in.csv")
    wide = "UTF-16" in layout
    mark, number = (
        ("{0}".encode("utf-16-le"), str(NOON_MS).encode("utf-16-le")) if wide else (b"{0}", str(NOON_MS).encode())
    )
    path.write_bytes(LAYOUTS[layout].replace(mark, number))
    frame = read(path)
    assert (frame["unique_id"].to_list(), frame["y"].to_list()) == (["a", "b"], [1.0, 2.0])
    config = Settings.model_validate({"model": "m.onnx", "input": {"path": str(path)}})
    with closing(open_source(config)) as source:
        source.open(Listener())
        events, rejections = open_decoder(config, None).decode(source.poll(10, 0.0))
    assert (rejections, events.unique_ids, events.y.tolist()) == ([], ["a", "b"], [1.0, 2.0])
    assert events.ds.tolist() == frame["ds"].to_list()
