"""A backtest runs the exported file through the serving engine, and its figures are those of the referee."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from rillcast import cli
from rillcast_training.export.bundle import export
from rillcast_training.model.forecaster import Forecaster
from tests.support.forecasters import brief_parity
from tests.support.unrolls import LEVELS, START_MS, hourly_forecaster, some_streams, unroll, write_bundle

pytestmark = pytest.mark.usefixtures("brief_parity")

STEPS, STREAMS, HORIZON = 260, 6, 12
SEASON = 24


@pytest.fixture(scope="module")
def forecaster() -> Forecaster:
    return hourly_forecaster(horizon=HORIZON)


@pytest.fixture(scope="module")
def folder(forecaster: Forecaster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("backtest")
    write_bundle(forecaster, folder)
    ds, y = some_streams(STEPS, STREAMS)
    frame = pl.DataFrame(
        {
            "unique_id": [f"s{s}" for _ in range(STEPS) for s in range(STREAMS)],
            "ds": ds.reshape(-1),
            "y": y.reshape(-1),
        }
    ).with_columns(pl.col("ds").cast(pl.Datetime("ms")).dt.to_string("iso:strict"))
    frame.write_csv(folder / "all.csv")
    cut = STREAMS * (STEPS - 3 * HORIZON)
    frame[:cut].write_csv(folder / "train.csv")
    frame[cut:].write_csv(folder / "test.csv")
    return folder


def backtest(folder: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    forecasts = ["--forecasts", str(folder / "forecasts.parquet")]
    assert cli.main(["backtest", str(folder / "model.onnx"), *arguments, *forecasts, "--json"]) == 0
    figures: dict[str, Any] = json.loads(capsys.readouterr().out)
    return figures


def test_forecasts_at_the_origins_are_those_of_the_offline_unroll(
    folder: Path, forecaster: Forecaster, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = backtest(folder, capsys, str(folder / "test.csv"), "--train", str(folder / "train.csv"))
    assert (figures["origins"], figures["targets"]) == (3 * STREAMS, 3 * STREAMS * HORIZON)
    expected, _ = unroll(forecaster, *some_streams(STEPS, STREAMS))
    table = pl.read_parquet(folder / "forecasts.parquet")
    assert table.columns == ["unique_id", "origin", "step", "q", "value"]
    for (unique_id, origin), part in table.partition_by("unique_id", "origin", as_dict=True).items():
        t = (int(origin.timestamp() * 1000) - START_MS) // 3_600_000
        seen = part.sort("step", "q")["value"].to_numpy().reshape(HORIZON, len(LEVELS))
        np.testing.assert_allclose(seen, expected[t, int(str(unique_id)[1:])], rtol=1e-4, atol=1e-3)


def test_without_training_data_the_last_part_of_each_series_is_scored(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = backtest(folder, capsys, str(folder / "all.csv"), "--test-fraction", "0.1", "--stride", "6")
    assert figures["origins"] == STREAMS * 5  # at 26, 20, 14, 8 and 2 periods before the end
    assert figures["seasonal_naive"]["mase"] > 0
    assert figures["last_value"]["mase"] > 0
    assert (figures["season"], figures["horizon"]) == (SEASON, HORIZON)
    assert figures["learnt_from"] is None, "the metadata name no training data"


@pytest.mark.parametrize("kind", ["sum", "count", "last"])
def test_raw_events_are_scored_as_the_service_and_polars_aggregate_them(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    """Each hour is three events in disorder; an hour of each day has none."""
    hours = pl.read_csv(folder / "all.csv", try_parse_dates=True).with_columns(pl.col("y").round(2))
    parts = [
        hours.with_columns(pl.col("ds") + pl.duration(minutes=at), pl.col("y") * share)
        for at, share in ((50, 0.25), (5, 0.5), (20, 0.25))
    ]
    raw = pl.concat(parts).filter(pl.col("ds").dt.hour() != 3)
    raw.write_csv(tmp_path / "raw.csv")
    value = {"sum": pl.col("y").sum(), "count": pl.len().alias("y"), "last": pl.col("y").last()}[kind]
    grouped = raw.sort("ds").group_by_dynamic("ds", every="1h", group_by="unique_id").agg(value)
    every = pl.DataFrame({"ds": grouped["ds"].unique().sort().to_frame().upsample("ds", every="1h")["ds"]})
    whole = grouped.select("unique_id").unique().join(every, how="cross").join(grouped, ["unique_id", "ds"], "left")
    if kind != "last":
        whole = whole.with_columns(pl.col("y").fill_null(0))
    whole.sort("ds").write_csv(tmp_path / "hours.csv")
    flags = ["--aggregate", kind, "--close", "partition"]
    own = backtest(folder, capsys, str(tmp_path / "raw.csv"), *flags)
    forecasts = pl.read_parquet(folder / "forecasts.parquet")
    offline = backtest(folder, capsys, str(tmp_path / "hours.csv"))
    assert own | {"engine_seconds": 0} == offline | {"engine_seconds": 0}
    by = ["unique_id", "origin", "step", "q"]
    assert forecasts.sort(by).equals(pl.read_parquet(folder / "forecasts.parquet").sort(by))
    assert cli.main(["backtest", str(folder / "model.onnx"), str(tmp_path / "raw.csv"), "--close", "stream"]) == 2
    assert "--close: only with --aggregate" in capsys.readouterr().err


def test_fewer_steps_are_the_first_ones(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = (str(folder / "test.csv"), "--train", str(folder / "train.csv"))
    whole = backtest(folder, capsys, *data, "--stride", "12")
    figures = backtest(folder, capsys, *data, "--stride", "12", "--steps", "3")
    assert figures["targets"] == 3 * STREAMS * 3
    assert [one["step"] for one in figures["steps"]] == [1, 2, 3]
    assert figures["steps"] == whole["steps"][:3]
    assert pl.read_parquet(folder / "forecasts.parquet")["step"].max() == 3
    assert cli.main(["backtest", str(folder / "model.onnx"), *data, "--steps", "13"]) == 2
    assert "expected 1 to 12" in capsys.readouterr().err


def test_what_is_left_out_is_said(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = pl.read_csv(folder / "all.csv")
    hour = pl.int_range(pl.len()).over("unique_id")
    first = STEPS - 3 * HORIZON - 1  # the first origin of every series
    frame = frame.with_columns(hour=hour).filter(
        ~((pl.col("unique_id") == "s0") & (pl.col("hour") == first + HORIZON)),  # no event at its second origin
        ~((pl.col("unique_id") == "s1") & (pl.col("hour") > first)),  # ends at its first origin
        ~((pl.col("unique_id") == "s2") & (pl.col("hour") > first) & (pl.col("hour") <= first + HORIZON)),  # a hole
    )
    frame.drop("hour").write_csv(tmp_path / "all.csv")
    frame.filter(pl.col("hour") <= first).drop("hour").write_csv(tmp_path / "train.csv")
    frame.filter(pl.col("hour") > first).drop("hour").write_csv(tmp_path / "test.csv")
    data = (str(tmp_path / "test.csv"), "--train", str(tmp_path / "train.csv"))
    figures = backtest(folder, capsys, *data)
    assert figures["part"] == {
        "series": STREAMS,
        "series_scored": STREAMS - 1,
        "series_that_end": 1,
        "series_without_origin": 0,
        "origins_scored": 3 * STREAMS - 4,
        "origins_without_event": 0,
        "origins_without_observation": 1,
    }
    assert cli.main(["backtest", str(folder / "model.onnx"), *data]) == 0
    printed = capsys.readouterr().out
    assert "scored: 5 of 6 series, 14 origins\n" in printed
    assert (
        "left out: 1 series without an observation after their first origin; 1 origins without an observation within "
        "reach\n"
    ) in printed
    assert "last value" in printed
    assert f"in units of the mean change over a season of {SEASON} periods before the first origin)" in printed


def test_a_bundle_that_has_learnt_what_it_is_scored_on_is_told(
    folder: Path, forecaster: Forecaster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = START_MS + (STEPS - 3 * HORIZON - 1) * 3_600_000
    model, data = tmp_path / "trained.onnx", (str(folder / "test.csv"), "--train", str(folder / "train.csv"))
    for until, seen in ((first, 0), (first + 1, STREAMS), (first + 13 * 3_600_000, 2 * STREAMS)):
        moment = np.datetime_as_string(np.datetime64(until, "ms"), timezone="UTC")
        with brief_parity():
            export(forecaster, model, name="trained", training={"data": "past.csv", "last_ds": str(moment)})
        assert cli.main(["backtest", str(model), *data, "--json"]) == 0
        captured = capsys.readouterr()
        found = json.loads(captured.out)["learnt_from"]
        warned = f"trained on past.csv, up to {moment}, and {seen} of {3 * STREAMS} origins lie before that"
        assert (warned in captured.err) == (seen > 0)
        assert (found or {"origins": 0})["origins"] == seen
    with brief_parity():
        export(
            forecaster, model, name="made", training={"data": "20 synthetic series", "last_ds": "2199-01-01T00:00:00Z"}
        )
    assert cli.main(["backtest", str(model), *data]) == 0
    assert "trained on" not in capsys.readouterr().err


def test_the_breakdowns_are_in_the_json_and_fit_together(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = backtest(folder, capsys, str(folder / "test.csv"), "--train", str(folder / "train.csv"))
    assert [point["level"] for point in figures["calibration"]] == list(LEVELS)
    assert figures["intervals"][0]["coverage"] == pytest.approx(figures["coverage"])
    assert [step["step"] for step in figures["steps"]] == list(range(1, HORIZON + 1))
    assert np.mean([step["coverage"] for step in figures["steps"]]) == pytest.approx(figures["coverage"])
    skill = figures["skill"]["seasonal_naive"]["mase"]
    assert skill["skill"] == pytest.approx(1 - figures["mase"] / figures["seasonal_naive"]["mase"])
    assert skill["low"] <= skill["skill"] <= skill["high"]


def test_calibration_off_gives_the_forecasts_of_the_network_alone(
    folder: Path, forecaster: Forecaster, capsys: pytest.CaptureFixture[str]
) -> None:
    data = (str(folder / "test.csv"), "--train", str(folder / "train.csv"))
    backtest(folder, capsys, *data, "--calibration", "off")
    off = pl.read_parquet(folder / "forecasts.parquet")["value"].to_numpy()
    backtest(folder, capsys, *data)
    assert (pl.read_parquet(folder / "forecasts.parquet")["value"].to_numpy() != off).any()
    ds, y = some_streams(STEPS, STREAMS)
    rows = forecaster.initial_rows(STREAMS)
    for t in range(STEPS - 3 * HORIZON):
        with torch.no_grad():
            outputs, rows = forecaster.step(torch.from_numpy(ds[t]), torch.from_numpy(y[t]), rows, 0.0)
    expected = outputs.forecast.numpy()[0].reshape(-1)
    np.testing.assert_allclose(off[: expected.size], expected, rtol=1e-4, atol=1e-3)


def test_a_report_is_one_file_that_refers_to_nothing_outside(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = folder / "report.html"
    backtest(folder, capsys, str(folder / "test.csv"), "--train", str(folder / "train.csv"), "--report", str(report))
    text = report.read_text()
    assert text.count("<svg") == 4 + STREAMS
    assert "seasonal naive" in text
    references = re.findall(r"""(?:src|href)\s*=\s*["']?(?!#)([^"'\s>]+)""", text)
    assert references == []
    assert "<script" not in text
    assert "@import" not in text


def test_a_baseline_that_statsforecast_does_not_have_is_refused_before_anything_runs(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("statsforecast")
    model, data = str(folder / "model.onnx"), str(folder / "all.csv")
    assert cli.main(["backtest", model, data, "--baseline", "Prophet"]) == 2
    assert "AutoETS" in capsys.readouterr().err


def test_a_baseline_without_statsforecast_says_what_to_install(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "statsforecast", None)
    model, data = str(folder / "model.onnx"), str(folder / "all.csv")
    assert cli.main(["backtest", model, data, "--baseline", "AutoETS"]) == 2
    assert "rillcast[baselines]" in capsys.readouterr().err


def test_a_baseline_forecasts_at_the_same_origins(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("statsforecast")
    data = (str(folder / "test.csv"), "--train", str(folder / "train.csv"))
    figures = backtest(folder, capsys, *data, "--baseline", "SeasonalNaive")
    found = figures["baselines"]["SeasonalNaive"]
    assert found["targets"] == figures["targets"]
    # its points are those of our own seasonal naive; its intervals are made otherwise
    assert found["mase"] == pytest.approx(figures["seasonal_naive"]["mase"], rel=1e-4)
    assert "SeasonalNaive" in figures["skill"]


@pytest.mark.parametrize("baseline", ["WindowAverage:window_size=24", "CrostonClassic", "Naive"])
def test_a_baseline_needs_neither_a_season_nor_intervals(
    baseline: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("statsforecast")
    data = (str(folder / "test.csv"), "--train", str(folder / "train.csv"), "--steps", "6")
    found = backtest(folder, capsys, *data, "--baseline", baseline)
    own = found["baselines"][baseline]
    assert own["targets"] == found["targets"]
    assert 0.2 < own["coverage"] <= 1
    if baseline == "Naive":
        assert own["mase"] == pytest.approx(found["last_value"]["mase"], rel=1e-4)


@pytest.mark.parametrize(
    ("baseline", "message"),
    [
        ("WindowAverage", "it needs window_size=..."),
        ("AutoETS:speed=3", "with arguments of season_length, "),
        ("Naive:alias", "expected Naive or Naive:ARGUMENT=VALUE"),
    ],
)
def test_a_baseline_with_other_arguments_is_refused(
    baseline: str, message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("statsforecast")
    assert cli.main(["backtest", str(folder / "model.onnx"), str(folder / "all.csv"), "--baseline", baseline]) == 2
    assert message in capsys.readouterr().err


def scored_by_hand(forecasts: pl.DataFrame, actuals: pl.DataFrame) -> dict[str, float]:
    """Score target by target, from the definitions: nothing here is shared with the code under test.

    MASE of Hyndman & Koehler (2006) and sMAPE of M4, both as means over series. A series' scale is its seasonal-naive
    error up to its first origin.
    """
    hour_ms = 3_600_000
    actual = {(unique_id, int(np.datetime64(ds, "ms").astype(np.int64))): y for unique_id, ds, y in actuals.iter_rows()}
    medians = forecasts.filter(pl.col("q") == 0.5).with_columns(pl.col("origin").dt.epoch("ms"))
    mase, smape = [], []
    for unique_id in medians["unique_id"].unique():
        own = medians.filter(pl.col("unique_id") == unique_id)
        first = min(own["origin"].to_list())
        naive = [
            abs(y - actual[name, at - SEASON * hour_ms])
            for (name, at), y in actual.items()
            if name == unique_id and at <= first and (name, at - SEASON * hour_ms) in actual
        ]
        errors, relative = [], []
        for origin, step, value in own.select("origin", "step", "value").iter_rows():
            y = actual[unique_id, origin + step * hour_ms]
            errors.append(abs(y - value))
            relative.append(200 * abs(y - value) / (abs(y) + abs(value)))
        mase.append(np.mean(errors) / np.mean(naive))
        smape.append(np.mean(relative))
    return {"mase": float(np.mean(mase)), "smape": float(np.mean(smape))}


def test_figures_are_those_of_their_definitions(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = backtest(folder, capsys, str(folder / "test.csv"), "--train", str(folder / "train.csv"))
    expected = scored_by_hand(pl.read_parquet(folder / "forecasts.parquet"), pl.read_csv(folder / "all.csv"))
    assert {name: figures[name] for name in expected} == pytest.approx(expected, abs=1e-5)


def test_data_that_does_not_follow_the_training_data_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "before.csv").write_text("unique_id,ds,y\ns0,2020-01-01T00:00:00,1\n")
    model, train = str(folder / "model.onnx"), str(folder / "train.csv")
    assert cli.main(["backtest", model, str(folder / "before.csv"), "--train", train]) == 2
    assert "no origin" in capsys.readouterr().err
