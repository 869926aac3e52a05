"""`rillcast explain forecast` says in words what a mixture of experts is made of."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from rillcast import cli
from rillcast.bundle.bundle import Bundle
from rillcast.bundle.mixture import Mixture, Shares, in_words
from rillcast.errors import DataError
from rillcast_training.export.experts import restore_experts
from rillcast_training.model.experts.config import ExpertsConfig
from rillcast_training.model.experts.defaults import default_horizon, default_seasons
from rillcast_training.model.experts.forecaster import ExpertForecaster
from tests.support.toy import toy_bundle

HOUR_MS = 3_600_000
START_MS = 1_704_067_200_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("explain")
    flags = ["--freq", "1h", "--season", "24", "--horizon", "8", "--set", "level=0.3", "--out", str(folder / "m.onnx")]
    assert cli.main(["universal", "export", *flags]) == 0
    noise = np.random.default_rng(0).normal(size=200)
    cycle = 20 + 5 * np.sin(2 * np.pi * np.arange(200) / 24) + 0.1 * noise
    walk = np.cumsum(noise)
    rows = [
        f"{name},{START_MS + t * HOUR_MS},{y[t]}" for name, y in (("cycle", cycle), ("walk", walk)) for t in range(200)
    ]
    (folder / "data.csv").write_text("\n".join(["unique_id,ds,y", *rows]) + "\n")
    return folder


def explained(folder: Path, capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    assert cli.main(["explain", "forecast", str(folder / "m.onnx"), str(folder / "data.csv"), *flags]) == 0
    return capsys.readouterr().out


def test_a_cycle_is_made_of_its_season_and_a_walk_of_its_last_value(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cycle, walk = (
        json.loads(explained(folder, capsys, "--stream", name, "--json"))["weights"] for name in ("cycle", "walk")
    )
    assert [one["step"] for one in cycle] == [1, 2, 3, 4, 6, 8]
    for one in (*cycle, *walk):
        assert sum(one["shares"].values()) == pytest.approx(1, abs=1e-5)
        assert list(one["shares"].values()) == sorted(one["shares"].values(), reverse=True)
    of_the_day = [sum(share for what, share in one["shares"].items() if "day" in what) for one in cycle]
    assert min(of_the_day) > 0.9
    plain = [sum(share for what, share in one["shares"].items() if "day" not in what) for one in walk]
    assert min(plain[:3]) > 0.9


def test_the_words_name_the_forecast_and_the_time(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = explained(folder, capsys, "--stream", "cycle", "--at", "2024-01-03T02:30:00Z")
    assert printed.startswith("cycle at 2024-01-03T02:00:00Z, experts-1h@")
    assert ", after 51 events\n     1 ahead: " in printed
    first = explained(folder, capsys, "--stream", "cycle", "--at", "2024-01-01T00:30:00Z")
    assert "after 1 events" in first
    assert "% level, and the last value, " in first  # by the prior


def test_options_of_attributions_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["explain", "forecast", str(folder / "m.onnx"), str(folder / "data.csv"), "--stream", "cycle"]
    assert cli.main([*command, "--quantile", "0.9", "--occlude", "3"]) == 2
    assert "--quantile, --occlude: not with a bundle of experts" in capsys.readouterr().err


def test_the_module_comes_back_from_the_metadata(folder: Path) -> None:
    bundle = Bundle.load(folder / "m.onnx")
    config = restore_experts(bundle).config
    assert (config.seasons, config.horizon, config.constants.level) == ((24,), 8, 0.3)
    with pytest.raises(DataError, match="is no mixture of experts"):
        restore_experts(toy_bundle())
    changed = bundle.metadata.model_copy(update={"training": {"experts": {"freq": "1h", "speed": 3}}})
    with pytest.raises(DataError, match="this version cannot build its experts"):
        restore_experts(Bundle(changed, bundle.model, bundle.step))


@pytest.mark.parametrize("freq", ["10s", "7min", "1h", "1d", "1mo"])
def test_the_weights_stand_where_the_service_reads_them(freq: str) -> None:
    config = ExpertsConfig(freq, default_horizon(freq), default_seasons(freq))
    layout = ExpertForecaster(config).layout
    figures = {name: torch.zeros(*shape, 3) for name, shape in layout.core.shapes.items()}
    given = torch.rand(len(config.anchors), len(config.experts), 3)
    given = given / given.sum(dim=1, keepdim=True)
    columns = [torch.zeros(len(config.anchors), size, 3) for size in layout.by_anchor.values()]
    columns[list(layout.by_anchor).index("weight")] = given
    core = layout.core.pack(figures | {"anchors": torch.cat(columns, dim=1)})
    read = Mixture(json.loads(json.dumps(dataclasses.asdict(config)))).weights(core.numpy())
    assert read is not None
    assert np.array_equal(read, given.permute(2, 0, 1).numpy())


@pytest.mark.parametrize(
    ("base", "freq", "seasons", "words"),
    [
        ("naive1", "1h", (24, 168), "value a week ago"),
        ("phase0", "7min", (206, 1_440), "mean of the same time of the day"),
        ("phase0", "1mo", (12,), "mean of the same time of the year"),
        ("naive0", "1h", (30,), "value a cycle of 30 periods ago"),
        ("median", "1h", (24,), "running median"),
        ("something new", "1h", (24,), "something new"),
    ],
)
def test_words_of_a_base(base: str, freq: str, seasons: tuple[int, ...], words: str) -> None:
    assert in_words(base, freq, seasons) == words


def test_small_shares_are_summed() -> None:
    assert Shares(1, {"a": 0.62, "b": 0.35, "c": 0.02, "d": 0.01}).sentence() == "62 % a, 35 % b, 3 % others"
    assert Shares(1, {"a": 1.0}).sentence() == "100 % a"
    assert Shares(1, {}).sentence() == "no value is known yet"
