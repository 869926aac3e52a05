"""The input topic as a table: what training sees of it is what serving would have seen."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from rillcast.bundle.covariates import Kind
from rillcast.bundle.frequency import parse
from rillcast.cli import topic_table
from rillcast.cli.commands import train
from rillcast.codecs.connect import open_decoder
from rillcast.errors import SettingsError
from rillcast.settings import Settings
from rillcast_training.data.columns import Aggregate, Columns
from rillcast_training.data.covariates import declare
from rillcast_training.data.series import table, to_series
from tests.support.covariates import EVERY_KIND
from tests.support.hostile import polled
from tests.support.memory import Log, MemorySource

HOUR_MS, START, HORIZON = 3_600_000, 475_000, 3
WANTED: tuple[tuple[str, Kind], ...] = tuple((one.name, one.kind) for one in EVERY_KIND)
ODD: tuple[dict[str, Any], ...] = (
    {"x": {"temp": 1.5, "promo": 1, "shop": "mall", "price": 99, "size": 4}, "future": {"promo": [0, 1, 0]}},
    {"x": {"temp": None, "shop": "pier"}, "future": {"promo": [None, 1], "price": [98, 97, 96, 95]}},
    {"x": {"temp": 1e16, "shop": "mall", "size": 4, "moon": "full"}, "future": {"price": []}},
    {"x": {"promo": 0.1, "shop": 7}},
    {"x": None, "future": None},
    {},
)


def values() -> list[bytes]:
    """Return two streams whose events bring their covariates in every odd way, and garbage between them."""
    events = [
        {"unique_id": name, "ds": (START + slot) * HOUR_MS, "y": float(slot)} | odd
        for slot, odd in enumerate(ODD)
        for name in ("a", "b")
    ]
    bad = [{"unique_id": "a", "ds": 0, "x": {"temp": "warm"}}, {"unique_id": "a"}]
    return [json.dumps(one).encode() for one in (*events[:5], *bad, *events[5:])]


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    """The settings of a topic with these values."""
    log = Log({0: [(None, value) for value in values()]})
    monkeypatch.setattr("rillcast.transports.connect.open_source", lambda _settings: MemorySource(log))
    (tmp_path / "streams.csv").write_text("unique_id,shop,size\nb,corner,4\n")
    return Settings.model_validate({"input": {"topic": "t", "streams_path": tmp_path / "streams.csv"}})


def test_training_sees_the_covariates_that_serving_would_have_seen(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    taken = topic_table.write(settings, path, covariates=WANTED, horizon=HORIZON)
    assert (taken.events, taken.refused) == (12, {"wrong_type": 1, "missing_field": 1})
    frame = table(path, covariates=WANTED)
    declared = declare(frame, WANTED, "the topic")
    assert declared[2].categories == ("7", "corner", "mall", "pier")

    class Metadata:
        covariates, horizon, frequency = declared, HORIZON, parse("1h")

    served, _ = open_decoder(settings, Metadata()).decode(polled(values()))  # type: ignore[arg-type]  # all it reads
    assert served.x is not None
    assert served.future is not None
    for series in to_series(frame, "1h", declared):
        its = np.array(served.unique_ids) == series.unique_id
        assert series.covariates is not None
        np.testing.assert_array_equal(series.covariates.x, served.x[its])
        np.testing.assert_array_equal(series.covariates.future(slice(None), HORIZON), served.future[its])
    assert np.isfinite(served.future).any()
    assert np.isnan(served.x).any()


def test_without_covariates_the_table_has_none(settings: Settings, tmp_path: Path) -> None:
    plain = settings.model_copy(update={"input": settings.input.model_copy(update={"streams_path": None})})
    topic_table.write(plain, tmp_path / "table.parquet")
    assert pl.read_parquet(tmp_path / "table.parquet").columns == ["unique_id", "ds", "y"]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ([("y", "past")], "covariate 'y': the table has its own columns"),
        ([("temp", "past"), ("temp", "known")], "covariate names repeat"),
    ],
)
def test_covariates_that_cannot_be_columns_are_refused(
    settings: Settings, tmp_path: Path, wanted: list[tuple[str, Kind]], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        topic_table.write(settings, tmp_path / "table.parquet", covariates=wanted, horizon=HORIZON)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("", Columns(aggregate=Aggregate("sum", "partition", "auto", 7))),
        ("--aggregate count", Columns(y=(), aggregate=Aggregate("count"))),
        ("--aggregate none", None),
    ],
)
def test_events_of_a_topic_are_aggregated_as_the_flags_or_the_settings_say(
    flags: str, expected: Columns | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, seen = tmp_path / "rillcast.toml", list[Settings]()
    config.write_text('[input]\naggregate = "sum"\nclose = "partition"\nsilent_after = 7\n')

    def write(settings: Settings, *_: object) -> topic_table.Taken:
        seen.append(settings)
        return topic_table.Taken("observations", 1, Counter(), "")

    monkeypatch.setattr(topic_table, "write", write)
    parser = argparse.ArgumentParser()
    train.configure(parser)
    out = tmp_path / "m.onnx"
    args = parser.parse_args(f"--from-topic --config {config} {flags} --freq 1h --horizon 2 --out {out}".split())
    path, columns = train._data(args, {"freq": "1h", "horizon": 2, "out": out}, None)
    assert (path, columns) == (tmp_path / "m.onnx.parquet", expected)
    assert seen[0].input.aggregate == (flags.split()[-1] if flags else "sum")
