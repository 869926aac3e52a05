"""ONNX Runtime's real CUDA provider over a CUDA that computes nothing: what it decides on the host, without a GPU.

Each test runs in a process of its own, because the libraries are found when a process starts.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.cuda_stand_in.build import StandIn
from tests.support.forecasters import write_network

HEAD = """
import ctypes, json, os, threading
import numpy as np
import onnxruntime as ort
from rillcast import Bundle, EventBatch, StepEngine
from rillcast.engine import device
from rillcast.engine.batcher import Batching, Runs
from rillcast.engine.device import Device
from rillcast.engine.step_engine import NO_LIMITS, Limits
from tests.support.cuda_stand_in.build import Seen

BUCKETS = 10, 1000
seen = Seen()
ort.preload_dlls = lambda: None  # the libraries of NVIDIA's wheels do not work without a driver
offset = 0

def load(on, limits=NO_LIMITS):
    batching = Batching(BUCKETS[-1], BUCKETS, Runs())
    return StepEngine(Bundle.load(os.environ["NETWORK"]), on, batching=batching, limits=limits)

def step(engine, rows):
    global offset
    ids, ds = [f"s{row}" for row in range(rows)], np.full(rows, offset * 3_600_000)
    engine.step(EventBatch.of(ids, ds, np.ones(rows, np.float32), first_offset=offset))
    offset += rows
"""


@pytest.fixture(scope="module", autouse=True)
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A bundle for the processes, which loads in a tenth of a shipped one's time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NETWORK", str(write_network(tmp_path_factory.mktemp("network") / "network.onnx")))
        yield


def found(stand_in: StandIn, code: str, **variables: str) -> dict[str, Any]:
    """Run a test's code and return the JSON object that it prints last."""
    done = stand_in.run(HEAD + code, variables)
    assert done.returncode == 0, done.stdout + done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def refusal(stand_in: StandIn, before: str = "", **variables: str) -> str:
    """Return the error of `device=cuda`."""
    code = f"""
{before}
try:
    device.choose("cuda")
    print(json.dumps(dict(error="")))
except device.DeviceError as error:
    print(json.dumps(dict(error=str(error))))
"""
    return str(found(stand_in, code, **variables)["error"])


def test_replays_of_one_size_write_over_nothing_that_another_size_reads(stand_in: StandIn) -> None:
    """The switch for calibration is the only value that stays and came from the host in 4 bytes, as 1.0."""
    result = found(
        stand_in,
        """
engine = load(Device("cuda", cuda_graphs=True))
step(engine, 1000)  # captures; its memory in the session's arena is free afterwards
step(engine, 10)
value_at = lambda address: ctypes.c_float.from_address(address).value
switches = [address for address in seen.copied_from_host(4) if value_at(address) == 1.0]
step(engine, 1000)  # replays
step(engine, 10)
values = [value_at(address) for address in switches]
print(json.dumps(dict(values=values, captures=seen.captures, replays=seen.replays, faults=seen.faults)))
""",
    )
    assert result["captures"] == 2
    assert result["replays"] >= 4
    assert result["faults"] == []
    assert result["values"]
    assert set(result["values"]) == {1.0}


def test_a_model_may_be_loaded_while_another_is_captured(stand_in: StandIn) -> None:
    result = found(
        stand_in,
        """
on = Device("cuda", cuda_graphs=True)
engine, failed, loaded, done = load(on), [], [], threading.Event()

def watch():
    try:
        while not done.is_set():
            loaded.append(load(on))
    except Exception as error:
        failed.append(str(error))

thread = threading.Thread(target=watch)
thread.start()
try:
    for rows in BUCKETS:
        step(engine, rows)
except Exception as error:
    failed.append(str(error))
done.set()
thread.join()
print(json.dumps(dict(failed=failed, faults=seen.faults, captures=seen.captures, loaded=len(loaded))))
""",
        CUDA_STAND_IN_CAPTURE_MS="500",
    )
    assert result["faults"] == []
    assert result["failed"] == []
    assert result["captures"] == 2
    assert result["loaded"] >= 1


def test_products_keep_float32_unless_tf32_is_on(stand_in: StandIn) -> None:
    result = found(
        stand_in,
        """
step(load(Device("cuda")), 10)
products, without = seen.products, seen.tf32_modes
offset = 0
step(load(Device("cuda", tf32=True)), 10)
print(json.dumps(dict(products=products, without=without, tf32=seen.tf32_modes)))
""",
    )
    assert result["products"] > 0
    assert result["without"] == 0
    assert result["tf32"] > 0


def test_a_gpu_that_computes_wrong_numbers_is_refused(stand_in: StandIn) -> None:
    error = refusal(stand_in)
    assert "the GPU computed" in error
    assert "in a probe, expected" in error


