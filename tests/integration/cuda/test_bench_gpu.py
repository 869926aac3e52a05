"""`rillcast bench gpu` over a CUDA that computes nothing: it runs to its end, and claims nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from rillcast.bundle.bundle import seal
from tests.support.cuda_stand_in.build import StandIn
from tests.support.toy import MULTIPLIER, ToyGraph, toy_sequence

NO_WHEELS = """
import onnxruntime
onnxruntime.preload_dlls = lambda *_, **__: None  # the libraries of NVIDIA's wheels do not work without a driver
"""
BENCH = """
import os, sys
from rillcast import cli
if __name__ == "__main__":
    sys.exit(cli.main(["bench", "gpu", os.environ["MODEL"], "--short", "--limit-s", "800", "--json"]))
"""


@pytest.mark.timeout(900)  # 20 s of processor time in 10 processes, on a machine that may be busy
def test_every_part_runs_and_no_number_passes(
    stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service refuses a GPU that computes wrong numbers; its failure is recorded, and ends nothing."""
    (tmp_path / "sitecustomize.py").write_text(NO_WHEELS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    toy = ToyGraph()
    (tmp_path / "toy.onnx").write_bytes(seal(toy.model(), toy.metadata(), toy_sequence(MULTIPLIER)))
    done = stand_in.run(BENCH, {"MODEL": str(tmp_path / "toy.onnx")})
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    found = figures["found"]
    failed = {name: each["error"] for name, each in found.items() if "error" in each}
    assert set(failed) == {"service cuda", "service cuda, 2 members"}
    assert all("the GPU computed" in reason for reason in failed.values())
    assert not figures["comparable"]
    compared = [each for each in found.values() if "values" in each]
    assert len(compared) == 8
    assert all(each["agrees"] is None for each in compared)
    assert found["parity graphs"]["outcomes"]["stepped"] > 0
    assert found["odd events plain"]["outcomes"]["stepped"] > 0
    ways = {"cpu", "plain", "graphs", "graphs_pageable", "graphs_tf32"}
    rates = [each for name, each in found.items() if name.startswith("steps per second")]
    assert rates
    assert all(set(each) == ways and all(rate > 0 for rate in each.values()) for each in rates)
    assert found["probe"]["page_locked"]
    assert all(rate > 0 for rate in found["catch-up of 4 streams"].values())
