"""`rillcast train --experts`: a network learns from many streams what an expert cannot know of one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from rillcast.bundle.bundle import Bundle
from rillcast.cli.entry import main
from rillcast.errors import DataError, SettingsError
from rillcast_training.export.experts import restore_experts
from rillcast_training.export.restore import restore
from rillcast_training.fit.training import train
from tests.support.training import quick_options

_STREAMS = 24
_HOURS = 160
_LAST = 16


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Streams that overshoot: each deviation is followed by one to the other side, which no expert can say."""
    rng = np.random.default_rng(0)
    deviation, rows = np.zeros((_HOURS, _STREAMS)), []
    for hour in range(1, _HOURS):
        deviation[hour] = -0.85 * deviation[hour - 1] + rng.normal(size=_STREAMS)
    level = 10.0 ** rng.uniform(0, 4, _STREAMS)
    for stream in range(_STREAMS):
        start = np.datetime64("2024-01-01T00", "h")
        rows.append(
            pl.DataFrame(
                {
                    "unique_id": [f"s{stream}"] * _HOURS,
                    "ds": (start + np.arange(_HOURS)).astype("datetime64[ms]"),
                    "y": level[stream] * (10 + deviation[:, stream]),
                }
            )
        )
    path = tmp_path_factory.mktemp("overshooting") / "streams.parquet"
    pl.concat(rows).sort("ds", "unique_id").write_parquet(path)
    return path


@pytest.fixture(scope="module")
def bundle(table: Path) -> Path:
    """A network on experts, trained on all but the newest hours."""
    options = quick_options(
        table, table.parent, experts=True, horizon=4, seasons=(4,), epochs=6, batches=20, batch=16, hold_out=_LAST,
        quantiles=tuple(n / 10 for n in range(1, 10)), dropout=0.0, lr=0.01,
    )  # fmt: skip
    train(options)
    return options.out


def test_a_network_on_experts_is_better_than_they_are_alone(
    table: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone, old, new = (table.parent / name for name in ("alone.onnx", "old.parquet", "new.parquet"))
    assert main(["universal", "export", "--freq", "1h", "--season", "4", "--horizon", "4", "--out", str(alone)]) == 0
    rows = pl.read_parquet(table)
    is_new = pl.col("ds") > rows["ds"].unique().sort()[-_LAST - 1]
    rows.filter(~is_new).write_parquet(old)
    rows.filter(is_new).write_parquet(new)

    def mase(model: Path) -> float:
        capsys.readouterr()
        assert main(["backtest", str(model), str(new), "--train", str(old), "--json"]) == 0
        figures: float = json.loads(capsys.readouterr().out)["mase"]
        return figures

    assert mase(bundle) < 0.9 * mase(alone)


def test_its_metadata_tell_of_both_and_its_weights_come_back(bundle: Path) -> None:
    loaded = Bundle.load(bundle)
    metadata = loaded.metadata
    assert metadata.cell == "gru"
    assert metadata.training["experts"]["network"] == {"cell": "gru", "hidden": 8, "layers": 1, "dropout": 0.0}
    assert metadata.training["series"] == _STREAMS
    assert metadata.backtest["mase"] < metadata.backtest["experts_mase"]
    assert "seasonal_naive_mase" not in metadata.backtest  # traces do not have it
    network = restore_experts(loaded).network
    assert network is not None
    assert float(network.head.weight.detach().abs().sum()) > 0


def test_it_cannot_be_trained_further_and_takes_no_covariates(table: Path, bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="network on top of experts, which cannot be trained further"):
        restore(bundle)
    with pytest.raises(SettingsError, match="neither covariates nor a bundle"):
        quick_options(table, tmp_path, experts=True, covariates=(("promo", "known"),))
    with pytest.raises(SettingsError, match="neither a context nor a longest gap"):
        quick_options(table, tmp_path, experts=True, context=12)


def test_a_run_that_is_resumed_ends_like_one_that_was_not(table: Path, tmp_path: Path) -> None:
    small = {"experts": True, "horizon": 4, "seasons": (4,), "epochs": 2, "batches": 3}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    expected = train(quick_options(table, whole, **small))
    checkpoint = parts / "kept.ckpt"
    train(quick_options(table, parts, **(small | {"epochs": 2, "patience": 1}), checkpoint=checkpoint))
    found = train(quick_options(table, parts, **small, checkpoint=checkpoint))
    assert found.figures == expected.figures
