"""Ablations: their periods, data, runs and table."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rillcast_training.data.series import Series
from rillcast_training.fit.training import fitted
from rillcast_training.research import ablations
from rillcast_training.research.public_benchmarks import Protocol
from tests.support.forecasters import random_forecaster, small_config

SMALL = {"cell": "gru", "hidden": 4, "epochs": 1, "batches": 1, "batch": 2, "seasons": (24,), "context": 48}
TRIED = {"defaults": ablations.Ablation("as it is"), "wide": ablations.Ablation("twice as wide", {"hidden": 8})}


def hourly(path: Path, names: str, count: int) -> None:
    rng = np.random.default_rng(count)
    rows = [
        f"{name},{period * 3_600_000},{10 + np.sin(period * np.pi / 12) + 0.1 * rng.normal():.3f}\n"
        for name in names
        for period in range(1_000, 1_000 + count)
    ]
    path.write_bytes(gzip.compress(("unique_id,ds,y\n" + "".join(rows)).encode()))


@pytest.fixture
def arguments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Two small data sets and two small ablations; the command's arguments for them."""
    protocols = (
        Protocol("m4_hourly", ("m4_hourly_train.csv.gz", "m4_hourly_test.csv.gz"), 6),
        Protocol("etth1", ("etth1.csv.gz",), 6, test=(1_300, 1_312)),
    )
    monkeypatch.setattr(ablations, "PROTOCOLS", protocols)
    monkeypatch.setattr(ablations, "HELD_OUT", {"m4_hourly": 6, "etth1": 60})
    monkeypatch.setattr(ablations, "BASE", SMALL)
    monkeypatch.setattr(ablations, "ABLATIONS", TRIED)
    hourly(tmp_path / "m4_hourly_train.csv.gz", "ab", 300)
    hourly(tmp_path / "m4_hourly_test.csv.gz", "ab", 306)
    hourly(tmp_path / "etth1.csv.gz", "cd", 400)
    return ["--data", str(tmp_path), "--work", str(tmp_path / "work")]


def test_it_trains_each_ablation_once_and_writes_the_page(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    page = tmp_path / "accuracy.md"
    page.write_text(f"before\n{ablations.BEGIN}\nold\n{ablations.END}\nafter\n")
    assert ablations.main([*arguments, "--seeds", "2", "--document", str(page)]) == 0
    text = page.read_text()
    assert text.startswith("before\n")
    assert "old" not in text
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith(("| m4_hourly", "| etth1"))]
    assert [(row[0], row[1], row[2]) for row in rows] == [
        (f"| {name}", ablation.what, "2") for name in ("m4_hourly", "etth1") for ablation in TRIED.values()
    ]
    kept = {file.name: json.loads(file.read_text()) for file in (tmp_path / "work").iterdir()}
    assert len(kept) == 8
    assert kept["etth1.wide.1.json"]["changes"] == {"hidden": 8}
    assert all(0 < one["figures"]["wql"] < 1 for one in kept.values())
    assert len({one["figures"]["wql"] for one in kept.values()}) == 8
    monkeypatch.setattr(ablations, "run", never)
    capsys.readouterr()
    assert ablations.main([*arguments, "--seeds", "2"]) == 0
    assert capsys.readouterr().out.strip() in text


def test_a_run_of_another_ablation_by_that_name_is_refused(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = [*arguments, "--only", "etth1", "--ablation", "wide"]
    assert ablations.main(chosen) == 0
    monkeypatch.setattr(ablations, "ABLATIONS", {"wide": ablations.Ablation("wider", {"hidden": 16})})
    assert ablations.main(chosen) == 2
    assert "remove it" in capsys.readouterr().err


def test_finished_runs_can_be_tabulated_before_the_rest(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ablations.main([*arguments, "--only", "etth1", "--ablation", "wide"]) == 0
    first = capsys.readouterr().out
    monkeypatch.setattr(ablations, "run", never)
    assert ablations.main([*arguments, "--finished"]) == 0
    assert capsys.readouterr().out == first


def test_neither_the_test_nor_the_held_out_part_is_trained_on(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, int] = {}

    def watched(options: Any, config: Any, parts: Any, make: Any) -> Any:
        seen[options.source] = max(int(part.segments[-1].periods[-1]) for part in parts)
        return fitted(options, config, parts, make)

    monkeypatch.setattr(ablations, "fitted", watched)
    assert ablations.main([*arguments, "--ablation", "defaults"]) == 0
    assert seen == {"m4_hourly_train.csv.gz": 1_299 - 6, "etth1.csv.gz": 1_299 - 60}


def test_every_held_out_period_is_forecast_once() -> None:
    forecaster = random_forecaster(small_config(seasons=(4,), horizon=5))
    periods = np.arange(1_000, 1_120)
    y = (np.tile([1, 2, 3, 4], 30) + np.where(periods < 1_060, 0.1 * (periods % 3), 0)).astype(np.float32)
    series = [Series("early", periods, y), Series("late", periods + 500, y)]
    kept, first = ablations.without_newest(series, 50)
    assert [int(one.periods[-1]) for one in kept] == [1_069, 1_569]
    (batch,) = ablations.batches(forecaster.config, series, first)
    for targets in batch.target:
        np.testing.assert_array_equal(targets.numpy().ravel(), y[70:])
    figures = ablations.score(forecaster, series, first)
    assert figures["seasonal_naive_mase"] == 0  # it repeats itself from period 60 on
    assert figures["wql"] > 0


def never(*_: object) -> None:
    raise AssertionError("a training run was started")
