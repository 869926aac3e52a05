"""Cost of an event early and late in the life of a stream, measured in turns."""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any, Final

from rillcast.benchmarks.load import Load
from rillcast.bundle.bundle import Bundle
from rillcast.engine import device

_CALLS: Final = 50  # in a measurement


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the benchmark's arguments."""
    parser.add_argument("--age", type=int, default=100_000, help="steps of the old streams (default: 100000)")
    parser.add_argument("--young", type=int, default=100, help="steps of the young streams (default: 100)")
    parser.add_argument("--batch", type=int, default=32, help="streams per call (default: 32)")
    parser.add_argument("--blocks", type=int, default=40, help="pairs of measurements (default: 40)")


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Return the cost of an event of old and of young streams, and their ratio."""
    load = Load(Bundle.load(args.model), device.choose(args.device, args.threads), args.batch)
    old = [f"old-{number}" for number in range(args.batch)]
    young = [f"young-{number}" for number in range(args.batch)]
    load.age(0, old, args.age)
    old_times: list[float] = []
    young_times: list[float] = []
    for block in range(args.blocks):
        load.engine.residents.release(1)
        load.age(1, young, args.young)
        # Each is first in every second block, so that neither profits from the other's warm cache.
        pair = [(young_times, 1, young, args.young), (old_times, 0, old, args.age + block * _CALLS)]
        for times, partition, unique_ids, period in pair if block % 2 else reversed(pair):
            started = time.perf_counter()
            for call in range(_CALLS):
                load.step(partition, unique_ids, period + call)
            times.append((time.perf_counter() - started) / (_CALLS * args.batch))
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


def show(figures: dict[str, Any]) -> None:
    """Print both costs and their ratio."""
    low, middle, high = figures["ratio_quartiles"]
    print(f"{figures['model']} on {figures['device']}")
    print(f"step {figures['young_step']:>9,}: {figures['young_us_per_event']:.2f} us per event")
    print(f"step {figures['old_step']:>9,}: {figures['old_us_per_event']:.2f} us per event")
    print(f"ratio {figures['old_to_young_ratio']:.3f} (quartiles {low:.3f}, {middle:.3f}, {high:.3f})")
