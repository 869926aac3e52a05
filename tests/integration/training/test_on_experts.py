"""A network on top of experts, as `rillcast train` makes it: it learns from many streams what no expert can know."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from prometheus_client import CollectorRegistry

from rillcast.bundle.bundle import Bundle
from rillcast.cli.commands.train import _without_training
from rillcast.cli.entry import main
from rillcast.engine.device import Device
from rillcast.engine.step_engine import StepEngine
from rillcast.errors import DataError, SettingsError
from rillcast.events import EventBatch
from rillcast.observability.expert_weights import ExpertWeights
from rillcast.observability.metrics import Metrics
from rillcast_training.export.experts import restore_experts
from rillcast_training.export.restore import restore
from rillcast_training.fit.training import train
from rillcast_training.model.experts.config import NetworkShape
from tests.support.forecasters import brief_parity
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


def test_what_it_adds_is_shown_by_the_service_and_explained_in_words(
    table: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine, rows = StepEngine(Bundle.load(bundle), Device("cpu")), pl.read_parquet(table)
    for group in rows.partition_by("ds"):
        ds, y = group["ds"].dt.epoch("ms").to_list(), group["y"].to_list()
        engine.step(EventBatch.of(group["unique_id"].to_list(), ds, y))
    reported: dict[str, float] = {}
    weights = ExpertWeights(lambda: ["s0"], report_network=reported.update)
    weights.look(engine, [0])
    sample = weights.sample
    assert sample is not None
    model_id = engine.bundle.metadata.model_id
    fleet, own = sample.network_shares(), sample.network_shares("s0")
    shares = [one.share for one in fleet if one is not None]
    assert reported == {model_id: pytest.approx(np.mean(shares))}
    assert len(shares) == len(sample.mixture.anchors)
    assert shares[0] > 0.95  # it knows what no expert can say
    metrics = Metrics(registry := CollectorRegistry(), {"": engine.bundle.metadata}, "cpu")
    for by_model, seen in ((reported, True), ({}, False)):
        metrics.network_share(by_model)
        value = registry.get_sample_value("rillcast_network_share_ratio", {"model_id": model_id})
        assert value == (reported[model_id] if seen else None)

    command = ["explain", "forecast", str(bundle), str(table), "--stream", "s0"]
    assert main([*command, "--json"]) == 0
    explained = json.loads(capsys.readouterr().out)["network"]
    for one, other in zip(own, explained, strict=True):
        assert one is not None
        assert (other["step"], other["share"]) == (one.step, pytest.approx(one.share, abs=1e-3))
        assert other["median"] == pytest.approx(one.median, abs=1e-3)
    assert explained[0]["weights"] > 0.02
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert re.search(r"1 ahead: .* = .*; network: counts \d+ %, median [+-]0\.\d\d widths, width x .*, moves", printed)


@pytest.mark.parametrize(
    ("figures", "advised"),
    [
        ({"mase": 0.9, "wql": 0.3, "experts_mase": 0.8, "experts_wql": 0.3}, True),
        ({"mase": 0.7, "wql": 0.3, "experts_mase": 0.8, "experts_wql": 0.3}, False),
        ({"mase": 0.8, "wql": 0.2, "experts_mase": 0.8, "experts_wql": 0.3}, False),
    ],
)
def test_a_network_that_is_no_better_than_the_experts_is_said_to_be_so(
    figures: dict[str, float], advised: bool, table: Path, tmp_path: Path
) -> None:
    options = quick_options(table, tmp_path, experts=True, seasons=(4, 12))
    command = "`rillcast universal export --freq 1h --horizon 6 --season 4,12 --out experts.onnx`"
    assert (command in (_without_training(figures, options) or "")) == advised
    alone = quick_options(table, tmp_path)
    assert _without_training({"mase": 2.0, "seasonal_naive_mase": 1.0}, alone) is None


def test_options_of_networks_alone_are_refused(table: Path, bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a network on top of experts, and here one alone is needed"):
        restore(bundle)
    for refused, reason in (
        ({"covariates": (("promo", "known"),)}, "no covariates: .*; leave the covariates out, or train without"),
        ({"context": 12}, "neither a context nor a longest gap: .*; leave both out"),
        ({"max_gap": 12}, "neither a context nor a longest gap: .*; leave both out"),
    ):
        with pytest.raises(SettingsError, match=reason):
            quick_options(table, tmp_path, experts=True, **refused)


def test_it_is_trained_further_from_its_own_weights(table: Path, bundle: Path, tmp_path: Path) -> None:
    small = {
        "experts": None,
        "horizon": 4,
        "seasons": None,
        "hidden": None,
        "epochs": 1,
        "batches": 2,
        "hold_out": _LAST,
    }
    options = quick_options(table, tmp_path, init=bundle, quantiles=tuple(n / 10 for n in range(1, 10)), **small)
    report = train(replace(options, lr=1e-12))
    before, after = (restore_experts(Bundle.load(path)) for path in (bundle, report.model))
    assert after.config == replace(before.config, network=NetworkShape("gru", 8, 1, options.dropout))
    assert before.network is not None
    assert after.network is not None
    old, new = before.network.state_dict(), after.network.state_dict()
    for name in old.keys() - {"head.bias"}:  # which has the widths, that are fitted to the validation part again
        torch.testing.assert_close(new[name], old[name], rtol=0, atol=1e-6)
    assert report.training["init"] == "model.onnx"
    for changes, reason in (
        ({"horizon": 3}, "horizon is 3, but .* has 4, and the weights of a network on top of experts fit only that"),
        ({"freq": "30min"}, "freq is 30min, but .* has 1h"),
        ({"experts": False}, "is a network on top of experts, and a network alone cannot start from it"),
    ):
        with pytest.raises(SettingsError, match=reason):
            train(replace(options, **changes))


def test_the_shipped_network_is_trained_further_by_default_options(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "model.onnx"
    flags = f"--init universal:1h --epochs 1 --batches 1 --batch 2 --window 32 --quiet --out {out}"
    assert main(["train", str(table), *flags.split()]) == 0
    assert "  network       a network on top of experts\n" in capsys.readouterr().out
    shipped, metadata = Bundle.load("universal:1h").metadata, Bundle.load(out).metadata
    assert (metadata.horizon, metadata.quantiles) == (shipped.horizon, shipped.quantiles)
    assert metadata.training["experts"]["network"]["hidden"] == shipped.training["experts"]["network"]["hidden"]


def test_a_network_alone_that_nobody_asked_for_is_told_with_the_reason(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = "--freq 1h --horizon 4 --context 12 --season 4 --hidden 4 --epochs 1 --batches 1 --batch 2 --window 16"
    with brief_parity():
        assert main(["train", str(table), *flags.split(), "--quiet", "--out", str(tmp_path / "m.onnx")]) == 0
    told = "a network alone: a context or a longest gap was given, and experts have neither"
    printed = capsys.readouterr()
    assert printed.err == f"rillcast: {told}\n"
    assert f"  network       {told}\n" in printed.out
    assert Bundle.load(tmp_path / "m.onnx").metadata.training["network"] == told


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
