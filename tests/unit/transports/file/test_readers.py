"""Observation files: formats, hostile rows, names and pipes."""

from __future__ import annotations

import gzip
import json
import os
import select
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from rillcast.errors import DataError, SettingsError, TransportError
from rillcast.transports.file.batch import Batch
from rillcast.transports.file.readers import PipeReader, open_reader

HEADER = "unique_id,ds,y\n"


def values(path: Path, file_format: str = "auto") -> list[bytes]:
    """Return every record of a file as its reader hands it over."""
    with closing(open_reader(str(path), file_format)) as reader:
        records: list[bytes] = []
        while not reader.ended:
            records += reader.read(3, 0.0).values
    return records


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_lines_are_handed_over_as_they_stand_without_blank_ones_and_their_ends(tmp_path: Path) -> None:
    path = write(tmp_path / "in.jsonl", b'{"a": 1}\r\n\nnot json\n\xff\xfe\n \n{"last": 1}')
    assert values(path) == [b'{"a": 1}', b"not json", b"\xff\xfe", b'{"last": 1}']
    with closing(open_reader(str(path), "auto")) as reader:
        assert list(reader.read(9, 0.0).places) == [1, 3, 4, 6]


@pytest.mark.parametrize("name", ["in.jsonl.gz", "in.csv.gz"])
def test_gzip_is_read_through(tmp_path: Path, name: str) -> None:
    plain = b'{"unique_id":"a","ds":1,"y":2.0}\n' if "json" in name else HEADER.encode() + b"a,1,2\n"
    path = write(tmp_path / name, gzip.compress(plain))
    assert [json.loads(value) for value in values(path)] == [{"unique_id": "a", "ds": 1, "y": 2.0}]


def test_a_cut_gzip_stream_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    whole = gzip.compress(os.urandom(200_000).hex().encode())
    path = write(tmp_path / "cut.jsonl.gz", whole[: len(whole) // 2])
    with pytest.raises(TransportError, match=r"cut\.jsonl\.gz.*reading failed"):
        values(path)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("a,1714564800000,0.5", {"unique_id": "a", "ds": 1714564800000, "y": 0.5}),
        ("a,2024-05-01T12:00:00Z,-1e3", {"unique_id": "a", "ds": "2024-05-01T12:00:00Z", "y": -1000.0}),
        ("007,1,+.5", {"unique_id": "007", "ds": 1, "y": 0.5}),
        ("a,1,", {"unique_id": "a", "ds": 1, "y": None}),
        ("a,1,NaN", {"unique_id": "a", "ds": 1, "y": None}),
        ("a,1,inf", {"unique_id": "a", "ds": 1, "y": "inf"}),
        ("a,1,1e999", {"unique_id": "a", "ds": 1, "y": "1e999"}),
        ("a,1,1_000", {"unique_id": "a", "ds": 1, "y": "1_000"}),
        ("a,1,twelve", {"unique_id": "a", "ds": 1, "y": "twelve"}),
        ("a,99999999999999999999999,1", {"unique_id": "a", "ds": "99999999999999999999999", "y": 1.0}),
        ('"a,""b""",1,2', {"unique_id": 'a,"b"', "ds": 1, "y": 2.0}),
        ('"two\nlines",1,2', {"unique_id": "two\nlines", "ds": 1, "y": 2.0}),
        ("a,1", ["a", "1"]),
        ("a,1,2,3", ["a", "1", "2", "3"]),
    ],
)
def test_a_csv_row_becomes_the_record_that_it_stands_for(tmp_path: Path, row: str, expected: object) -> None:
    path = write(tmp_path / "in.csv", f"{HEADER}{row}\nnext,2,3\n")
    first, second = values(path)
    assert json.loads(first) == expected
    assert json.loads(second) == {"unique_id": "next", "ds": 2, "y": 3.0}


def test_a_csv_row_that_is_not_utf8_is_handed_over_as_its_bytes(tmp_path: Path) -> None:
    path = write(tmp_path / "in.csv", HEADER.encode() + b"caf\xe9,1,2\nb,1,2\n")
    assert values(path)[0] == b"caf\xe9,1,2"
    assert json.loads(values(path)[1])["unique_id"] == "b"


