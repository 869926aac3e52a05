"""`rillcast bench`: the instrument of the project. Ratios are taken within one run, on a machine that is named."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from pipeline.errors import SettingsError

HELP: Final = "measure the engine on this machine"
EXAMPLES: Final = """\
examples:
  rillcast bench step model.onnx
  rillcast bench step model.onnx --batches 1,64,256 --json
  rillcast bench flatness model.onnx --age 100000

`step` gives whole steps per second by batch size. `flatness` compares the cost of an event early in a stream's life
with that of an event late in it, the two measured in turns, so that a drift of the machine's speed cancels out.
"""
_START_MS: Final = 1_704_067_200_000  # 2024-01-01T00:00:00Z


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    for name, text in (("step", "engine steps per second by batch size"), ("flatness", "cost of an event by its step")):
        kind = kinds.add_parser(name, help=text)
        kind.add_argument("model", type=Path, help="bundle (.onnx)")
        kind.add_argument("--device", choices=["auto", "cuda", "cpu"], default="auto", help="where to run it")
        kind.add_argument("--threads", type=int, default=1, help="threads of ONNX Runtime inside one call")
        kind.add_argument("--json", action="store_true", help="one JSON object")
        if name == "step":
            kind.add_argument("--batches", default="1,16,64,256,1024", help="batch sizes")
            kind.add_argument("--streams", type=int, default=10_000, help="resident streams")
            kind.add_argument("--seconds", type=float, default=1.0, help="time per batch size and round")
            kind.add_argument("--rounds", type=int, default=3, help="rounds; the median is reported")
        else:
            kind.add_argument("--age", type=int, default=100_000, help="steps of the old streams")
            kind.add_argument("--young", type=int, default=100, help="steps of the young streams")
            kind.add_argument("--batch", type=int, default=32, help="streams per call")
            kind.add_argument("--blocks", type=int, default=40, help="pairs of measurements")


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    figures = _step(args) if args.kind == "step" else _flatness(args)
    figures["machine"] = _machine()
    if args.json:
        print(json.dumps(figures))
    else:
        _print(figures)
    return 0


class _Load:
    """A model and events for it: every stream in turn, one slot further each time round."""

    def __init__(self, args: argparse.Namespace, batch_rows: int) -> None:
        from pipeline import device
        from pipeline.bundle import Bundle
        from pipeline.engine import StepEngine

        bundle = Bundle.load(args.model)
        on = device.choose(args.device, args.threads)
        self.engine = StepEngine(bundle, on, batch_rows=batch_rows)
        self.step_ms = bundle.metadata.step_ms
        self._offset = 0
        self.about = {"model": f"{bundle.metadata.name}@{bundle.metadata.model_id}", "device": on.name}

    def step(self, partition: int, unique_ids: list[str], slot: int) -> None:
        """Step streams at one slot with a value that has a daily shape, so that states stay ordinary."""
        n = len(unique_ids)
        y = np.sin(np.arange(n) + slot * (2 * np.pi / 24)).astype(np.float32) * 10 + 100
        ds = np.full(n, _START_MS + slot * self.step_ms, np.int64)
        offsets = np.arange(self._offset, self._offset + n, dtype=np.int64)
        self._offset += n
        self.engine.step(np.full(n, partition, np.int64), offsets, unique_ids, ds, y)


def _step(args: argparse.Namespace) -> dict[str, Any]:
    try:
        batches = [int(text) for text in args.batches.split(",")]
    except ValueError as error:
        raise SettingsError(f"--batches {args.batches!r}: expected whole numbers separated by commas") from error
    if min(batches) < 1 or max(batches) > args.streams:
        raise SettingsError(f"--batches {args.batches!r}: each must be between 1 and --streams {args.streams}")
    loads = {batch: _Load(args, batch) for batch in batches}
    unique_ids = [f"stream-{number}" for number in range(args.streams)]
    for load in loads.values():
        load.step(0, unique_ids, 0)
    rates: dict[int, list[float]] = {batch: [] for batch in batches}
    slots = dict.fromkeys(batches, 1)
    for _ in range(args.rounds):
        for batch in batches:
            groups = [unique_ids[first : first + batch] for first in range(0, args.streams - batch + 1, batch)]
            done, started = 0, time.perf_counter()
            while (elapsed := time.perf_counter() - started) < args.seconds:
                group = groups[done % len(groups)]
                if done and done % len(groups) == 0:
                    slots[batch] += 1
                loads[batch].step(0, group, slots[batch])
                done += 1
            slots[batch] += 1
            rates[batch].append(done * batch / elapsed)
    return loads[batches[0]].about | {
        "streams": args.streams,
        "threads": args.threads,
        "steps": [
            {
                "batch": batch,
                "steps_per_second": statistics.median(measured),
                "min": min(measured),
                "max": max(measured),
                "us_per_step": 1e6 / statistics.median(measured),
            }
            for batch, measured in rates.items()
        ],
    }


def _flatness(args: argparse.Namespace) -> dict[str, Any]:
    load = _Load(args, args.batch)
    old = [f"old-{number}" for number in range(args.batch)]
    young = [f"young-{number}" for number in range(args.batch)]
    for slot in range(args.age):
        load.step(0, old, slot)
    calls = 50
    old_times: list[float] = []
    young_times: list[float] = []
    for block in range(args.blocks):
        load.engine.residents.release(1)
        for slot in range(args.young):
            load.step(1, young, slot)
        at = args.age + block * calls
        # In turns, and each first every other time, so that neither profits from the other's warm cache.
        pair: list[tuple[list[float], Callable[[int], None]]] = [
            (young_times, lambda call: load.step(1, young, args.young + call)),
            (old_times, lambda call, at=at: load.step(0, old, at + call)),  # type: ignore[misc]
        ]
        for times, step in pair if block % 2 else reversed(pair):
            started = time.perf_counter()
            for call in range(calls):
                step(call)
            times.append((time.perf_counter() - started) / (calls * args.batch))
    ratios = [o / y for o, y in zip(old_times, young_times, strict=True)]
    return load.about | {
        "batch": args.batch,
        "young_step": args.young,
        "old_step": args.age,
        "young_us_per_event": statistics.median(young_times) * 1e6,
        "old_us_per_event": statistics.median(old_times) * 1e6,
        "old_to_young_ratio": statistics.median(ratios),
        "ratio_quartiles": statistics.quantiles(ratios, n=4),
    }


def _machine() -> dict[str, Any]:
    import onnxruntime

    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
        "numpy": np.__version__,
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _print(figures: dict[str, Any]) -> None:
    print(f"{figures['model']} on {figures['device']}")
    if "steps" in figures:
        print(f"{figures['streams']:,} streams, {figures['threads']} thread(s)")
        print(f"{'batch':>7} {'steps/s':>12} {'us/step':>9}   min .. max steps/s")
        for row in figures["steps"]:
            print(
                f"{row['batch']:>7} {row['steps_per_second']:>12,.0f} {row['us_per_step']:>9.2f}"
                f"   {row['min']:,.0f} .. {row['max']:,.0f}"
            )
    else:
        low, middle, high = figures["ratio_quartiles"]
        print(f"step {figures['young_step']:>9,}: {figures['young_us_per_event']:.2f} us per event")
        print(f"step {figures['old_step']:>9,}: {figures['old_us_per_event']:.2f} us per event")
        print(f"ratio {figures['old_to_young_ratio']:.3f} (quartiles {low:.3f}, {middle:.3f}, {high:.3f})")
    machine = figures["machine"]
    print(f"{machine['cpu']}, {machine['cores']} cores; ONNX Runtime {machine['onnxruntime']}")
