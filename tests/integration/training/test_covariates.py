"""From columns of a table to better forecasts: covariates in training, in a backtest, and in an explanation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from rillcast import cli
from rillcast.bundle.bundle import Bundle
from rillcast.bundle.covariates import Covariate, Kind
from rillcast.engine.device import Device
from rillcast.engine.step_engine import StepEngine
from rillcast.errors import DataError
from rillcast.events import EventBatch
from rillcast.transports.base import Channel
from rillcast_training.data.covariates import declare, of_series
from rillcast_training.data.series import Series, load, segments, table
from rillcast_training.data.windows import Window, collate
from rillcast_training.evaluate.backtest import backtest
from rillcast_training.explain.forecast import Target, explain
from rillcast_training.explain.history import find, history_of
from rillcast_training.export.bundle import export
from rillcast_training.export.restore import restore
from rillcast_training.fit.options import TrainOptions
from rillcast_training.fit.training import train
from tests.support.covariates import EVERY_KIND, config_with
from tests.support.forecasters import brief_parity, random_forecaster
from tests.support.memory import Log, MemorySink

DAY_MS = 86_400_000
DAYS = 220
HELD_BACK = 40


def shop_sales(folder: Path, streams: int = 24) -> tuple[Path, Path]:
    """Write sales that a promotion, known a week ahead, doubles, in shops, some of which ignore it."""
    rng = np.random.default_rng(7)
    days = np.arange(DAYS)
    rows = []
    for number in range(streams):
        promo = (rng.random(DAYS) < 0.2).astype(float)
        kind = ("corner", "mall")[number % 2]
        lift = 40.0 if kind == "mall" else 5.0
        week = 10 * np.sin(2 * np.pi * (days + number) / 7)
        sales = 100 + week + lift * promo + 2 * rng.normal(size=DAYS)
        rows += [
            {"unique_id": f"shop-{number}", "ds": (19_700 + day) * DAY_MS, "y": y, "promo": p, "kind": kind}
            for day, y, p in zip(days.tolist(), sales.tolist(), promo.tolist(), strict=True)
        ]
    frame = pl.DataFrame(rows)
    cut = (19_700 + DAYS - HELD_BACK) * DAY_MS
    paths = folder / "train.parquet", folder / "test.parquet"
    # What is known ahead is known at the end of the training part too: rows without sales.
    early = frame.with_columns(pl.when(pl.col("ds") < cut).then(pl.col("y")).alias("y"))
    early.filter(pl.col("ds") < cut + 7 * DAY_MS).write_parquet(paths[0])
    frame.filter(pl.col("ds") >= cut).write_parquet(paths[1])
    return paths


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shops")
    shop_sales(folder)
    return folder


def fitted(folder: Path, name: str, covariates: tuple[tuple[str, Kind], ...]) -> Path:
    """Train a small model on the shops."""
    out = folder / f"{name}.onnx"
    options = TrainOptions(
        data=folder / "train.parquet", covariates=covariates, freq="1d", horizon=7, out=out, experts=False, hidden=16,
        dropout=0.0,
        quantiles=(0.1, 0.5, 0.9), epochs=5, batches=20, batch=32, window=64, origins=16, lr=1e-2, quiet=True, seed=3,
    )  # fmt: skip
    with brief_parity():
        train(options)
    return out


@pytest.fixture(scope="module")
def knowing(folder: Path) -> Path:
    return fitted(folder, "knowing", (("promo", "known"), ("kind", "category")))


def figures(folder: Path, model: Path) -> float:
    bundle = Bundle.load(model)
    engine = StepEngine(bundle, Device("cpu"), calibrate=False)
    data, before = (
        load(folder / f"{part}.parquet", "1d", covariates=bundle.metadata.covariates) for part in ("test", "train")
    )
    observed = [
        Series(one.unique_id, one.periods[:-7], one.y[:-7], one.covariates and one.covariates.take(slice(0, -7)))
        for one in before
    ]
    return backtest(engine, data, train=observed).model.wql


def test_a_model_that_knows_the_promotion_forecasts_better(folder: Path, knowing: Path) -> None:
    without = figures(folder, fitted(folder, "without", ()))
    found = figures(folder, knowing)
    assert found < 0.6 * without, f"WQL {found:.4f} with the promotion, {without:.4f} without"


def test_inspect_says_which_covariates_a_bundle_takes(knowing: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", str(knowing)]) == 0
    printed = capsys.readouterr().out
    assert "promo                    known     usually 0." in printed
    assert "kind                     category  2 known" in printed


@pytest.mark.parametrize("wanted", ["promo", "promo:future", ":known"])
def test_a_covariate_without_a_kind_is_refused(wanted: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["train", "d.csv", "--freq", "1d", "--horizon", "7", "--out", "m.onnx", "--covariate", wanted])
    assert "expected NAME:KIND" in capsys.readouterr().err


def test_a_replay_sends_the_covariates_of_a_bundle(
    knowing: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Log()
    monkeypatch.setattr("rillcast.transports.connect.open_topic_sink", lambda _settings, _topic: MemorySink(log))
    arguments = ["replay", str(folder / "test.parquet"), "--topic", "t"]
    assert cli.main([*arguments, "--covariates-of", str(knowing), "--json"]) == 0
    sent = [json.loads(value) for _, value, _ in log.published[Channel.FORECASTS]]
    assert {one["x"]["promo"] for one in sent} == {0.0, 1.0}
    assert {one["x"]["kind"] for one in sent} == {"corner", "mall"}


def test_an_explanation_names_the_covariates(folder: Path, knowing: Path) -> None:
    bundle = Bundle.load(knowing)
    forecaster = restore(bundle)
    series = find(load(folder / "test.parquet", "1d", covariates=bundle.metadata.covariates), "shop-1")
    assert series.covariates is not None
    promoted = np.flatnonzero(series.covariates.grid[20:, 0] == 1) + 20
    origin = int(series.periods[promoted[0] - 1])
    history = history_of(series, forecaster.config, at=origin)
    found = explain(forecaster, bundle, Device("cpu"), history, Target(1, 1), occlude=4)
    assert found.by_feature.complete
    total = sum(found.parts.values())
    assert total == pytest.approx(found.by_feature.value - found.by_feature.baseline, abs=0.02 * abs(total) + 0.1)
    known = found.parts["promo, ahead"] + found.features["promo, ahead"]
    assert known > 5, "in a mall, tomorrow's promotion adds to tomorrow's forecast"
    assert {"promo", "kind"} <= set(found.features)


def test_the_views_of_a_forecaster_agree_on_covariates() -> None:
    """`forward` over training's batches equals `step` over serving's events, with gaps and late rows."""
    config, rng = config_with(), np.random.default_rng(0)
    module, periods = random_forecaster(config), 1_000 + np.array([0, 1, 2, 2, 3, 6, 5, 7, 8, 9, 30, 31, 33])
    rows = {"unique_id": ["a"] * len(periods), "ds": periods.tolist(), "y": rng.normal(50, 9, len(periods)).tolist()}
    for one in EVERY_KIND:
        texts = one.kind == "category"
        values = rng.choice([*one.categories, "new"], len(periods)) if texts else rng.normal(one.loc, 3, len(periods))
        rows[one.name] = values.tolist()
    frame, y = pl.DataFrame(rows), np.array(rows["y"], np.float32)
    given = of_series(frame, periods, EVERY_KIND)
    assert given is not None
    state, stepped = module.initial_rows(1), []
    for row in range(len(periods)):
        covariates = given.x[row : row + 1], given.future(slice(row, row + 1), config.horizon)
        with torch.no_grad():
            found, state = module.step(
                torch.tensor([periods[row] * 3_600_000]), torch.from_numpy(y[row : row + 1]), state, 0.0,
                *(torch.from_numpy(part) for part in covariates),
            )  # fmt: skip
        stepped.append(found.forecast[0])
    found_contexts = segments(periods, y, season=4, max_gap=config.max_gap, rule=config.fill, covariates=given)
    assert len(found_contexts) == 2
    for context in found_contexts:
        length = len(context.periods)
        batch = collate([Window(context, 0, length, None, 1.0, fresh=False)], config, [np.arange(length)])
        with torch.no_grad():
            expected = module(batch.sequences).quantiles()[0]
        for place, row in enumerate(context.rows.tolist()):
            torch.testing.assert_close(stepped[row], expected[place], rtol=1e-4, atol=1e-3)


def test_values_known_ahead_are_those_of_the_next_periods() -> None:
    periods = np.array([10, 11, 12, 12, 14])
    frame = pl.DataFrame({"promo": [0.0, 1.0, 2.0, 9.0, 4.0]})
    given = of_series(frame, periods, (Covariate("promo", "known"),))
    assert given is not None
    assert given.x[:, 0].tolist() == [0, 1, 2, 9, 4]
    found = given.future(np.array([0, 2, 4]), 3)
    np.testing.assert_array_equal(found[:, 0], [[1, 2, np.nan], [np.nan, 4, np.nan], [np.nan] * 3])


def test_a_list_for_the_next_periods_overrides_their_rows() -> None:
    periods = np.array([10, 11, 12])
    lists = [[5.0, 6.0, 7.0, 8.0], None, [9.0, None]]
    frame = pl.DataFrame({"promo": [0.0, 1.0, 2.0], "price": [7.0, 8.0, 9.0], "future.promo": lists})
    given = of_series(frame, periods, (Covariate("promo", "known"), Covariate("price", "known")))
    assert given is not None
    promo, price = given.take(np.array([0, 2])).future(slice(None), 3).transpose(1, 0, 2)
    np.testing.assert_array_equal(promo, [[5, 6, 7], [9, np.nan, np.nan]])
    np.testing.assert_array_equal(price, [[8, 9, np.nan], [np.nan] * 3], "it has no such column: its rows say it")
    np.testing.assert_array_equal(given.future(slice(1, 2), 3)[0, 0], [np.nan] * 3)


def test_a_declaration_is_fitted_to_the_table(folder: Path) -> None:
    wanted: tuple[tuple[str, Kind], ...] = (("promo", "known"), ("kind", "category"))
    frame = table(folder / "train.parquet", None, wanted)
    promo, kind = declare(frame, wanted, "train.parquet")
    assert promo.loc == pytest.approx(0.2, abs=0.03)
    assert promo.scale == pytest.approx(0.4, abs=0.03)
    assert kind.categories == ("corner", "mall")


def test_a_static_covariate_that_changes_is_refused(folder: Path) -> None:
    frame = table(folder / "train.parquet", None, (("promo", "static"),))
    with pytest.raises(DataError, match="static covariate 'promo' has 2 values in stream 'shop-"):
        declare(frame, (("promo", "static"),), "train.parquet")


def test_a_column_that_is_not_there_is_named(folder: Path) -> None:
    with pytest.raises(DataError, match="no column 'weather'"):
        table(folder / "train.parquet", None, (("weather", "past"),))


def test_a_missing_covariate_does_no_more_than_a_missing_one_in_training(folder: Path, tmp_path: Path) -> None:
    """Without any covariate the forecasts of a model that takes them stay finite and ordered."""
    module = random_forecaster(config_with())
    with brief_parity():
        export(module, tmp_path / "m.onnx", name="m")
    engine = StepEngine(Bundle.load(tmp_path / "m.onnx"), Device("cpu"))
    n = 30
    ds, y = np.arange(n) * 3_600_000, np.arange(n, dtype=np.float32)
    result = engine.step(EventBatch.of(["a"] * n, ds, y))
    assert np.isfinite(result.forecast).all()
    assert (np.diff(result.forecast, axis=-1) >= 0).all()
