"""Steps per second of the engine, by batch size."""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

from rillcast.benchmarks.load import Load, whole_numbers
from rillcast.bundle.bundle import Bundle
from rillcast.engine import device
from rillcast.errors import SettingsError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the benchmark's arguments."""
    parser.add_argument("--batches", default="1,16,64,256,1000", help="batch sizes (default: 1,16,64,256,1000)")
    parser.add_argument("--cuda-graphs", action="store_true", help="measure each size with CUDA graphs too, in turns")
    parser.add_argument("--streams", type=int, default=10_000, help="resident streams (default: 10000)")
    parser.add_argument("--seconds", type=float, default=1.0, help="seconds per batch size and round (default: 1)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds; the median is reported (default: 3)")


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Return complete steps per second by batch size.

    Raises:
        SettingsError: A batch size is no number, or larger than the number of streams.
    """
    batches = whole_numbers("--batches", args.batches)
    if min(batches) < 1 or max(batches) > args.streams:
        raise SettingsError(f"--batches {args.batches!r}: each must be between 1 and --streams {args.streams}")
    bundle = Bundle.load(args.model)
    # Without and with, in turns, so that a drift of the machine's speed cancels out.
    ways = (False, True) if args.cuda_graphs else (False,)
    loads = {
        (batch, graphs): Load(bundle, device.choose(args.device, args.threads, cuda_graphs=graphs), batch)
        for batch in batches
        for graphs in ways
    }
    unique_ids = [f"stream-{number}" for number in range(args.streams)]
    for load in loads.values():
        load.step(0, unique_ids, 0)
    rates: dict[tuple[int, bool], list[float]] = {case: [] for case in loads}
    periods = dict.fromkeys(loads, 1)
    for _ in range(args.rounds):
        for case, load in loads.items():
            batch, _ = case
            groups = [unique_ids[first : first + batch] for first in range(0, args.streams - batch + 1, batch)]
            done, started = 0, time.perf_counter()
            while (elapsed := time.perf_counter() - started) < args.seconds:
                group = groups[done % len(groups)]
                if done and done % len(groups) == 0:
                    periods[case] += 1
                load.step(0, group, periods[case])
                done += 1
            periods[case] += 1
            rates[case].append(done * batch / elapsed)
    return load.about | {
        "streams": args.streams,
        "threads": args.threads,
        "steps": [
            {
                "batch": batch,
                "cuda_graphs": graphs,
                "steps_per_second": statistics.median(measured),
                "min": min(measured),
                "max": max(measured),
                "us_per_step": 1e6 / statistics.median(measured),
            }
            for (batch, graphs), measured in rates.items()
        ],
    }


def show(figures: dict[str, Any]) -> None:
    """Print a line per batch size."""
    print(f"{figures['model']} on {figures['device']}")
    print(f"{figures['streams']:,} streams, {figures['threads']} thread(s)")
    print(f"{'batch':>7} {'steps/s':>12} {'us/step':>9}   min .. max steps/s")
    for row in figures["steps"]:
        print(
            f"{row['batch']:>7} {row['steps_per_second']:>12,.0f} {row['us_per_step']:>9.2f}"
            f"   {row['min']:,.0f} .. {row['max']:,.0f}{'   CUDA graph' if row['cuda_graphs'] else ''}"
        )
