"""Speed at which a backlog is processed through the sequence graph, against the step."""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any, Final

import numpy as np

from rillcast.arrays import FloatArray, IntArray
from rillcast.benchmarks.load import START_MS, name_of, whole_numbers
from rillcast.bundle.bundle import Bundle
from rillcast.engine import device
from rillcast.engine.batcher import DEFAULT_RUNS, Batching, Runs
from rillcast.engine.step_engine import StepEngine
from rillcast.errors import SettingsError
from rillcast.events import EventBatch

_POLL_EVENTS: Final = 4_096
_WAYS: Final = {"runs": (DEFAULT_RUNS, _POLL_EVENTS), "waves": (Runs(), _POLL_EVENTS), "single": (Runs(), 1)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the benchmark's arguments."""
    parser.add_argument("--streams", default="1,8,64", help="numbers of busy streams (default: 1,8,64)")
    parser.add_argument("--backlog", type=int, default=1_000, help="waiting events per stream (default: 1000)")
    parser.add_argument("--events", type=int, default=32_000, help="most waiting events in all (default: 32000)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds; the medians are reported (default: 5)")


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Return events per second in runs, in waves and event by event, measured in turns.

    Raises:
        SettingsError: A number of streams is none, or the bundle has no sequence graph.
    """
    numbers = whole_numbers("--streams", args.streams)
    bundle, on = Bundle.load(args.model), device.choose(args.device, args.threads)
    if bundle.sequence is None:
        raise SettingsError(f"{args.model} has no sequence graph; train or export it again")
    rows = []
    for streams in numbers:
        events = min(args.backlog, max(1, args.events // streams))
        rates: dict[str, list[float]] = {way: [] for way in _WAYS}
        share = 0.0
        for _ in range(args.rounds):
            for way, (runs, poll_events) in _WAYS.items():
                shorter = events if way == "runs" else max(1, events // 8)
                rate, in_runs = _Backlog(bundle, on, runs, streams, shorter).process(poll_events)
                rates[way].append(rate)
                share = max(share, in_runs)
        rows.append(
            {
                "streams": streams,
                "backlog": events,
                "share_in_runs": share,
                **{f"{way}_events_per_second": statistics.median(measured) for way, measured in rates.items()},
                "ratio_to_waves": _ratio(rates["runs"], rates["waves"]),
                "ratio_to_single": _ratio(rates["runs"], rates["single"]),
            }
        )
    return {"model": name_of(bundle), "device": on.name, "catch_up": rows}


class _Backlog:
    """A new engine and the waiting events of `streams` streams, period by period, `events` of each."""

    def __init__(self, bundle: Bundle, on: device.Device, runs: Runs, streams: int, events: int) -> None:
        self._engine = StepEngine(bundle, on, batching=Batching(runs=runs))
        self._ids = [f"stream-{number}" for number in range(streams)] * events
        period = np.repeat(np.arange(events, dtype=np.int64), streams)
        self._ds: IntArray = bundle.metadata.frequency.ahead(START_MS, period)
        wave = np.sin(period * (2 * np.pi / bundle.metadata.season) + np.tile(np.arange(streams), events))
        self._y: FloatArray = (100 + 10 * wave).astype(np.float32)

    def process(self, poll_events: int) -> tuple[float, float]:
        """Return events per second, and the share of the events that were stepped in runs."""
        in_runs, count = 0, len(self._ids)
        started = time.perf_counter()
        for first in range(0, count, poll_events):
            part = slice(first, first + poll_events)
            result = self._engine.step(
                EventBatch.of(self._ids[part], self._ds[part], self._y[part], first_offset=first)
            )
            in_runs += result.stats.in_runs
        return count / (time.perf_counter() - started), in_runs / count


def show(figures: dict[str, Any]) -> None:
    """Print a line per number of streams."""
    print(f"{figures['model']} on {figures['device']}")
    print(f"{'streams':>8} {'backlog':>8} {'events/s in runs':>17} {'in waves':>10} {'single':>9}   ratio to both")
    for row in figures["catch_up"]:
        print(
            f"{row['streams']:>8} {row['backlog']:>8} {row['runs_events_per_second']:>17,.0f} "
            f"{row['waves_events_per_second']:>10,.0f} {row['single_events_per_second']:>9,.0f}"
            f"   {row['ratio_to_waves']:.2f}, {row['ratio_to_single']:.2f}"
        )


def _ratio(above: list[float], below: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(above, below, strict=True))