def test_a_csv_field_beyond_the_limit_of_the_csv_module_spoils_one_row_only(tmp_path: Path) -> None:
    path = write(tmp_path / "in.csv", f"{HEADER}{'x' * 200_000},1,2\nb,1,2\n")
    with closing(open_reader(str(path), "auto")) as reader:
        found = reader.read(9, 0.0)
    assert "field larger than field limit" in found.faults[0].detail
    assert json.loads(found.values[1])["unique_id"] == "b"


def test_csv_columns_may_stand_in_any_order_after_a_byte_order_mark(tmp_path: Path) -> None:
    path = write(tmp_path / "in.csv", b"\xef\xbb\xbfy,other,unique_id, ds\n2,x,a,1\n")
    assert [json.loads(value) for value in values(path)] == [{"unique_id": "a", "ds": 1, "y": 2.0}]


@pytest.mark.parametrize("content", ["", "unique_id,ds\na,1\n", "a,1,2\n"])
def test_a_csv_header_without_the_needed_columns_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(DataError, match=r"no columns? .*; found|is empty"):
        values(write(tmp_path / "in.csv", content))


def test_parquet_times_become_milliseconds_and_nan_becomes_null(tmp_path: Path) -> None:
    noon = datetime(2024, 5, 1, 12, tzinfo=UTC)
    frame = pl.DataFrame(
        {"unique_id": [1, 2, 3], "ds": [noon, noon, noon], "y": [0.5, float("nan"), float("inf")], "other": [0, 0, 0]}
    )
    frame.write_parquet(tmp_path / "in.parquet")
    assert [json.loads(value) for value in values(tmp_path / "in.parquet")] == [
        {"unique_id": "1", "ds": 1714564800000, "y": 0.5},
        {"unique_id": "2", "ds": 1714564800000, "y": None},
        {"unique_id": "3", "ds": 1714564800000, "y": None},  # and a fault, for JSON has no infinity
    ]


def test_a_naive_parquet_time_counts_as_utc(tmp_path: Path) -> None:
    naive = datetime(2024, 5, 1, 12)  # noqa: DTZ001  the case at hand
    pl.DataFrame({"unique_id": ["a"], "ds": [naive], "y": [1]}).write_parquet(tmp_path / "in.parquet")
    assert json.loads(values(tmp_path / "in.parquet")[0]) == {"unique_id": "a", "ds": 1714564800000, "y": 1}


def test_a_file_that_is_not_parquet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a Parquet file"):
        values(write(tmp_path / "in.parquet", b"PAR1 no"))


def test_the_format_setting_overrules_the_name(tmp_path: Path) -> None:
    path = write(tmp_path / "data.txt", HEADER + "a,1,2\n")
    assert json.loads(values(path, "csv")[0])["unique_id"] == "a"
    with pytest.raises(SettingsError, match=r"input\.format"):
        values(path)


def test_standard_input_is_json_lines_only() -> None:
    with pytest.raises(SettingsError, match="standard input"):
        open_reader("-", "csv")


@pytest.fixture
def pipe() -> Iterator[tuple[PipeReader, int]]:
    receiving, sending = os.pipe()
    yield PipeReader(receiving), sending
    os.close(receiving)


def test_a_silent_pipe_is_waited_for_once_until_the_timeout_and_is_not_ended(
    pipe: tuple[PipeReader, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, sending = pipe
    waits: list[float] = []
    wait = select.select

    def watched(readable: list[int], writable: list[int], failed: list[int], timeout: float) -> object:
        waits.append(timeout)
        return wait(readable, writable, failed, timeout)

    monkeypatch.setattr(select, "select", watched)
    assert reader.read(10, 0.05).values == []
    assert len(waits) == 1, "it waits in the system, and does not ask again and again"
    assert 0 < waits[0] <= 0.05
    assert not reader.ended
    os.close(sending)


def test_lines_of_a_pipe_come_whole_however_they_were_written(pipe: tuple[PipeReader, int]) -> None:
    reader, sending = pipe
    os.write(sending, b"one\ntw")
    assert reader.read(10, 1.0).values == [b"one"]
    assert reader.read(10, 0.01).values == []
    os.write(sending, b"o\r\n\nthree\nfo")
    assert reader.read(2, 1.0) == Batch([b"two", b"three"], [2, 4], {})
    os.write(sending, b"ur")
    os.close(sending)
    assert not reader.ended
    assert reader.read(10, 1.0).values == [b"four"]
    assert reader.ended or reader.read(10, 1.0).values == []
    assert reader.ended
