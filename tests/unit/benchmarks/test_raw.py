"""The benchmark of raw events measures what it says, on a small scale; no figure is judged here."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import pytest

from rillcast.benchmarks.raw import measure
from tests.support.toy import write_toy


@pytest.mark.parametrize("close", ["stream", "partition"])
def test_joining_and_closing_are_told_apart(close: str, tmp_path: Path) -> None:
    args = argparse.Namespace(
        model=write_toy(tmp_path / "toy.onnx"),
        device="cpu",
        threads=1,
        aggregate="sum",
        close=close,
        streams=20,
        events=30,
        poll=100,
        periods=2,
    )
    figures = measure(args)
    assert figures["joining_events"] == 2 * (600 - 100), "each period's first poll closes the one before"
    times = figures["us_per_joining_event"], figures["us_per_closed_period"]
    assert all(math.isfinite(time) for time in times)  # differences of times, below 0 where other work disturbs them
