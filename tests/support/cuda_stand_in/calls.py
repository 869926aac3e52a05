"""What a call of a bundle's step asks of a GPU, by the stand-in's count: launches, copies, waits.

`python -m tests.support.cuda_stand_in.calls` counts every cell and every shipped bundle, and writes the file that the
tests hold them to. A change that costs launches is so seen in review.

Owns: that file, and the counting. Does not know: how long a launch takes.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import onnxruntime as ort

from rillcast.bundle.bundle import Bundle
from rillcast.bundle.shipped import names
from rillcast.engine.batcher import Batching, Runs
from rillcast.engine.cuda_graphs import RUN_OPTION
from rillcast.engine.device import Device
from rillcast.engine.step_engine import StepEngine
from rillcast.events import EventBatch
from tests.support.cuda_stand_in.build import Seen, build

FILE: Final = Path(__file__).parents[2] / "integration/cuda/calls.json"
Counts: TypeAlias = dict[str, int]
_ROWS: Final = 10
_NO_CAPTURE: Final = "-1"


def of_bundles(paths: Iterable[str]) -> dict[str, dict[str, Counts]]:
    """Return by bundle what its step does without a graph (`step`), and a whole call with one (`call`).

    To be called in a process over the stand-in.
    """
    ort.preload_dlls = lambda: None  # the libraries of NVIDIA's wheels do not work without a driver
    ort.set_default_logger_severity(3)
    seen = Seen()
    return {path: _of_bundle(path, seen) for path in paths}


def _of_bundle(path: str, seen: Seen) -> dict[str, Counts]:
    bundle = Bundle.load(path)
    engine = StepEngine(bundle, Device("cuda", cuda_graphs=True), batching=Batching(16, (16,), Runs()))
    ids = [f"s{row}" for row in range(_ROWS)]

    def call(number: int) -> None:
        ds = np.full(_ROWS, bundle.metadata.frequency.ahead(0, np.array([number]))[0])
        engine.step(EventBatch.of(ids, ds, np.ones(_ROWS, np.float32), first_offset=number * _ROWS))

    call(0)  # captures
    before = seen.counts()
    call(1)
    of_call = _difference(before, seen.counts())
    step = engine._runner._step
    (bucket,) = step._buckets.values()
    options = ort.RunOptions()
    options.add_run_config_entry(RUN_OPTION, _NO_CAPTURE)
    before = seen.counts()
    step._session.run_with_iobinding(bucket.binding, options)
    assert seen.faults == []
    return {"step": _difference(before, seen.counts()), "call": of_call}


def _difference(before: Mapping[str, int], after: Mapping[str, int]) -> Counts:
    counts = {name: after[name] - before[name] for name in after}
    counts["launches"] = counts.pop("kernels") + counts.pop("products")
    return {name: count for name, count in sorted(counts.items()) if count}


def write_cells(folder: Path) -> list[str]:
    """Write a small bundle of each cell, without a sequence graph and without proof of its numbers."""
    from rillcast.bundle.bundle import seal
    from rillcast_training.export.bundle import describe, to_onnx
    from rillcast_training.model.cells import CELLS
    from tests.support.forecasters import random_forecaster, small_config

    paths = []
    for cell in CELLS:
        forecaster = random_forecaster(small_config(cell=cell))
        sealed = seal(to_onnx(forecaster), describe(forecaster, name=cell, training={}, backtest={}))
        (folder / f"{cell}.onnx").write_bytes(sealed)
        paths.append(str(folder / f"{cell}.onnx"))
    return paths


COUNT: Final = """
import json, os
from tests.support.cuda_stand_in import calls
print(json.dumps(calls.of_bundles(json.loads(os.environ["BUNDLES"]))))
"""
"""Code for a process over the stand-in."""


def main() -> None:
    """Count everything and write the file."""
    with tempfile.TemporaryDirectory() as folder:
        cells = write_cells(Path(folder))
        done = build(Path(folder)).run(COUNT, {"BUNDLES": json.dumps([*cells, *names()])})
    if done.returncode:
        raise SystemExit(done.stderr)
    found = {Path(name).stem: counts for name, counts in json.loads(done.stdout.splitlines()[-1]).items()}
    FILE.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
