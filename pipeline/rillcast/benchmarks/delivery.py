"""Cost of exactly_once against at_least_once, with the service as a process and a real broker."""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any, Final

from rillcast.benchmarks.backlog import observations
from rillcast.benchmarks.load import name_of
from rillcast.benchmarks.output import show
from rillcast.benchmarks.process import Topics
from rillcast.bundle.bundle import Bundle
from rillcast.settings import Settings

__all__ = ["add_arguments", "measure", "show"]

_FORECASTS: Final = "rillcast_forecasts_total"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the benchmark's arguments."""
    parser.add_argument("--streams", type=int, default=10_000, help="streams (default: 10000)")
    parser.add_argument("--events", type=int, default=200_000, help="events per run (default: 200000)")
    parser.add_argument("--repeat", type=int, default=3, help="pairs of runs (default: 3)")


def measure(args: argparse.Namespace, settings: Settings) -> dict[str, Any]:
    """Run the same backlog under both guarantees, in turns, and compare the rates."""
    bundle = Bundle.load(settings.one_model)
    rounds = max(1, args.events // args.streams)
    total = rounds * args.streams
    rates: dict[str, list[float]] = {"at_least_once": [], "exactly_once": []}
    for _ in range(args.repeat):
        for name, measured in rates.items():
            topics = Topics(settings, args.partitions)
            topics.fill(*observations(bundle.metadata.frequency, args.streams, 0, rounds))
            with topics.service(worker__delivery=name) as service:
                service.wait_for_metric(_FORECASTS, 1)
                started, before = time.perf_counter(), service.metric(_FORECASTS)
                service.wait_for_metric(_FORECASTS, total)
                measured.append((total - before) / (time.perf_counter() - started))
    pairs = zip(rates["exactly_once"], rates["at_least_once"], strict=True)
    return {
        "model": name_of(bundle),
        "streams": args.streams,
        "events": total,
        "commit_interval_s": settings.worker.commit_interval_s,
        "events_per_second": {name: statistics.median(measured) for name, measured in rates.items()},
        "exactly_to_at_least_ratio": statistics.median(exactly / at_least for exactly, at_least in pairs),
    }
