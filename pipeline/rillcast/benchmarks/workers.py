"""Two processes against one: the cost of sharing partitions, and the processor time that the machine has left.

Owns: the two arrangements and the accounting. Each of two workers has half of the partitions, as in a group, but as
separate topics, so that no rebalance falls into the measurement. The accounting covers the rest of the machine too,
above all the broker, because workers can use no more than it leaves.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rillcast.benchmarks.backlog import fill_backlog, for_one_run
from rillcast.benchmarks.load import name_of
from rillcast.benchmarks.output import show
from rillcast.benchmarks.process import Topics
from rillcast.benchmarks.serve import serve
from rillcast.benchmarks.timing import Measured, in_process
from rillcast.bundle.bundle import Bundle
from rillcast.settings import Settings

__all__ = ["add_arguments", "measure", "show"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the benchmark's arguments."""
    parser.add_argument("--streams", type=int, default=10_000, help="streams (default: 10000)")
    parser.add_argument("--events", type=int, default=200_000, help="events per run (default: 200000)")
    parser.add_argument("--repeat", type=int, default=3, help="rounds (default: 3)")


def measure(args: argparse.Namespace, settings: Settings) -> dict[str, Any]:
    """Return processor time per event, rates and busy cores, with one worker and with two."""
    bundle = Bundle.load(settings.one_model)
    frequency = bundle.metadata.frequency
    half = args.partitions // 2, frequency, args.events // 2, args.streams // 2
    arrangements = {
        "one": [fill_backlog(settings, args.partitions, frequency, args.events, args.streams)],
        "two": [fill_backlog(settings, *half) for _ in range(2)],
    }
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in arrangements}
    for number in range(args.repeat):
        for name in list(runs) if number % 2 else reversed(list(runs)):
            runs[name].append(_together(arrangements[name]))
    figures = {
        name: {key: statistics.median(run[key] for run in measured) for key in measured[0]}
        for name, measured in runs.items()
    }
    return {
        "model": name_of(bundle),
        "runs": figures,
        "cpu_per_event_ratio": statistics.median(
            two["cpu_us_per_event"] / one["cpu_us_per_event"] for one, two in zip(runs["one"], runs["two"], strict=True)
        ),
        "rate_ratio": statistics.median(
            two["events_per_second"] / one["events_per_second"]
            for one, two in zip(runs["one"], runs["two"], strict=True)
        ),
    }


def _together(backlogs: list[tuple[Topics, int]]) -> dict[str, float]:
    """Run a service on each backlog at the same time."""

    def run(backlog: tuple[Topics, int]) -> Measured:
        topics, events = backlog
        return in_process(serve, for_one_run(topics.settings, topics.settings.kafka.client, "json"), events)

    busy, started = _busy_seconds(), time.perf_counter()
    with ThreadPoolExecutor(len(backlogs)) as threads:
        measured = list(threads.map(run, backlogs))
    wall, busy = time.perf_counter() - started, _busy_seconds() - busy
    events, own = sum(run.events for run in measured), sum(run.cpu_seconds for run in measured)
    return {
        "events_per_second": sum(run.rate for run in measured),
        "cpu_us_per_event": own / events * 1e6,
        "workers_cores": own / max(run.seconds for run in measured),
        "all_cores": busy / wall,
        "cores": float(os.cpu_count() or 1),
    }


def _busy_seconds() -> float:
    """Return the seconds that all processors together have worked, NaN where the system does not say."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return float("nan")
    user, nice, system, _idle, _wait, irq, soft, *_ = map(int, stat.read_text().splitlines()[0].split()[1:])
    return (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK")
