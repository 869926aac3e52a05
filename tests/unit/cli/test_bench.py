"""Every benchmark of `rillcast bench` runs from the command line; no figure is judged here."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from rillcast import cli
from rillcast.cli.commands.bench import BENCHMARKS, MOVED
from tests.support.forecasters import write_network
from tests.support.toy import write_toy


def figures_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert cli.main(["bench", *arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.fixture
def model(tmp_path: Path) -> str:
    return str(write_toy(tmp_path / "toy.onnx"))


def test_step_measures_every_batch_size(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--batches", "1,8", "--streams", "16", "--seconds", "0.01"]
    figures = figures_of(capsys, "step", model, *flags)
    assert [row["batch"] for row in figures["steps"]] == [1, 8]
    assert all(row["min"] <= row["steps_per_second"] <= row["max"] for row in figures["steps"])
    assert figures["machine"]["cores"] >= 1
    assert cli.main(["bench", "step", model, *flags]) == 0
    assert "steps/s" in capsys.readouterr().out


def test_flatness_reports_a_ratio(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--age", "50", "--young", "5", "--batch", "2", "--blocks", "4"]
    assert figures_of(capsys, "flatness", model, *flags)["old_to_young_ratio"] > 0


def test_residents_compare_few_with_many(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--few", "4", "--many", "64", "--batch", "4", "--calls", "2", "--blocks", "4"]
    figures = figures_of(capsys, "residents", model, *flags)
    assert figures["us_per_event_among_64"] > 0
    assert figures["many_to_few_ratio"] > 0


def test_catch_up_compares_runs_with_single_steps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = str(write_network(tmp_path / "network.onnx"))
    flags = ["--streams", "1,2", "--backlog", "64", "--rounds", "1"]
    figures = figures_of(capsys, "catch-up", network, *flags)
    assert [row["streams"] for row in figures["catch_up"]] == [1, 2]
    assert all(row["share_in_runs"] > 0 and row["ratio_to_single"] > 0 for row in figures["catch_up"])


def test_nonsense_is_refused(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "step", model, "--batches", "1,x"]) == 2
    assert "--batches" in capsys.readouterr().err


def test_rewind_is_the_old_name_of_late_events(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--within", "2", "--streams", "4", "--length", "12", "--blocks", "2"]
    assert cli.main(["bench", "rewind", model, "--slots", "2", *flags, "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["rewind_slots"] == 2
    assert "bench rewind is now called bench late-events" in printed.err
    assert figures_of(capsys, "late-events", model, "--periods", "2", *flags)["rewind_slots"] == 2


@pytest.mark.parametrize("kind", MOVED)
def test_a_benchmark_that_moved_says_where_it_is(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["bench", kind, "model.onnx", "--rounds", "1"])
    assert ended.value.code == 2
    assert f"python -m {MOVED[kind]}" in capsys.readouterr().err
    assert callable(importlib.import_module(MOVED[kind]).main)


@pytest.mark.parametrize("kind", BENCHMARKS)
def test_every_benchmark_explains_its_arguments(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["bench", kind, "--help"])
    assert ended.value.code == 0
    assert "--json" in capsys.readouterr().out
