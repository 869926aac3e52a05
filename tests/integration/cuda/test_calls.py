"""What a call asks of a GPU: at most what `calls.json` says, for every cell and for shipped bundles.

A larger number is a regression that no test on a CPU would show. `python -m tests.support.cuda_stand_in.calls` writes
the file again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest

from rillcast.bundle.shipped import names
from rillcast_training.model.cells import CELLS
from tests.support.cuda_stand_in import calls
from tests.support.cuda_stand_in.build import StandIn

SHIPPED: Final = ("universal:1h",)
"""The others are made by the same code, and take two seconds each to load."""


@pytest.fixture(scope="module")
def allowed() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(calls.FILE.read_text())
    return found


def test_the_file_has_every_cell_and_every_shipped_bundle(allowed: dict[str, Any]) -> None:
    assert set(allowed) == {*CELLS, *names()}


def test_no_bundle_needs_cudnn_or_memory_in_a_call(allowed: dict[str, Any]) -> None:
    counted = {name for counts in allowed.values() for part in counts.values() for name in part}
    assert counted.isdisjoint({"cudnn", "allocations", "pageable", "captured_pageable"})


def test_a_call_asks_for_no_more_than_the_file_says(stand_in: StandIn, allowed: dict[str, Any], tmp_path: Path) -> None:
    """Each step is captured, which ONNX Runtime refuses where a node runs on the CPU or copies from there."""
    bundles = [*calls.write_cells(tmp_path), *SHIPPED]
    done = stand_in.run(calls.COUNT, {"BUNDLES": json.dumps(bundles)})
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) == len(bundles)
    above = {
        f"{Path(bundle).stem} {part} {name}": (count, allowed[Path(bundle).stem][part].get(name, 0))
        for bundle, counts in found.items()
        for part, by_name in counts.items()
        for name, count in by_name.items()
        if count > allowed[Path(bundle).stem][part].get(name, 0)
    }
    assert above == {}, "(found, allowed)"
    for counts in found.values():
        call = counts["call"]
        assert call["replays"] == 1
        # The host reads and fills its buffers as soon as a copy returns.
        assert call["blocking"] == call["to_device"] + call["to_host"]
