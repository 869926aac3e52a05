"""The shipped bundles: served without any training, small, current, some with a network on top of the experts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from rillcast import cli
from rillcast.bundle import shipped
from rillcast.bundle.bundle import Bundle
from rillcast.bundle.frequency import parse
from rillcast.engine import device
from rillcast.engine.step_engine import StepEngine
from rillcast.errors import BundleError
from rillcast.events import EventBatch
from rillcast_training.data.series import Series
from rillcast_training.evaluate.backtest import backtest
from rillcast_training.export.experts import describe_experts
from rillcast_training.export.pretrained import PRETRAINED, pretrained
from rillcast_training.export.restore import restore
from rillcast_training.model.experts.config import ExpertsConfig
from rillcast_training.model.experts.defaults import default_horizon, default_seasons
from rillcast_training.model.experts.forecaster import ExpertForecaster
from rillcast_training.research import universal
from rillcast_training.research.universal import MAX_BYTES, SHIPPED

pytestmark = pytest.mark.usefixtures("brief_parity")

NAMES = [shipped.PREFIX + freq for freq in SHIPPED]
HORIZONS = (60, 48, 48, 48, 48, 48, 48, 30, 13, 18, 8, 6)
WITH_NETWORK = {"1h"}
AGAIN = "write it again: python -m rillcast_training.research.universal"


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
    assert shipped.names() == NAMES


@pytest.mark.parametrize(("name", "horizon"), list(zip(NAMES, HORIZONS, strict=True)))
def test_a_shipped_bundle_is_small_and_says_what_it_is(name: str, horizon: int) -> None:
    assert shipped.locate(name).stat().st_size <= MAX_BYTES
    metadata = Bundle.load(name).metadata
    assert name == f"universal:{metadata.freq}"
    assert metadata.name == f"universal-{metadata.freq}"
    assert metadata.horizon == horizon


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_bundle_is_what_the_code_of_today_describes(name: str) -> None:
    """Seasons, constants, states and scores; the next test compares what one of them computes."""
    found = Bundle.load(name).metadata
    freq = found.freq
    config = ExpertsConfig(freq=freq, horizon=default_horizon(freq), seasons=default_seasons(freq))
    network = pretrained(freq)
    forecaster = ExpertForecaster(config) if network is None else network.on(config)
    training, figures = ({}, {}) if network is None else (network.training, network.figures)
    expected = describe_experts(forecaster, name=f"universal-{freq}", training=training, backtest=figures)
    differ = {"model_id", "versions"}
    assert found.model_dump_json(exclude=differ) == expected.model_dump_json(exclude=differ), AGAIN


def test_a_shipped_bundle_computes_what_the_command_writes_today(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert universal.main(["3mo", "--folder", str(tmp_path)]) == 0
    assert Bundle.load(tmp_path / "3mo.onnx").metadata.model_id in capsys.readouterr().out
    series = waves(5, 60, 4, "3mo")
    begins = parse("3mo").start_of(series[0].periods)
    engines = [StepEngine(Bundle.load(path), device.choose("cpu")) for path in (tmp_path / "3mo.onnx", "universal:3mo")]
    for number, ds in enumerate(begins):
        y = np.array([one.y[number] for one in series])
        events = EventBatch.of([one.unique_id for one in series], np.full(5, ds), y, first_offset=5 * number)
        today, shipped_one = (engine.step(events).forecast for engine in engines)
        np.testing.assert_allclose(shipped_one, today, rtol=1e-5, err_msg=AGAIN)


@pytest.mark.parametrize(("name", "operators"), [("universal:1h", 993), ("universal:30min", 910)])
def test_a_step_has_few_operators(name: str, operators: int) -> None:
    """A step of a few streams costs as much as it has operators, about 1 us each; the first has a network."""
    graph = onnx.load_model_from_string(shipped.locate(name).read_bytes()).graph
    assert len(graph.node) <= operators


@pytest.mark.parametrize("freq", SHIPPED)
def test_some_have_a_network_that_says_how_it_was_trained(freq: str) -> None:
    network = pretrained(freq)
    assert (network is not None) == (freq in WITH_NETWORK)
    if network is not None:
        assert set(network.training[PRETRAINED]) == {"series", "real", "seed", "epochs"}
        assert network.figures["scaled_loss"] < network.figures["experts_scaled_loss"]


def test_an_export_has_the_network_where_it_fits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It was trained on top of the mixture of these seasons, horizon, quantiles and constants, and of no other."""
    out = tmp_path / "m.onnx"
    for flags, network in (
        ("", "gru of 32"),
        ("--experts-alone", None),
        ("--horizon 24", None),
        ("--season 24", None),
        ("--set power=8", None),
    ):
        assert cli.main(["universal", "export", "--freq", "1h", *flags.split(), "--json", "--out", str(out)]) == 0
        document = json.loads(capsys.readouterr().out)
        assert document["network"] == network, flags
        assert (PRETRAINED in Bundle.load(out).metadata.training) == (network is not None)


def test_the_command_refuses_a_frequency_that_is_not_shipped(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        universal.main(["7min"])
    assert ended.value.code == 2
    assert "no bundle is shipped for 7min; choose from 10s, 1min" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("spelling", "name"), [("60min", "1h"), ("24h", "1d"), ("q", "3mo"), ("YS", "12mo"), ("h", "1h")]
)
def test_any_spelling_of_a_frequency_names_its_bundle(spelling: str, name: str) -> None:
    assert shipped.locate(f"universal:{spelling}") == shipped.locate(f"universal:{name}")


@pytest.mark.parametrize("name", NAMES)
def test_unseen_streams_are_forecast_better_than_by_the_seasonal_naive(name: str) -> None:
    bundle = Bundle.load(name)
    metadata = bundle.metadata
    length = max(60, 2 * metadata.context) + metadata.horizon  # the context is two seasons
    series = waves(8, length, metadata.season, metadata.freq)
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


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "universal:7min",
            r"expected one of universal:10s, .* in seconds: `rillcast universal export --freq 7min --out 7min.onnx`",
        ),
        ("universal:", "frequency '' is not .*; shipped are universal:10s, "),
        ("universal:../../etc/passwd", "is not a positive whole number and a unit"),
    ],
)
def test_a_frequency_without_a_bundle_is_refused_with_the_way_to_one(
    name: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(BundleError, match=message):
        Bundle.load(name)
    assert cli.main(["inspect", name]) == 3
    assert name in capsys.readouterr().err


def test_a_shipped_bundle_cannot_be_trained_further(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The error comes before the data are read, and says what to do."""
    arguments = ["train", "no-such-file.csv", "--init", "universal:1w", "--out", str(tmp_path / "m.onnx")]
    assert cli.main(arguments) == 2
    message = capsys.readouterr().err
    assert "universal-1w" in message
    assert "learns on each stream by itself" in message
    assert "rillcast train --synthetic --freq 1w --horizon 13 --out start.onnx" in message


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
    for flags, message in (
        ("--hidden 8", "--hidden cannot be changed with --init"),
        ("--horizon 4", "expected 1 to 3"),
        ("--freq 1d", "first.onnx has 1w, and its weights fit only that"),
        ("--quantiles 0.1,0.9", "quantiles is"),
    ):
        refused = ["train", str(data), "--init", str(first), *flags.split(), "--out", str(tmp_path / "m.onnx")]
        assert cli.main(refused) == 2
        assert message in capsys.readouterr().err
    before, after = restore(first).state_dict(), restore(second).state_dict()
    torch.testing.assert_close(after["head.trunk.weight"], before["head.trunk.weight"], rtol=0, atol=1e-6)
