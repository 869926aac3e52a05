"""The benchmark of late events measures what it says, on a small scale; no figure is judged here."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from rillcast.benchmarks.late_events import measure
from rillcast.errors import SettingsError
from tests.support.toy import write_toy


def arguments(model: Path, **changes: object) -> argparse.Namespace:
    options = {"periods": 3, "within": 3.0, "streams": 20, "length": 12, "blocks": 2, "batch": 64, "seed": 0}
    return argparse.Namespace(model=model, device="cpu", threads=1, **(options | changes))


def test_late_events_are_counted_with_the_steps_that_replay_them(tmp_path: Path) -> None:
    figures = measure(arguments(write_toy(tmp_path / "toy.onnx")))
    assert 0 < figures["put_share"] < 1
    assert 1 <= figures["steps_again_per_put"] <= 2 * 3 + 1
    assert figures["us_per_event_disordered"] > 0


def test_events_that_would_be_later_than_allowed_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--within 4"):
        measure(arguments(write_toy(tmp_path / "toy.onnx"), within=4))
