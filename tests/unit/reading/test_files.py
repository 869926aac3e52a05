"""Text files that are not what they should be: row, column and likely cause, in the service and in training."""

from __future__ import annotations

import gzip
import re
from contextlib import closing
from pathlib import Path

import polars as pl
import pytest

from rillcast.codecs.connect import open_decoder
from rillcast.errors import DataError, RillcastError
from rillcast.reading.files import TextForm
from rillcast.settings import Settings
from rillcast.transports.connect import open_source
from rillcast_training.data.columns import Columns
from rillcast_training.data.tables import read
from tests.support.transports import Listener

HEAD = "unique_id,ds,y\n"
GOOD = "a,2024-05-01T00:00:00,1.5\n"


def of_service(path: Path, **given: object) -> tuple[int, list[str]]:
    """Return how many events the service takes, and the details of its dead letters."""
    settings = Settings.model_validate({"model": "m.onnx", "input": {"path": str(path)} | given})
    with closing(open_source(settings)) as source:
        source.open(Listener())
        events, rejections = open_decoder(settings, None).decode(source.poll(100, 0.0))
    return len(events), [rejection.detail for rejection in rejections]


ROWS = [
    ("a,2024-05-01T01:00:00,1,5\n", r"found 4 fields, the header has 3; a cell that contains ','"),
    ("a,2024-05-01T01:00:00\n", "found 2 fields, the header has 3"),
    ("# a comment\n", "found 1 field, the header has 3; the row begins with '#'"),
    ("a,yesterday,1\n", "column 'ds'.*found 'yesterday'"),
    ('a,2024-05-01T01:00:00,"1,5"\n', r"column 'y'.*found '1,5'.*comma.*(--decimal ,|input.decimal)"),
    (",2024-05-01T01:00:00,1\n", "column 'unique_id'.*found ''"),
    ("a,1714521600000000,1\n", r"in us it would be 2024-05-01T00:00:00Z.*(--time-unit|input\.fields\.ds_unit)"),
    (f"{'x' * 200_000},2024-05-01T01:00:00,1\n", "field larger than field limit.*a quotation mark that is not closed"),
]


