"""The command for public benchmarks: its needs, its last line, its part of the page."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rillcast_training.research import public_benchmarks
from rillcast_training.research.drift import DriftCoverage, drifting_streams

pytestmark = pytest.mark.usefixtures("brief_parity")


def run_of(wql: float, seed: int) -> dict[str, Any]:
    figures = {"mase": 0.7, "smape": 9.0, "wql": wql, "coverage80": 0.8}
    return {"figures": figures, "uncalibrated": figures, "seasonal_naive": figures, "seed": seed}


RESULT: dict[str, Any] = {
    "m4_hourly": [run_of(0.023, 0), run_of(0.027, 1), run_of(0.024, 2)],
    "etth1": [run_of(0.22, 0)],
    "etth1_on_experts": [run_of(0.21, 0), run_of(0.20, 1), run_of(0.216, 2)],
    "universal": {"m4_hourly": run_of(0.03, 0), "etth1": run_of(0.25, 0)},
    "drift_coverage80": {"on": 0.81, "off": 0.72, "nominal": 0.8},
}


def test_without_data_it_says_what_to_set_and_which_files_it_needs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.delenv("ACCURACY_DATA", raising=False)
    assert public_benchmarks.main(["--work", str(tmp_path)]) == 2
    errors = capsys.readouterr().err
    assert "ACCURACY_DATA" in errors
    assert "etth1.csv.gz" in errors
    assert public_benchmarks.main(["--data", str(tmp_path), "--work", str(tmp_path / "w"), "--only", "etth1"]) == 2
    assert f"{tmp_path / 'etth1.csv.gz'} does not exist" in capsys.readouterr().err


def test_the_last_line_has_the_medians_over_the_seeds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(public_benchmarks, "run", lambda *_, **__: RESULT)
    page = tmp_path / "accuracy.md"
    of_experts = f"{public_benchmarks._EXPERTS_BEGIN}\nolder\n{public_benchmarks._EXPERTS_END}"
    page.write_text(f"before\n{public_benchmarks._BEGIN}\nold\n{public_benchmarks._END}\n{of_experts}\nafter\n")
    assert public_benchmarks.main(["--data", str(tmp_path), "--document", str(page)]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(last) == {"m4_hourly", "etth1", "etth1_on_experts", "universal", "drift_coverage80"}
    assert last["etth1"] == {"mase": 0.7, "smape": 9.0, "wql": 0.22, "coverage80": 0.8}
    assert last["m4_hourly"]["wql"] == 0.024
    assert last["m4_hourly"]["by_seed"]["wql"] == [0.023, 0.027, 0.024]
    assert last["etth1_on_experts"]["wql"] == 0.21
    assert last["universal"]["etth1"]["wql"] == 0.25
    assert last["drift_coverage80"] == {"on": 0.81, "off": 0.72}
    text = page.read_text()
    assert "0.0240 (0.0230 to 0.0270)" in text
    assert "| etth1 | median of 3 (lowest to highest) | 0.700 | 9.00 | 0.2100 (0.2000 to 0.2160) | 0.800 |" in text
    assert "| etth1 | 1 | 0.700 | 9.00 | 0.2000 | 0.800 |" in text
    assert "old" not in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")


def test_a_series_is_cut_where_its_test_begins_and_where_it_ends(tmp_path: Path) -> None:
    rows = "".join(f"HUFL,{period * 3_600_000},{period % 7}\n" for period in range(90, 130))
    (tmp_path / "etth1.csv.gz").write_bytes(gzip.compress(f"unique_id,ds,y\n{rows}".encode()))
    protocol = public_benchmarks.Protocol("etth1", ("etth1.csv.gz",), 4, test=(100, 120))
    (train,), (test,) = protocol.split(tmp_path)
    assert (train.periods[0], train.periods[-1]) == (90, 99)
    assert (test.periods[0], test.periods[-1]) == (100, 119)


def hourly(path: Path, names: str, first: int, count: int) -> None:
    rng = np.random.default_rng(first)
    rows = [
        f"{name},{period * 3_600_000},{10 + np.sin(period * np.pi / 12) + 0.1 * rng.normal():.3f}\n"
        for name in names
        for period in range(first, first + count)
    ]
    path.write_bytes(gzip.compress(("unique_id,ds,y\n" + "".join(rows)).encode()))


def test_it_trains_exports_and_scores_from_scratch_and_writes_the_page(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    small = {"cell": "gru", "refit": True, "hidden": 4, "epochs": 1, "batches": 1, "batch": 2, "context": 48}
    monkeypatch.setattr(public_benchmarks, "RECIPE", small | {"seasons": (24,)})
    on_experts = {name: value for name, value in small.items() if name != "context"} | {"experts": True}
    monkeypatch.setattr(public_benchmarks, "ON_EXPERTS", on_experts | {"seasons": (6,)})
    protocols = (
        public_benchmarks.Protocol("m4_hourly", ("m4_hourly_train.csv.gz", "m4_hourly_test.csv.gz"), 6),
        public_benchmarks.Protocol("etth1", ("etth1.csv.gz",), 6, test=(1_300, 1_312)),
    )
    monkeypatch.setattr(public_benchmarks, "PROTOCOLS", protocols)
    hourly(tmp_path / "m4_hourly_train.csv.gz", "ab", 1_000, 300)
    hourly(tmp_path / "m4_hourly_test.csv.gz", "ab", 1_300, 6)
    hourly(tmp_path / "etth1.csv.gz", "cd", 1_000, 400)
    page = tmp_path / "accuracy.md"
    markers = public_benchmarks._BEGIN, public_benchmarks._END
    page.write_text("\n".join([*markers, public_benchmarks._EXPERTS_BEGIN, public_benchmarks._EXPERTS_END]))
    arguments = ["--data", str(tmp_path), "--work", str(tmp_path / "work"), "--document", str(page)]
    asked = ("m4_hourly", "etth1", "m4_hourly_on_experts")
    assert public_benchmarks.main([*arguments, *(word for name in asked for word in ("--only", name))]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(last) == set(asked)
    assert all(0 < value < 200 for figures in last.values() for value in figures.values())
    kept = [json.loads((tmp_path / "work" / f"{name}.0.json").read_text()) for name in last]
    assert [one["origins"] for one in kept] == [2, 4, 2]
    assert page.read_text().count("seasonal naive") == 2
    assert "\n| m4_hourly | 0 | " in page.read_text()
    monkeypatch.setattr(public_benchmarks, "RECIPE", small)
    assert public_benchmarks.main([*arguments, "--only", "etth1"]) == 2
    assert "remove it" in capsys.readouterr().err


def test_a_finished_run_is_not_done_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    calls: list[Path] = []

    def measure(folder: Path) -> DriftCoverage:
        calls.append(folder)
        return DriftCoverage(0.8, 0.7, 0.8)

    monkeypatch.setattr("rillcast_training.research.drift.measure", measure)
    for _ in range(2):
        assert (
            public_benchmarks.main(["--data", str(tmp_path), "--work", str(tmp_path / "work"), "--only", "drift"]) == 0
        )
    assert len(calls) == 1
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"drift_coverage80": {"on": 0.8, "off": 0.7}}


def test_a_shipped_bundle_is_scored_once_and_again_when_it_is_another(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    scored: list[str] = []

    def score(bundle: Any, *_: object) -> dict[str, Any]:
        scored.append(bundle.metadata.model_id)
        return run_of(0.03, 0)

    monkeypatch.setattr(
        public_benchmarks,
        "PROTOCOLS",
        (public_benchmarks.Protocol("etth1", ("etth1.csv.gz",), 6, test=(1_300, 1_312)),),
    )
    monkeypatch.setattr(public_benchmarks, "score", score)
    hourly(tmp_path / "etth1.csv.gz", "cd", 1_000, 400)
    arguments = ["--data", str(tmp_path), "--work", str(tmp_path / "work"), "--only", "universal"]
    for shipped in ("one", "one", "another"):
        bundle = SimpleNamespace(metadata=SimpleNamespace(model_id=shipped))
        monkeypatch.setattr("rillcast.bundle.bundle.Bundle.load", lambda _, it=bundle: it)
        assert public_benchmarks.main(arguments) == 0
    assert scored == ["one", "another"]
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["universal"]["etth1"]["wql"] == 0.03


def test_finished_runs_can_be_tabulated_before_the_rest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("a training run was started")

    monkeypatch.setattr(public_benchmarks, "train", never)
    hourly(tmp_path / "m4_hourly_train.csv.gz", "ab", 1_000, 48)
    hourly(tmp_path / "m4_hourly_test.csv.gz", "ab", 1_048, 6)
    work = tmp_path / "work"
    work.mkdir()
    for seed, wql in ((0, 0.02), (2, 0.03)):
        done = run_of(wql, seed) | {"recipe": public_benchmarks.RECIPE}
        (work / f"m4_hourly.{seed}.json").write_text(json.dumps(done))
    arguments = ["--data", str(tmp_path), "--work", str(work), "--seeds", "5", "--finished"]
    assert public_benchmarks.main([*arguments, "--only", "m4_hourly", "--only", "etth1"]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(last) == {"m4_hourly"}
    assert last["m4_hourly"]["wql"] == pytest.approx(0.025)


def test_streams_change_half_way_and_only_if_they_are_to() -> None:
    half = 1_000
    for drift, factor in ((True, 2.0), (False, 1.0)):
        ratios, jumps = [], []
        for one in drifting_streams(20, half=half, drift=drift):
            season = one.y[24:] - one.y[:-24]
            before, after = season[: half - 24].std(), season[half:].std()
            ratios.append(after / before)
            jumps.append(abs(one.y[half:].mean() - one.y[:half].mean()) / before)
        assert np.median(ratios) == pytest.approx(factor, rel=0.1)
        assert (min(jumps) > 3) == drift
