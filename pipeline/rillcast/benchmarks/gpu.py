"""Everything that a GPU should be asked once: does it work, is it right, is it worth having.

Each part runs in a process of its own with a time limit, because an error of CUDA spoils its process, or ends it. A
failure is recorded, and the next part goes on.

Owns: the parts, their processes and limits. Does not know: what a part measures, or what follows from it
(`gpu_page`).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import multiprocessing
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, Final, NamedTuple

import numpy as np
import onnxruntime as ort

from rillcast.benchmarks import gpu_numbers, gpu_page, gpu_speed
from rillcast.benchmarks.gpu_numbers import Amount, Measurement
from rillcast.benchmarks.gpu_speed import Effort
from rillcast.benchmarks.load import name_of
from rillcast.bundle.bundle import Bundle
from rillcast.engine import device, host_memory
from rillcast.engine.device import Device

ENVIRONMENT: Final = "environment"
_ERRORS: Final = 3  # of ONNX Runtime's log
_SHORT_AMOUNT: Final = Amount(streams=100, steps=8)
_SHORT_EFFORT: Final = Effort(batches=(1, 64), seconds=0.02, rounds=1, events=400, backlogs=(4,))


class Part(NamedTuple):
    """A part of the benchmark, in a process of its own.

    Attributes:
        name: Its name.
        measurements: Yields what it measures.
        limit_s: Seconds until it is ended.
    """

    name: str
    measurements: Callable[[], Iterable[Measurement]]
    limit_s: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the benchmark's arguments."""
    parser.add_argument("--limit-s", type=float, default=280.0, help="seconds; later parts do not run (default: 280)")
    parser.add_argument("--short", action="store_true", help="show in a minute that every part runs; no figure counts")


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Return what every part found, or why it found nothing."""
    amount, effort = (_SHORT_AMOUNT, _SHORT_EFFORT) if args.short else (Amount(), Effort())
    parts = [
        Part(ENVIRONMENT, environment, 60),
        *(
            Part(
                f"numbers {how}", partial(gpu_numbers.measurements, args.model, amount, graphs=how == "with graphs"), 90
            )
            for how in ("without graphs", "with graphs")
        ),
        Part("rates", partial(gpu_speed.rates, args.model, effort), 90),
        Part("service", partial(gpu_speed.service, args.model, effort), 120),
    ]
    began, found = time.monotonic(), dict[str, Any]()
    for part in parts:
        left = args.limit_s - (time.monotonic() - began)
        if left <= 0:
            found[part.name] = {"error": f"not run: {args.limit_s:g} s were over (--limit-s)"}
            continue
        if part.name != ENVIRONMENT and not _loads(found):
            found[part.name] = {"error": "not run: CUDA does not work here"}
            continue
        limit_s = left if args.short else min(left, part.limit_s)  # a short run may be on a busy machine
        for name, figures in _in_process(part, limit_s):
            found[name] = figures
    comparable = bool(found.get("probe", {}).get("computes"))
    if not comparable:  # equal or not, it would mean nothing
        found = {name: each | {"agrees": None} if "agrees" in each else each for name, each in found.items()}
    return {
        "model": name_of(Bundle.load(args.model)),
        "short": args.short,
        "seconds": time.monotonic() - began,
        "comparable": comparable,
        "found": found,
    }


def show(figures: dict[str, Any]) -> None:
    """Print the page."""
    print(gpu_page.of(figures))


def _loads(found: dict[str, Any]) -> bool:
    """Return whether CUDA can be loaded; numbers that are wrong are not compared, but the rest runs."""
    return bool(found.get("probe", {}).get("loads"))


def environment() -> Iterator[Measurement]:
    """Yield what the machine is, and whether CUDA works on it."""
    yield "gpu", _gpu
    yield "versions", _versions
    yield "probe", _probe


def _gpu() -> dict[str, Any]:
    asked = "name,driver_version,memory.total,compute_cap,mig.mode.current,compute_mode,pcie.link.gen.max"
    program = shutil.which("nvidia-smi")
    if program is None:
        return {"skipped": "nvidia-smi is not installed"}
    command = [program, f"--query-gpu={asked}", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)  # noqa: S603  found above
    values = done.stdout.splitlines()[0].split(",")
    return {name: value.strip() for name, value in zip(asked.split(","), values, strict=True)}


def _versions() -> dict[str, Any]:
    installed = {one.metadata["Name"]: one.version for one in importlib.metadata.distributions()}
    wheels = {name: version for name, version in sorted(installed.items()) if str(name).startswith("nvidia-")}
    return {"onnxruntime": ort.__version__, "build": ort.get_build_info(), "wheels": wheels}


def _probe() -> dict[str, Any]:
    reason = device.cuda_missing()
    try:
        Device("cuda").upload(np.zeros(1, np.float32))
        loads = True
    except Exception as error:  # noqa: BLE001  ONNX Runtime's exceptions share no other base
        loads, reason = False, reason or str(error)
    return {
        "loads": loads,
        "computes": reason is None,
        "reason": reason or "",
        "page_locked": loads and host_memory.is_page_locked(host_memory.page_locked((1,), np.float32)),
    }


@dataclass(frozen=True)
class _Failure:
    """A measurement that failed, as it goes through the pipe."""

    reason: str


def _in_process(part: Part, limit_s: float) -> Iterator[tuple[str, dict[str, Any]]]:
    """Run a part in a new process and yield what it has measured, as far as it comes."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(there, part))
    process.start()
    there.close()
    deadline, failure = time.monotonic() + limit_s, None
    try:
        while True:
            if not here.poll(max(0.0, deadline - time.monotonic())):
                failure = f"ended: it was still running after {limit_s:.0f} s"
                break
            received = here.recv()
            if received is None:
                break
            name, outcome = received
            yield name, {"error": outcome.reason} if isinstance(outcome, _Failure) else outcome
    except EOFError:
        process.join()
        failure = f"its process ended with exit code {process.exitcode}"
    finally:
        process.kill()
        process.join()
    if failure is not None:
        yield part.name, {"error": failure}


def _child(connection: Connection, part: Part) -> None:
    device.cuda_missing()  # loads the libraries of NVIDIA's wheels
    ort.set_default_logger_severity(_ERRORS)
    try:
        for name, measured in part.measurements():
            try:
                connection.send((name, measured()))
            except Exception as error:  # noqa: BLE001  it is in the report
                connection.send((name, _Failure(f"{type(error).__name__}: {error}")))
    except Exception as error:  # noqa: BLE001  as above, where the part cannot even begin
        connection.send((part.name, _Failure(f"{type(error).__name__}: {error}")))
    connection.send(None)
    connection.close()
