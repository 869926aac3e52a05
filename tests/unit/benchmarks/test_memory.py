"""The benchmark of memory measures what it says, on a small scale; no figure is judged here."""

from __future__ import annotations

import argparse
from pathlib import Path

from rillcast.benchmarks.memory import measure
from tests.support.toy import write_toy


def test_memory_counts_streams_and_their_rows(tmp_path: Path) -> None:
    args = argparse.Namespace(model=write_toy(tmp_path / "toy.onnx"), streams=40_000, rounds=1, pages=4)
    figures = measure(args)
    assert figures["row_bytes"] == 8
    assert 8 < figures["rss_bytes_per_stream"] < 1_000
    assert figures["export_of_4_pages_s"] > 0
