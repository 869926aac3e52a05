"""Tables with several columns of ids or observations, and rows that are left out."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from rillcast.codecs.connect import open_decoder
from rillcast.errors import DataError, SettingsError
from rillcast.settings import Settings
from rillcast.transports.connect import open_source
from rillcast_training.data import tables
from rillcast_training.data.columns import Columns
from tests.support.toy import ToyGraph
from tests.support.transports import Listener

MS = 1_714_564_800_000
FRAME = pl.DataFrame(
    {
        "shop": ["a/b", "a", "c", "d"],
        "part": ["x", "b/x", "y\\", "z"],
        "at": [MS, MS + 1, MS + 2, MS + 3],
        "cpu": [1.5, 2.0, None, 4.0],
        "Temp, C": [10, 20, 30, 40],
        "kind": ["k", "k", "k", "other"],
    }
)
FIELDS = {"unique_id": "shop,part", "ds": "at", "y": r"cpu,Temp\, C"}


def written(folder: Path, kind: str, frame: pl.DataFrame = FRAME) -> Path:
    path = folder / f"in.{kind}"
    _ = frame.write_csv(path) if kind == "csv" else frame.write_parquet(path)
    return path


def moment(ds: Any) -> int:
    return ds if isinstance(ds, int) else int(np.datetime64(ds, "ms").astype(np.int64))


def read(path: Path, only: str | None = None, most: int = 100, **fields: str) -> tuple[list[Any], list[Any], int]:
    """Return the events, the rejections and how many rows were left out, by polls of at most `most` records."""
    given = {"path": str(path), "fields": FIELDS | fields, "max_future_s": 0, "only": only}
    settings = Settings.model_validate({"model": "m.onnx", "input": given})
    found: list[Any] = []
    refused: list[Any] = []
    left_out = 0
    source, decoder = open_source(settings), open_decoder(settings, ToyGraph().metadata())
    with closing(source):
        source.open(Listener())
        position = 0
        while not source.exhausted:
            polled = source.poll(most, 0.0)
            assert len(polled) <= most
            assert polled.offsets.tolist() == list(range(position, position + len(polled)))
            position += len(polled)
            events, rejections = decoder.decode(polled)
            found += zip(events.unique_ids, events.ds.tolist(), events.y.tolist(), strict=True)
            refused += [(rejection.reason.value, rejection.detail) for rejection in rejections]
            left_out += polled.left_out
    return found, refused, left_out


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("most", [1, 3, 100])
def test_a_row_is_an_event_of_each_column_by_the_ids_of_training(kind: str, most: int, tmp_path: Path) -> None:
    path = written(tmp_path, kind)
    found, refused, left_out = read(path, most=most)
    assert (refused, left_out) == ([], 0)
    assert [unique_id for unique_id, *_ in found[:4]] == [
        r"a\/b/x/cpu", r"a\/b/x/Temp, C", r"a/b\/x/cpu", r"a/b\/x/Temp, C",
    ]  # fmt: skip
    trained = tables.read(path, Columns(("shop", "part"), "at", ("cpu", "Temp, C")))
    expected = {(row["unique_id"], moment(row["ds"])): row["y"] for row in trained.to_dicts()}
    assert {(unique_id, ds) for unique_id, ds, _ in found} == set(expected)
    for unique_id, ds, y in found:
        y_trained = expected[unique_id, ds]
        np.testing.assert_equal(y, np.nan if y_trained is None else y_trained)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("most", [1, 100])
def test_rows_that_are_not_asked_for_are_counted(kind: str, most: int, tmp_path: Path) -> None:
    found, refused, left_out = read(written(tmp_path, kind), only="kind=other|none", most=most, y="cpu")
    assert ([unique_id for unique_id, *_ in found], refused, left_out) == (["d/z"], [], 3)
    found, _, left_out = read(written(tmp_path, kind), only="kind=none", most=most)
    assert (found, left_out) == ([], 4)


def test_a_table_without_ids_has_a_stream_for_each_column(tmp_path: Path) -> None:
    path = written(tmp_path, "csv")
    found, _, _ = read(path, unique_id="")
    assert {unique_id for unique_id, *_ in found} == {"cpu", "Temp, C"}
    found, _, _ = read(path, unique_id="", y="cpu", only="kind=k")
    assert {unique_id for unique_id, *_ in found} == {"in"}


def test_a_bad_cell_costs_its_own_event_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text(f"shop,part,at,cpu,mem\na,b,{MS},high,2\na,b,{MS},1,3,4\na,,{MS},1,2\na,b,{MS},1,2\n")
    found, refused, _ = read(path, y="cpu,mem")
    assert [unique_id for unique_id, *_ in found] == ["a/b/mem", "a/b/cpu", "a/b/mem"]
    assert [reason for reason, _ in refused] == ["wrong_type", "wrong_type", "bad_id"]
    assert [detail.split(":")[0] for _, detail in refused] == ["line 2", "line 3", "line 4"]
    assert "column 'cpu'" in refused[0][1]
    assert "column 'part'" in refused[2][1]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_column_that_is_absent_is_named(kind: str, tmp_path: Path) -> None:
    changes: list[dict[str, Any]] = [{"y": "cpu,disk"}, {"unique_id": "shop,disk"}, {"only": "disk=1"}]
    for changed in changes:
        with pytest.raises(DataError, match="no column 'disk'"):
            read(written(tmp_path, kind), **changed)
    with pytest.raises(SettingsError, match="empty or twice"):
        read(written(tmp_path, kind), y="cpu,cpu")
