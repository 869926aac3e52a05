"""A backtest runs the exported file through the serving engine, and its figures are those of the referee."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from pipeline import cli
from tests.support.unrolls import LEVELS, START_MS, hourly_forecaster, some_streams, unroll, write_bundle
from training.forecaster import Forecaster

STEPS, STREAMS, HORIZON = 260, 6, 12
REFEREE = Path(__file__).parents[3] / "shared" / "data" / "score.py"


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
    assert figures["origins"] == STREAMS * 5  # at 26, 20, 14, 8 and 2 slots before the end
    assert figures["seasonal_naive"]["mase"] > 0


@pytest.mark.skipif(not REFEREE.exists(), reason="the referee's score.py is not on this machine")
def test_figures_are_those_of_the_referee(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the nine deciles the referee knows; it takes 'train' to end at the first origin, as we do."""
    spec = importlib.util.spec_from_file_location("score", REFEREE)
    assert spec is not None
    assert spec.loader is not None
    referee = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(referee)
    figures = backtest(folder, capsys, str(folder / "test.csv"), "--train", str(folder / "train.csv"))
    pl.read_parquet(folder / "forecasts.parquet").write_csv(folder / "forecasts.csv")
    scored, _ = referee.score(str(folder / "forecasts.csv"), [str(folder / "all.csv")], season=24, freq="1h")
    assert figures["mase"] == pytest.approx(scored["MASE"], abs=1e-5)
    assert figures["smape"] == pytest.approx(scored["sMAPE"], abs=1e-5)


def test_data_that_does_not_follow_the_training_data_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "before.csv").write_text("unique_id,ds,y\ns0,2020-01-01T00:00:00,1\n")
    model, train = str(folder / "model.onnx"), str(folder / "train.csv")
    assert cli.main(["backtest", model, str(folder / "before.csv"), "--train", train]) == 2
    assert "no origin" in capsys.readouterr().err
