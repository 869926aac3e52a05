"""Columns of files under any name, through the source and the decoder that the settings choose."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from rillcast.bundle.bundle import BundleMetadata
from rillcast.bundle.covariates import Covariate
from rillcast.codecs.connect import open_decoder
from rillcast.codecs.observations.rejections import Rejection
from rillcast.errors import DataError, SettingsError
from rillcast.events import EventBatch
from rillcast.settings import Settings
from rillcast.transports.connect import open_source
from tests.support.toy import ToyGraph
from tests.support.transports import Listener

DECLARED = (
    Covariate("temp", "past"),
    Covariate("promo", "known"),
    Covariate("shop", "category", categories=("mall", "web")),
)
MS = 1_714_564_800_000


def metadata(covariates: tuple[Covariate, ...] = ()) -> BundleMetadata:
    return ToyGraph().metadata().model_copy(update={"covariates": covariates})


def read(path: Path, covariates: tuple[Covariate, ...] = (), **fields: Any) -> tuple[EventBatch, list[Rejection]]:
    settings = Settings.model_validate({"model": "m.onnx", "input": {"path": str(path), "fields": fields}})
    about = metadata(covariates)
    source = open_source(settings, about.covariates)
    with closing(source):
        source.open(Listener())
        return open_decoder(settings, about).decode(source.poll(100, 0.0))


CSV = "host,at,usage.cpu\na,1714564800,1.5\nb,2024-05-01T12:00:00Z,\n"


def write(folder: Path, kind: str) -> Path:
    if kind == "csv":
        (folder / "in.csv").write_text(CSV)
        return folder / "in.csv"
    columns = {"host": ["a", "b"], "at": [MS // 1000, MS // 1000], "usage.cpu": [1.5, None]}
    pl.DataFrame(columns).write_parquet(folder / "in.parquet")
    return folder / "in.parquet"


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_date_alone_is_its_midnight(kind: str, tmp_path: Path) -> None:
    frame = pl.DataFrame({"unique_id": ["a"], "ds": ["2024-05-01"], "y": [1.0]}).with_columns(
        pl.col("ds").str.to_date()
    )
    path = tmp_path / f"in.{kind}"
    _ = frame.write_csv(path) if kind == "csv" else frame.write_parquet(path)
    events, rejections = read(path)
    assert rejections == []
    assert events.ds.tolist() == [MS - 12 * 3_600_000]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_columns_of_a_table_can_have_any_name(tmp_path: Path, kind: str) -> None:
    events, rejections = read(write(tmp_path, kind), unique_id="host", ds="at", y="usage.cpu", ds_unit="s")
    assert rejections == []
    assert (events.unique_ids, events.ds.tolist()) == (["a", "b"], [MS, MS])
    np.testing.assert_array_equal(events.y, [1.5, np.nan])


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_column_that_is_not_there_is_named(tmp_path: Path, kind: str) -> None:
    with pytest.raises(DataError, match=r"no column 'load'; found .*input.fields"):
        read(write(tmp_path, kind), unique_id="host", ds="at", y="load")


def test_a_table_has_nothing_beside_its_values(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="does not have"):
        read(write(tmp_path, "csv"), unique_id="$key", ds="at", y="usage.cpu")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_covariates_are_columns(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"in.{kind}"
    if kind == "csv":
        path.write_text(
            "unique_id,ds,y,temp,shop,promo,future.promo\n"
            f'a,{MS},1,12.5,web,1,"[0, 1]"\nb,{MS},1,nan,,0,\nc,{MS},1,1,new,1,"[0, null]"\n'
            f"d,{MS},1,warm,web,1,\ne,{MS},1,1,web,1,soon\n"
        )
    else:
        columns = {
            "unique_id": ["a", "b", "c"], "ds": [MS] * 3, "y": [1.0] * 3, "temp": [12.5, float("nan"), 1.0],
            "shop": ["web", None, "new"], "promo": [1, 0, 1], "future.promo": [[0.0, 1.0], None, [0.0, None]],
        }  # fmt: skip
        pl.DataFrame(columns).write_parquet(path)
    events, rejections = read(path, DECLARED)
    assert [rejection.row for rejection in rejections] == ([3, 4] if kind == "csv" else [])
    assert events.x is not None
    assert events.future is not None
    np.testing.assert_array_equal(events.x, [[12.5, 1, 2], [np.nan, 0, np.nan], [1, 1, 0]])
    np.testing.assert_array_equal(events.future[:, 0], [[0, 1], [np.nan] * 2, [0, np.nan]])


def test_covariates_that_a_table_lacks_are_missing(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(f"unique_id,ds,y,temp\na,{MS},1,3\n")
    events, _ = read(tmp_path / "in.csv", DECLARED)
    assert events.x is not None
    np.testing.assert_array_equal(events.x, [[3, np.nan, np.nan]])
