"""Rate of the service from a file to a file, in a separate process: its speed without brokers."""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

from rillcast.benchmarks.backlog import observations
from rillcast.benchmarks.load import name_of
from rillcast.benchmarks.output import show
from rillcast.benchmarks.serve import serve
from rillcast.benchmarks.timing import in_process
from rillcast.bundle.bundle import Bundle
from rillcast.settings import DeadLetterSettings, HttpSettings, InputSettings, OutputSettings, Settings

__all__ = ["add_arguments", "measure", "show"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the benchmark's arguments."""
    parser.add_argument("--streams", type=int, default=10_000, help="streams (default: 10000)")
    parser.add_argument("--events", type=int, default=200_000, help="events per run (default: 200000)")
    parser.add_argument("--repeat", type=int, default=3, help="runs; the median is reported (default: 3)")


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Return the rate and the processor time of JSON Lines in and JSON Lines out."""
    bundle = Bundle.load(args.model)
    with tempfile.TemporaryDirectory(prefix="rillcast-bench-") as folder:
        path = Path(folder) / "observations.jsonl"
        rounds = max(1, args.events // args.streams)
        path.write_bytes(b"\n".join(observations(bundle.metadata.frequency, args.streams, 0, rounds)[1]) + b"\n")
        settings = Settings(
            model=args.model,
            input=InputSettings(path=str(path)),
            output=OutputSettings(path=str(Path(folder) / "forecasts.jsonl")),
            dead_letters=DeadLetterSettings(path=str(Path(folder) / "dead.jsonl")),
            http=HttpSettings(port=0),
        )
        runs = [in_process(serve, settings, rounds * args.streams) for _ in range(args.repeat)]
    each = [run.summary() for run in runs]
    return {
        "model": name_of(bundle),
        "streams": args.streams,
        "events": runs[0].events,
        **{
            name: statistics.median(run[name] for run in each)
            for name in ("events_per_second", "cpu_us_per_event", "peak_rss_mib")
        },
    }
