"""Tables of any column names to `unique_id, ds, y`."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from rillcast.errors import DataError
from rillcast.reading.values import join_ids
from rillcast_training.data.columns import Columns
from rillcast_training.data.tables import read


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_columns_of_other_names_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "d.csv", "when,shop,sold,note\n2024-01-01,north,3,x\n2024-01-02,north,,y\n")
    frame = read(path, Columns(("shop",), "when", ("sold",)))
    assert frame["unique_id"].to_list() == ["north", "north"]
    assert frame["ds"].to_list() == [1_704_067_200_000, 1_704_153_600_000]
    assert frame["y"].fill_nan(None).to_list() == [3.0, None]


def test_several_columns_name_a_stream_together(tmp_path: Path) -> None:
    path = write(tmp_path / "d.csv", "shop,item,ds,y\nnorth,7,0,1\nnorth,8,0,2\n")
    assert read(path, Columns(("shop", "item")))["unique_id"].to_list() == ["north/7", "north/8"]


def test_different_parts_of_a_name_are_different_streams(tmp_path: Path) -> None:
    path = write(tmp_path / "d.csv", "region,shop,ds,y,z\na/b,c,0,1,3\na,b/c,0,2,4\n")
    assert read(path, Columns(("region", "shop")))["unique_id"].to_list() == ["a\\/b/c", "a/b\\/c"]
    assert read(path, Columns(("region",), y=("y", "z")))["unique_id"].to_list() == ["a\\/b/y", "a/y", "a\\/b/z", "a/z"]
    assert join_ids(["a/b", "c"]) == "a\\/b/c"


def test_a_table_without_names_is_one_stream_called_like_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "boiler.csv", "ds,y\n0,1\n1,2\n")
    assert read(path, Columns(()))["unique_id"].unique().to_list() == ["boiler"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("d.csv", 'ds,y,promo,future.promo\n0,1,0,"[1, null]"\n1,2,1,\n'),
        (
            "d.jsonl",
            '{"ds":0,"y":1,"promo":0,"future.promo":[1,null]}\n{"ds":1,"y":2,"promo":1,"future.promo":null}\n',
        ),
    ],
)
def test_a_column_may_hold_values_of_the_next_periods(tmp_path: Path, name: str, text: str) -> None:
    columns = Columns((), numbers=("promo",), ahead=("promo",))
    assert read(write(tmp_path / name, text), columns)["future.promo"].to_list() == [[1.0, None], None]


def test_a_column_of_the_next_periods_that_is_no_list_is_refused(tmp_path: Path) -> None:
    columns = Columns((), numbers=("promo",), ahead=("promo",))
    with pytest.raises(DataError, match=r"'future.promo', row 2 \(line 3\): found '\[a\]', expected a list of numbers"):
        read(write(tmp_path / "d.csv", "ds,y,promo,future.promo\n0,1,0,[1]\n1,2,1,[a]\n"), columns)
    pl.DataFrame({"ds": [0], "y": [1.0], "promo": [0.0], "future.promo": [True]}).write_parquet(tmp_path / "d.parquet")
    with pytest.raises(DataError, match=r"row 1: found True \(bool\), expected a list of numbers"):
        read(tmp_path / "d.parquet", columns)


def test_several_value_columns_are_a_stream_each(tmp_path: Path) -> None:
    path = write(tmp_path / "d.csv", "date,HUFL,OT\n2016-07-01,5.8,30.5\n2016-07-02,5.6,27.7\n")
    frame = read(path, Columns((), "date", ("HUFL", "OT")))
    found = {name: part["y"].to_list() for (name,), part in frame.partition_by("unique_id", as_dict=True).items()}
    assert found == {"HUFL": [5.8, 5.6], "OT": [30.5, 27.7]}


def test_several_value_columns_of_named_streams_come_last_in_the_name(tmp_path: Path) -> None:
    path = tmp_path / "d.parquet"
    pl.DataFrame({"host": ["a", "b"], "ds": [0, 0], "cpu": [0.5, 0.25], "mem": [7, None]}).write_parquet(path)
    frame = read(path, Columns(("host",), "ds", ("cpu", "mem")))
    assert sorted(frame["unique_id"]) == ["a/cpu", "a/mem", "b/cpu", "b/mem"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (Columns(("shop",)), r"no column 'shop'; found \['unique_id', 'ds', 'y'\].*--id-column"),
        (Columns(ds="when"), "no column 'when'"),
        (Columns(y=("y", "z")), "no column 'z'"),
        (Columns(y=("unique_id",)), r"column 'unique_id', row 1 \(line 2\): found 'a', expected a number"),
    ],
)
def test_a_column_that_is_not_there_or_fits_not_is_named(columns: Columns, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "d.csv", "unique_id,ds,y\na,0,1\n")
    with pytest.raises(DataError, match=message):
        read(path, columns)


def test_an_empty_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "d.parquet"
    pl.DataFrame({"unique_id": ["a", ""], "ds": [0, 0], "y": [1.0, 2.0]}).write_parquet(path)
    with pytest.raises(DataError, match=r"'unique_id', row 2: found '', expected a stream's name"):
        read(path)