@pytest.mark.parametrize(("row", "message"), ROWS, ids=lambda one: one[:30])
def test_a_bad_row_is_named_with_its_place_and_cause(row: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text(f"{HEAD}{GOOD}\n{row}{GOOD}")
    with pytest.raises(DataError, match=message) as refused:
        read(path)
    assert "row 2 (line 4)" in str(refused.value)
    events, details = of_service(path)
    assert events == 2
    assert len(details) == 1
    assert re.match(rf"row 2 \(line 4\): .*({message})", details[0]), details[0]
    assert len(str(refused.value)) < 500


HEADERS = [
    ("unique_id;ds;y\na;2024-05-01;1\n", "the header has ';' between its names.*(--separator|input.separator)"),
    ("unique_id\tds\ty\n", r"the header has '\\t' between"),
    ("# made by x\n" + HEAD + GOOD, "the first line begins with '#'"),
    ("Unique_ID,DS,y\n" + GOOD, r"\['Unique_ID', 'DS'\] differ by capitals only"),
    ("a,2024-05-01,1.5\na,2024-05-02,1\n", "the first line looks like data"),
    ("unique_id,ds,y,y\na,2024-05-01,1,2\n", "column 'y' stands twice"),
    ("", "the file is empty"),
    (",".join(f"column{n}" for n in range(10_000)) + "\n", "and 9,988 more"),
]


@pytest.mark.parametrize(("text", "message"), HEADERS, ids=lambda one: one[:20])
def test_a_header_that_does_not_fit_is_explained(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text(text)
    for reader in (read, of_service):
        with pytest.raises(DataError, match=message) as refused:
            reader(path)
        assert len(str(refused.value)) < 1_000


def test_the_options_of_a_file_mend_it(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes("unique_id;ds;y\ncaf\u00e9;2024-05-01;1,5\n".encode("latin-1"))
    frame = read(path, Columns(form=TextForm(";", ",", "latin-1")))
    assert (frame["unique_id"].to_list(), frame["y"].to_list()) == (["caf\u00e9"], [1.5])
    assert of_service(path, separator=";", decimal=",", encoding="latin-1") == (1, [])
    lines = tmp_path / "in.jsonl"
    lines.write_bytes('{"unique_id": "caf\u00e9", "ds": 1714521600, "y": 1}\n'.encode("latin-1"))
    assert of_service(lines, encoding="latin-1", fields={"ds_unit": "s"}) == (1, [])
    frame = read(lines, Columns(unit="s", form=TextForm(encoding="latin-1")))
    assert (frame["unique_id"].to_list(), frame["ds"].to_list()) == (["caf\u00e9"], [1_714_521_600_000])


def test_another_encoding_is_named(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes((HEAD + GOOD + "caf\u00e9,2024-05-01,1\n").encode("latin-1"))
    message = r"row 2 \(line 3\).*which is not utf-8: --encoding latin-1"
    with pytest.raises(DataError, match=message):
        read(path)
    events, (detail,) = of_service(path)
    assert events == 1
    assert "row 2 (line 3)" in detail
    assert "set input.encoding to latin-1" in detail
    path.write_bytes((HEAD + GOOD).encode("utf-16-le"))  # without a mark
    with pytest.raises(DataError, match="zero bytes, as UTF-16 has: --encoding utf-16-le"):
        read(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"unique_id": "a", "ds": 1714521600000, "y": NaN}', "JSON has no NaN"),
        ('{"unique_id": "a", "ds": 1714521600000, ', "truncated|malformed"),
        ("[1]", "Expected `object`, got `array`"),
        ('{"unique_id": "a", "y": 1}', "found nothing, expected a time|missing required field `ds`"),
    ],
)
def test_a_bad_line_of_json_is_named(line: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    good = '{"unique_id": "a", "ds": 1714521600000, "y": 1}\n'
    path.write_text(f"{good}\n{line}\n")
    with pytest.raises(DataError, match=rf"row 2 \(line 3\).*({message})"):
        read(path)
    events, (detail,) = of_service(path)
    assert events == 1
    assert re.search(rf"line 3: .*({message})", detail), detail


WRONG_BYTES = [
    ("in.csv.gz", b"plain text", "the name ends with .gz, but the file is not gzip"),
    ("in.csv", b"PK\x03\x04", "a zip archive or an Excel file"),
    ("in.csv", b"PAR1", "Parquet"),
    ("in.parquet", b"text", "not .*arquet|not readable as .parquet"),
]


@pytest.mark.parametrize(("name", "data", "message"), WRONG_BYTES)
def test_a_file_that_is_something_else_is_refused(name: str, data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    for reader in (read, of_service):
        with pytest.raises(RillcastError, match=message):
            reader(path)


def test_gzip_is_known_by_its_mark_whatever_its_name(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes(gzip.compress((HEAD + GOOD).encode()))
    assert len(read(path)) == 1
    assert of_service(path) == (1, [])


def test_a_file_without_ids_is_one_stream_called_like_it(tmp_path: Path) -> None:
    (tmp_path / "boiler.csv").write_text("ds,y\n2024-05-01,1\n")
    (tmp_path / "boiler.jsonl").write_text('{"ds": "2024-05-01", "y": 1}\n')
    pl.DataFrame({"ds": ["2024-05-01"], "y": [1]}).write_parquet(tmp_path / "boiler.parquet")
    for ending in ("csv", "jsonl", "parquet"):
        path = tmp_path / f"boiler.{ending}"
        assert read(path, Columns(()))["unique_id"].to_list() == ["boiler"]
        given = {"path": str(path), "fields": {"unique_id": ""}}
        settings = Settings.model_validate({"model": "m.onnx", "input": given})
        with closing(open_source(settings)) as source:
            source.open(Listener())
            events, rejections = open_decoder(settings, None).decode(source.poll(9, 0.0))
        assert (events.unique_ids, rejections) == (["boiler"], [])


def test_a_topic_is_never_one_stream() -> None:
    settings = Settings.model_validate({"model": "m.onnx", "input": {"fields": {"unique_id": ""}}})
    with pytest.raises(RillcastError, match="only a file may have"):
        open_decoder(settings, None)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"separator": "::"}, "expected one character"),
        ({"decimal": ","}, "separator and decimal sign are both"),
        ({"encoding": "utf-9"}, "is unknown"),
    ],
)
def test_a_form_that_no_file_has_is_refused(given: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings.model_validate({"model": "m.onnx", "input": given})
