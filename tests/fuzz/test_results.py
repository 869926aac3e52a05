"""The file in which runs of the fuzz tests accumulate."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.fuzz import run
from tests.fuzz.results import Ran, append, read, table


def test_results_accumulate_and_are_summed(tmp_path: Path) -> None:
    path = tmp_path / "fuzz.jsonl"
    assert read(path) == []
    ran = [Ran("json", 1, 100, 100, False, "a"), Ran("json", 2, 100, 7, True, "b"), Ran("csv", 1, 10, 10, False, "a")]
    for each in ran:
        append(path, each)
    assert read(path) == ran
    lines = table(ran).splitlines()
    assert [line.split() for line in lines[:3]] == [["json", "107"], ["csv", "10"], ["all", "117"]]
    assert lines[3:] == ["CRASHED on b: python -m tests.fuzz.run --seed 2 --target json --only 7"]


def test_runs_that_a_file_has_are_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int, int]] = []

    def fuzz(name: str, seed: int, inputs: int) -> int | None:
        asked.append((name, seed, inputs))
        return 3 if seed == 8 else None

    monkeypatch.setattr(run, "fuzz", fuzz)
    arguments = ["fuzz", "--inputs", "50", "--target", "csv", "--results", str(tmp_path / "fuzz.jsonl"), "--seed"]
    codes = []
    for seed in ("7", "7", "8", "8"):
        monkeypatch.setattr(sys, "argv", [*arguments, seed])
        codes.append(run.main())
    assert asked == [("csv", 7, 50), ("csv", 8, 50)]
    assert codes == [0, 0, 1, 1], "a crash stays a crash"
