"""Several processes against one: the cost of sharing partitions, and the processor time that the machine has left.

Owns: the arrangements and the accounting. Each of N workers has its share of the partitions, as in a group, but as
topics of its own, so that no rebalance falls into the measurement. Each number of workers runs twice: free, where the
system places their threads, and pinned, each worker with all its threads on one core. The accounting covers the rest of
the machine too, above all the broker, because workers can use no more than it leaves.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from rillcast.benchmarks.backlog import fill_backlog, for_one_run
from rillcast.benchmarks.load import name_of, whole_numbers
from rillcast.benchmarks.process import Topics
from rillcast.benchmarks.serve import serve
from rillcast.benchmarks.timing import Measured, in_process
from rillcast.bundle.bundle import Bundle
from rillcast.errors import SettingsError
from rillcast.settings import Settings

_PINS: Final = hasattr(os, "sched_setaffinity")  # Linux has it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the benchmark's arguments."""
    parser.add_argument(
        "--counts",
        help="numbers of workers, the first to compare with (default: 1,2, and doubled up to the cores)",
    )
    parser.add_argument("--streams", type=int, default=10_000, help="streams (default: 10000)")
    parser.add_argument("--events", type=int, default=200_000, help="events per run (default: 200000)")
    parser.add_argument("--repeat", type=int, default=3, help="rounds (default: 3)")


def measure(args: argparse.Namespace, settings: Settings) -> dict[str, Any]:
    """Return processor time per event, of the workers and of the rest, and rates by number of workers, free and pinned.

    Raises:
        SettingsError: A number of workers is no number, or larger than that of partitions or streams.
    """
    cores = sorted(os.sched_getaffinity(0)) if _PINS else []
    counts = _counts(args.counts, len(cores))
    if min(counts) < 1 or max(counts) > min(args.partitions, args.streams):
        raise SettingsError(f"--counts {args.counts}: each must be between 1 and --partitions {args.partitions}")
    bundle = Bundle.load(settings.one_model)
    backlogs = {count: _backlogs(args, settings, bundle, count) for count in counts}
    ways = [(count, ()) for count in counts] + [
        (count, tuple(cores[:count])) for count in counts if count <= len(cores)
    ]
    runs: dict[tuple[int, tuple[int, ...]], list[dict[str, float]]] = {way: [] for way in ways}
    for number in range(args.repeat):
        for count, on in ways if number % 2 else reversed(ways):
            runs[count, on].append(_together(backlogs[count], on))
    return {
        "model": name_of(bundle),
        "streams": args.streams,
        "events": args.events,
        "runs": [
            {"workers": count, "pinned": bool(on)}
            | {key: statistics.median(run[key] for run in measured) for key in measured[0]}
            | {
                "rate_ratio": _ratio(measured, runs[counts[0], on[: counts[0]]], "events_per_second"),
                "cpu_per_event_ratio": _ratio(measured, runs[counts[0], on[: counts[0]]], "cpu_us_per_event"),
            }
            for (count, on), measured in runs.items()
        ],
    }


def show(figures: dict[str, Any]) -> None:
    """Print a line for each arrangement."""
    print(f"{figures['model']}, {figures['streams']:,} streams")
    print(f"{'workers':<12} {'events/s':>10} {'ratio':>6} {'us/event':>9} {'rest us':>8} {'cores':>6}")
    for run in figures["runs"]:
        name = f"{run['workers']}{', pinned' if run['pinned'] else ''}"
        print(
            f"{name:<12} {run['events_per_second']:>10,.0f} {run['rate_ratio']:>6.2f} {run['cpu_us_per_event']:>9.1f}"
            f" {run['rest_us_per_event']:>8.1f} {run['workers_cores']:>6.2f}"
        )


def _counts(given: str | None, cores: int) -> list[int]:
    if given is not None:
        return whole_numbers("--counts", given)
    return [1, 2, *(count for count in (2**power for power in range(2, 8)) if count <= cores)]


def _backlogs(args: argparse.Namespace, settings: Settings, bundle: Bundle, count: int) -> list[tuple[Topics, int]]:
    """Return topics for each of some workers, with its share of partitions, events and streams."""
    share = args.partitions // count, bundle.metadata.frequency, args.events // count, args.streams // count
    return [fill_backlog(settings, *share) for _ in range(count)]


def _ratio(runs: Sequence[dict[str, float]], others: Sequence[dict[str, float]], key: str) -> float:
    """Return the median of the rounds' ratios of a figure."""
    return statistics.median(run[key] / other[key] for run, other in zip(runs, others, strict=True))


def _together(backlogs: Sequence[tuple[Topics, int]], cores: Sequence[int]) -> dict[str, float]:
    """Run a service on each backlog at the same time, each on one of the cores; no cores = wherever there is room."""

    def run(number: int) -> Measured:
        topics, events = backlogs[number]
        settings = for_one_run(topics.settings, topics.settings.kafka.client, "json")
        return in_process(_serve, settings, events, cores[number] if cores else None)

    before = _busy_seconds(), _own_seconds()
    with ThreadPoolExecutor(len(backlogs)) as threads:
        measured = list(threads.map(run, range(len(backlogs))))
    rest = (_busy_seconds() - before[0]) - (_own_seconds() - before[1])
    events, own = sum(run.events for run in measured), sum(run.cpu_seconds for run in measured)
    return {
        "events_per_second": sum(run.rate for run in measured),
        "cpu_us_per_event": own / events * 1e6,
        "rest_us_per_event": rest / events * 1e6,
        "workers_cores": own / max(run.seconds for run in measured),
        "cores": float(os.cpu_count() or 1),
    }


def _serve(settings: Settings, events: int, core: int | None) -> Measured:
    """Serve a backlog, with all threads of the process on one core where one is given."""
    if core is not None:
        os.sched_setaffinity(0, {core})
    return serve(settings, events)


def _own_seconds() -> float:
    """Return the seconds that this process and the workers that have ended have worked."""
    return sum(os.times()[:4])


def _busy_seconds() -> float:
    """Return the seconds that all processors together have worked, NaN where the system does not say."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return float("nan")
    user, nice, system, _idle, _wait, irq, soft, *_ = map(int, stat.read_text().splitlines()[0].split()[1:])
    return (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK")
