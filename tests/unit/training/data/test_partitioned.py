from __future__ import annotations

import mmap
import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from rillcast.errors import DataError, OutputError
from rillcast_training.data import partitioned, series
from rillcast_training.data.columns import Columns
from rillcast_training.data.scratch import Scratch
from rillcast_training.data.split import split
from tests.support.forecasters import small_config

FREQ = "1h"
ROWS = 97  # several parts of a file, and several of whole streams
START = 1_704_067_200_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five streams over three files, not in the order of time; one value is missing, one row comes twice."""
    rng = np.random.default_rng(2)
    rows = [(f"s{n}", START + hour * 3_600_000, rng.normal()) for hour in range(150) for n in range(5)]
    rows[40] = (*rows[40][:2], float("nan"))
    rows.append(rows[7])
    frame = pl.DataFrame(rows, ["unique_id", "ds", "y"], orient="row").sample(fraction=1, shuffle=True, seed=1)
    (parts := tmp_path / "table" / "year=2024").mkdir(parents=True)
    for number in range(3):
        frame[number * 251 : (number + 1) * 251].write_parquet(parts / f"part-{number}.parquet")
    return tmp_path / "table"


def on_disk(values: object) -> bool:
    while isinstance(values, np.ndarray):
        values = values.base
    return isinstance(values, mmap.mmap)


def test_series_and_segments_are_those_of_memory_and_lie_on_the_disk(folder: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole.parquet"
    pl.concat([pl.read_parquet(path) for path in sorted(folder.rglob("*.parquet"))]).write_parquet(whole)
    scratch, config = Scratch(tmp_path), small_config()
    found = partitioned.load(folder, FREQ, None, scratch, rows=ROWS)
    expected = series.load(whole, FREQ)
    assert [one.unique_id for one in found] == [one.unique_id for one in expected] == [f"s{n}" for n in range(5)]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.periods, other.periods)
        np.testing.assert_array_equal(one.y, other.y)
        assert on_disk(one.periods)
        assert on_disk(one.y)
    for part, same in zip(split(found, config, 0.1, scratch=scratch), split(expected, config, 0.1), strict=True):
        assert (part.cut, part.scale, part.weight) == (same.cut, same.scale, same.weight)
        for segment, of_memory in zip(part.segments, same.segments, strict=True):
            for name in ("rows", "periods", "observed", "known", "grid", "truth"):
                np.testing.assert_array_equal(getattr(segment, name), getattr(of_memory, name), err_msg=name)
                assert on_disk(getattr(segment, name)), name
    assert {path.name for path in tmp_path.iterdir()} == {"table", "whole.parquet"}, "files have no name"


def test_one_file_with_columns_of_other_names_is_read_too(tmp_path: Path) -> None:
    times = [START + n * 3_600_000 for n in range(30)]
    frame = pl.DataFrame({"shop": ["a", "b"] * 15, "at": times, "sold": [1.0] * 30, "back": [2] * 30})
    frame.write_parquet(tmp_path / "wide.parquet")
    columns = Columns(("shop",), "at", ("sold", "back"))
    found = partitioned.load(tmp_path / "wide.parquet", FREQ, columns, Scratch(tmp_path), rows=7)
    assert {one.unique_id: set(one.y.tolist()) for one in found} == {
        "a/sold": {1.0}, "a/back": {2.0}, "b/sold": {1.0}, "b/back": {2.0},
    }  # fmt: skip


def test_a_fault_is_named_with_its_file_and_row(folder: Path, tmp_path: Path) -> None:
    bad = sorted(folder.rglob("*.parquet"))[1]
    frame = pl.read_parquet(bad)
    frame[200, "y"] = 1e30
    frame.write_parquet(bad)
    with pytest.raises(DataError, match=r"part-1\.parquet: column 'y', row 201: found 1e\+?30"):
        partitioned.load(folder, FREQ, None, Scratch(tmp_path), rows=ROWS)
    frame.rename({"y": "value"}).write_parquet(bad)
    with pytest.raises(DataError, match=r"part-1\.parquet: .*'y'"):
        partitioned.load(folder, FREQ, None, Scratch(tmp_path), rows=ROWS)
    bad.write_bytes(b"no parquet")
    with pytest.raises(DataError, match=r"part-1\.parquet: not readable as \.parquet"):
        partitioned.load(folder, FREQ, None, Scratch(tmp_path), rows=ROWS)


def test_other_tables_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no file in this folder ends with \.parquet"):
        partitioned.load(tmp_path / "empty", FREQ, None, Scratch(tmp_path))
    with pytest.raises(DataError, match=r"--scratch takes Parquet, one file or a folder of them"):
        partitioned.load(tmp_path / "table.csv", FREQ, None, Scratch(tmp_path))
    with pytest.raises(DataError, match=r"empty: a folder; only `rillcast train` with --scratch takes a folder"):
        series.load(tmp_path / "empty", FREQ)


def test_a_disk_that_cannot_be_written_is_named(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OutputError, match=r"--scratch .*missing: No such file or directory"):
        Scratch(tmp_path / "missing").keep(np.zeros(3))

    def full(*_arguments: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OutputError, match=r"--scratch .*: No space left on device; name a folder on a disk"):
        partitioned.load(folder, FREQ, None, Scratch(tmp_path), rows=ROWS)


def test_an_array_larger_than_a_file_has_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rillcast_training.data.scratch._FILE_BYTES", 64)
    scratch = Scratch(tmp_path)
    arrays = [np.arange(n, dtype=np.int64) * n for n in (0, 3, 1, 5, 40, 2)]
    for kept, array in zip([scratch.keep(one) for one in arrays], arrays, strict=True):
        np.testing.assert_array_equal(kept, array)
        assert not array.size or not kept.flags.writeable