def test_a_gpu_without_kernels_is_refused(stand_in: StandIn) -> None:
    assert "no kernel image is available" in refusal(stand_in, CUDA_STAND_IN_NO_KERNELS="1")


def test_the_error_names_the_missing_library(stand_in: StandIn, tmp_path: Path) -> None:
    folder = tmp_path / "without"
    shutil.copytree(stand_in.folder, folder)
    (folder / "libcurand.so.10").unlink()
    error = refusal(StandIn(folder))
    assert "libcurand.so.10: cannot open shared object file" in error
    assert "CUDA 13" in error


def test_libraries_of_the_wheels_are_loaded_before_the_provider(stand_in: StandIn, tmp_path: Path) -> None:
    """The provider names no place to look in, and finds libraries that are loaded already."""
    wheels = tmp_path / "wheels"
    shutil.copytree(stand_in.folder, wheels)
    searched = tmp_path / "searched"
    searched.mkdir()
    for name in ("libcuda.so.1", "libcudart.so.13", "libcublas.so.13"):  # the driver's, and what `Seen` opens
        shutil.copy(wheels / name, searched)
    preload = f"ort.preload_dlls = lambda: [ctypes.CDLL({str(wheels)!r} + '/' + name) for name in LIBRARIES]"
    names = ["libcudart.so.13", "libcublasLt.so.13", "libcublas.so.13", "libcurand.so.10"]
    error = refusal(StandIn(searched), f"LIBRARIES = {names}\n{preload}")
    assert "the GPU computed" in error, "the provider was loaded, and its probe ran"


def test_state_of_the_right_first_size_never_moves(stand_in: StandIn) -> None:
    result = found(
        stand_in,
        """
captures = []
for initial_streams in (0, 5_000):
    offset, before = 0, seen.captures
    engine = load(Device("cuda", cuda_graphs=True), Limits(initial_streams=initial_streams))
    for rows in (10, 1000, 4000, 10):
        step(engine, rows)
    assert engine.residents.state.num_slots > 4_000
    captures.append(seen.captures - before)
print(json.dumps(dict(captures=captures, faults=seen.faults, pageable=seen.captured_pageable)))
""",
    )
    growing, large = result["captures"]
    assert large == 2, "once for each size of call"
    assert growing > large, "again, once the state has moved"
    assert result["faults"] == []
    assert result["pageable"] == 0, "a graph would read memory of the host that somebody else uses by then"


def test_copies_go_through_ordinary_memory_where_none_can_be_locked(stand_in: StandIn) -> None:
    """A log line says so once. Where memory can be locked, `test_calls` finds no copy from or to other memory."""
    code = """
import logging
logging.basicConfig()
engine = load(Device("cuda", cuda_graphs=True))
step(engine, 10)
before = seen.counts()
step(engine, 10)
after = seen.counts()
print(json.dumps({name: after[name] - before[name] for name in after}))
"""
    done = stand_in.run(HEAD + code, {"CUDA_STAND_IN_NO_PINNED": "1"})
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout.splitlines()[-1])
    copies = counts["to_device"] + counts["to_host"]
    assert counts["pageable"] == copies > 0
    assert done.stderr.count("copies to and from the GPU go through ordinary memory") == 1


def test_a_run_of_events_is_never_read_back(stand_in: StandIn) -> None:
    """Only its outputs come to the host, at its end: what loops in the graph does not wait for the host."""
    result = found(
        stand_in,
        """
engine = StepEngine(Bundle.load(os.environ["NETWORK"]), Device("cuda"), batching=Batching(10, (10,), Runs((16,))))
def run():
    global offset
    ds = (offset + np.arange(16)) * 3_600_000
    engine.step(EventBatch.of(["s"] * 16, ds, np.ones(16, np.float32), first_offset=offset))
    offset += 16
run()

class Nothing:
    run = staticmethod(lambda *_: None)

engine._runner._step = Nothing()  # what computes nothing may refuse a run, whose events are stepped singly then
before = seen.counts()
run()
after = seen.counts()
outputs = len(engine._runner.empty_outputs(1))
print(json.dumps(dict(outputs=outputs, **{name: after[name] - before[name] for name in ("to_host", "syncs")})))
""",
    )
    assert result["to_host"] == result["outputs"]
    assert result["syncs"] == 2


def test_models_load_without_warnings(stand_in: StandIn) -> None:
    """They would stand between the lines of a JSON log, 15 for each model."""
    code = """
device._wrong_result = lambda: None
load(device.choose("cuda"))
"""
    done = stand_in.run(HEAD + code)
    assert done.returncode == 0, done.stderr
    assert "ScatterND" not in done.stderr
