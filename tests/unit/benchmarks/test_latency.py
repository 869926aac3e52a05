"""`rillcast bench latency`: which run is shown, and which ones do not count."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rillcast.benchmarks import latency
from rillcast.errors import TransportError
from rillcast.settings import Settings
from tests.support.toy import write_toy

CALM, STEPPED = 0.002, 17.5  # seconds by which the wall clock moved against the monotonic one in a run


def measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, runs: list[tuple[float, float]], repeat: int
) -> dict[str, Any]:
    """Measure with runs of these 99th percentiles, in which the clock was stepped by these seconds."""
    left: Iterator[tuple[float, float]] = iter(runs)
    now = [0.0]

    def run(*_: object) -> dict[str, Any]:
        p99_ms, stepped_s = next(left)
        now[0] += stepped_s
        return {"p50_ms": 1.0, "p99_ms": p99_ms, "p999_ms": p99_ms, "max_ms": p99_ms}

    monkeypatch.setattr(latency, "_run", run)
    monkeypatch.setattr("rillcast.benchmarks.latency.time.time", lambda: now[0])
    monkeypatch.setattr("rillcast.benchmarks.latency.time.monotonic", lambda: 0.0)
    args = argparse.Namespace(rate=10.0, seconds=1.0, streams=2, events=10, partitions=1, repeat=repeat)
    return latency.measure(args, Settings(model=str(write_toy(tmp_path / "toy.onnx", 31))))


def test_the_run_in_the_middle_is_shown_with_the_quantiles_of_all(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = measured(monkeypatch, tmp_path, [(400.0, CALM), (20.0, CALM), (30.0, CALM)], repeat=3)
    assert found["p99_ms"] == 30.0
    assert [run["p99_ms"] for run in found["runs"]] == [20.0, 30.0, 400.0]
    latency.show(found)
    assert "p50_ms 1, p99_ms 400" in capsys.readouterr().out


def test_a_run_in_which_the_clock_was_stepped_is_made_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = measured(monkeypatch, tmp_path, [(17_000.0, STEPPED), (20.0, CALM)], repeat=1)
    assert [run["p99_ms"] for run in found["runs"]] == [20.0]
    assert "stepped by 17.500 s" in caplog.text


def test_a_clock_that_is_stepped_all_the_time_gives_no_figures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(TransportError, match="stepped in 3 of 4 runs"):
        measured(monkeypatch, tmp_path, [(1.0, STEPPED), (1.0, CALM), (1.0, -STEPPED), (1.0, STEPPED)], repeat=2)
