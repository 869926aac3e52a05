"""The shipped bundles: served without any training, small, current, and a start for training."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from rillcast import cli
from rillcast.bundle import shipped
from rillcast.bundle.bundle import Bundle
from rillcast.bundle.frequency import parse
from rillcast.engine import device
from rillcast.engine.step_engine import StepEngine
from rillcast.errors import BundleError
from rillcast_training.data.series import Series
from rillcast_training.evaluate.backtest import backtest
from rillcast_training.export.restore import restore
from rillcast_training.research.universal import MAX_BYTES, SHIPPED

pytestmark = pytest.mark.usefixtures("brief_parity")

NAMES = [shipped.PREFIX + freq for freq in SHIPPED]


def waves(streams: int, periods: int, season: int, freq: str) -> list[Series]:
    """Seasonal streams in four units, with noise and a trend, from 2024 on: nothing that a bundle was trained on."""
    first = parse(freq).period_of(1_704_067_200_000)
    rng = np.random.default_rng(7)
    t = np.arange(periods)
    return [
        Series(
            f"s{number}",
            first + t,
            (
                10.0 ** (number % 4)
                * (5 + np.sin(2 * np.pi * (t / season + rng.random())) + 0.3 * rng.normal(size=periods) + t / periods)
            ).astype(np.float32),
        )
        for number in range(streams)
    ]


def test_every_bundle_that_should_be_shipped_is_and_no_other() -> None:
    assert shipped.names() == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_bundle_is_small_and_says_where_it_comes_from(name: str) -> None:
    assert shipped.locate(name).stat().st_size <= MAX_BYTES
    metadata = Bundle.load(name).metadata
    assert name == f"universal:{metadata.freq}"
    assert metadata.training["data"].endswith("synthetic series")
    assert metadata.backtest["mase"] < metadata.backtest["seasonal_naive_mase"]


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_bundle_fits_the_module_of_today(name: str) -> None:
    bundle = Bundle.load(name)
    specs = restore(bundle).state_specs()
    assert bundle.metadata.states == specs, "export it again: python -m rillcast_training.research.universal export"


@pytest.mark.parametrize("name", NAMES)
def test_unseen_streams_are_forecast_better_than_by_the_seasonal_naive(name: str) -> None:
    bundle = Bundle.load(name)
    metadata = bundle.metadata
    series = waves(32, 3 * metadata.context + metadata.horizon, metadata.season, metadata.freq)
    found = backtest(StepEngine(bundle, device.choose("cpu")), series, stride=max(1, metadata.season // 3))
    assert found.model.mase < found.seasonal_naive.mase
    assert found.model.wql < found.seasonal_naive.wql


def test_run_needs_neither_model_nor_training(tmp_path: Path) -> None:
    lines = "".join(
        json.dumps({"unique_id": "a", "ds": 1_704_067_200_000 + hour * 3_600_000, "y": 20 + hour % 24}) + "\n"
        for hour in range(60)
    )
    flags = f"--input.path - --output.path - --dead-letters.path {tmp_path / 'dead'} --http.enabled false"
    done = subprocess.run(
        [sys.executable, "-m", "rillcast", "run", *flags.split()],
        input=lines.encode(), capture_output=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    forecasts = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(forecasts) == 60
    assert forecasts[-1]["model"].startswith("universal-1h@")
    assert np.abs(np.array(forecasts[-1]["quantiles"]["0.5"][:24]) - (20 + np.arange(60, 84) % 24)).max() < 6


@pytest.mark.parametrize("name", ["universal:7min", "universal:", "universal:../../etc/passwd"])
def test_a_frequency_without_a_bundle_is_refused_with_the_choice(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BundleError, match=r"no bundle 'universal:.*' is shipped, expected one of .*universal:1h"):
        Bundle.load(name)
    assert cli.main(["inspect", name]) == 3
    assert "rillcast train --synthetic" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--hidden 8", "--hidden cannot be changed with --init"),
        ("--horizon 49", "expected 1 to 48"),
        ("--freq 1d", "freq is 1d, but universal:1h has 1h"),
        ("--quantiles 0.1,0.9", "quantiles is"),
    ],
)
def test_options_that_the_weights_cannot_fit_are_refused(
    flags: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", "nycflights13", "--init", "universal:1h", *flags.split(), "--out", str(tmp_path / "m.onnx")]
    assert cli.main(arguments) == 2
    assert message in capsys.readouterr().err


def test_nothing_to_train_on_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "--freq", "1h", "--horizon", "4", "--out", str(tmp_path / "m.onnx")]) == 2
    assert "nothing to train on" in capsys.readouterr().err


def test_training_needs_no_data_and_goes_on_from_any_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = "--epochs 1 --batches 2 --batch 4 --window 32 --quiet --json"
    first, second = tmp_path / "first.onnx", tmp_path / "second.onnx"
    shape = "--freq 1w --horizon 3 --hidden 4 --season 4 --context 9 --no-calendar"
    assert cli.main(["train", "--synthetic", "20", *shape.split(), *small.split(), "--out", str(first)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["training"]["data"] == "20 synthetic series"

    data = tmp_path / "waves.csv"
    rows = [f"{w.unique_id},{week * 604_800_000},{y}" for w in waves(2, 100, 4, "1w") for week, y in enumerate(w.y)]
    data.write_text("\n".join(["unique_id,ds,y", *rows]) + "\n")
    onwards = ["train", str(data), "--init", str(first), "--horizon", "2", "--lr", "1e-12", *small.split()]
    assert cli.main([*onwards, "--out", str(second)]) == 0
    report = json.loads(capsys.readouterr().out)
    metadata = Bundle.load(second).metadata
    assert (metadata.freq, metadata.horizon, metadata.context) == ("1w", 2, 9)
    assert (metadata.training["init"], metadata.training["data"]) == ("first.onnx", "waves.csv")
    before, after = restore(first).state_dict(), restore(second).state_dict()
    torch.testing.assert_close(after["head.trunk.weight"], before["head.trunk.weight"], rtol=0, atol=1e-6)
