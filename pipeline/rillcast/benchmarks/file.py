"""Rate of the service from a file to a file, sorted by time and sorted by stream, in turns: its speed without brokers.

Each run is a separate process. The order alternates between rounds, so that a drift of the machine's speed cancels out
of the ratio.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rillcast.benchmarks.backlog import ORDERS, Order, for_a_file, observations, write_file
from rillcast.benchmarks.load import name_of
from rillcast.benchmarks.serve import serve
from rillcast.benchmarks.timing import Measured, in_process, medians, ratio
from rillcast.bundle.bundle import Bundle
from rillcast.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the benchmark's arguments."""
    parser.add_argument("--streams", type=int, default=1_000, help="streams (default: 1000)")
    parser.add_argument("--events", type=int, default=200_000, help="events per run (default: 200000)")
    parser.add_argument("--format", choices=("csv", "jsonl"), default="csv", help="format of the file (default: csv)")
    parser.add_argument("--repeat", type=int, default=3, help="rounds; medians are reported (default: 3)")


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Return rates, processor time and stages by order, and the ratio of the rates."""
    bundle = Bundle.load(args.model)
    runs, size = serve_files(bundle, args.model, args.streams, args.events, args.format, ORDERS, args.repeat)
    return {
        "model": name_of(bundle),
        "streams": args.streams,
        "events": runs["sorted"][0].events,
        "format": args.format,
        "runs": {order: medians(measured) for order, measured in runs.items()},
        "file_sorted_ratio": ratio(runs["sorted"], runs["interleaved"]),
        "bytes_per_forecast": size,
    }


def serve_files(
    bundle: Bundle, model: Path, streams: int, events: int, suffix: str, orders: Sequence[Order], repeat: int
) -> tuple[dict[Order, list[Measured]], float]:
    """Serve about as many events as given from files in some orders; return the runs, and the bytes of a forecast."""
    runs: dict[Order, list[Measured]] = {order: [] for order in orders}
    with tempfile.TemporaryDirectory(prefix="rillcast-bench-") as folder:
        paths = {order: Path(folder) / f"{order}.{suffix}" for order in orders}
        values = observations(bundle.metadata.frequency, streams, 0, max(1, events // streams))[1]
        for order, path in paths.items():
            write_file(path, values, streams, order)
        for number in range(repeat):
            for order in orders if number % 2 else reversed(orders):
                runs[order].append(in_process(serve, for_a_file(Settings(model=model), paths[order]), len(values)))
        return runs, (Path(folder) / "forecasts.jsonl").stat().st_size / len(values)


def show(figures: dict[str, Any]) -> None:
    """Print a line for each order, and its stages."""
    print(f"{figures['model']}, {figures['streams']:,} streams, {figures['events']:,} events, {figures['format']}")
    for order, run in figures["runs"].items():
        stages = ", ".join(f"{stage} {us:.2f}" for stage, us in run["stages_us_per_event"].items())
        cost = f"{run['cpu_us_per_event']:.1f} us of processor per event, {run['peak_rss_mib']:.0f} MiB"
        print(f"  {order:<12} {run['events_per_second']:>9,.0f} events/s  {cost}\n{'':>15}us per event: {stages}")
    size = f"{figures['bytes_per_forecast']:,.0f} bytes a forecast"
    print(f"sorted to interleaved {figures['file_sorted_ratio']:.2f}; {size}")
