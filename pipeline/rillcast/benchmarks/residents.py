"""Cost of an event among few resident streams and among many, measured in turns."""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any, Final

import numpy as np

from rillcast.benchmarks.load import START_MS, name_of
from rillcast.benchmarks.output import show
from rillcast.bundle.bundle import Bundle
from rillcast.engine import device
from rillcast.engine.batcher import Batching, Runs
from rillcast.engine.step_engine import StepEngine
from rillcast.events import EventBatch

__all__ = ["add_arguments", "measure", "show"]

_POLL: Final = 8_192  # streams per call while they become resident


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the benchmark's arguments."""
    parser.add_argument("--few", type=int, default=1_000, help="resident streams (default: 1000)")
    parser.add_argument("--many", type=int, default=1_000_000, help="resident streams, to compare (default: 1000000)")
    parser.add_argument("--batch", type=int, default=256, help="streams per call (default: 256)")
    parser.add_argument("--calls", type=int, default=50, help="calls per measurement (default: 50)")
    parser.add_argument("--blocks", type=int, default=40, help="pairs of measurements (default: 40)")


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Return the cost of an event among few streams and among many, and their ratio."""
    bundle, on = Bundle.load(args.model), device.choose(args.device, args.threads)
    crowds = {number: _Crowd(bundle, on, number, args.batch) for number in (args.few, args.many)}
    times: dict[int, list[float]] = {number: [] for number in crowds}
    for block in range(args.blocks):
        for number, crowd in sorted(crowds.items(), reverse=bool(block % 2)):
            times[number].append(crowd.seconds_per_event(args.calls))
    ratios = [many / few for few, many in zip(times[args.few], times[args.many], strict=True)]
    return {
        "model": name_of(bundle),
        "batch": args.batch,
        **{f"us_per_event_among_{number}": statistics.median(measured) * 1e6 for number, measured in times.items()},
        "many_to_few_ratio": statistics.median(ratios),
        "ratio_quartiles": statistics.quantiles(ratios, n=4),
    }


class _Crowd:
    """An engine with a number of resident streams, of which random ones have events."""

    def __init__(self, bundle: Bundle, on: device.Device, streams: int, batch: int) -> None:
        self._engine = StepEngine(bundle, on, batching=Batching(batch, runs=Runs()))
        self._ids = [f"stream-{number}" for number in range(streams)]
        self._frequency, self._batch, self._period = bundle.metadata.frequency, batch, 0
        self._rng = np.random.default_rng(0)
        for first in range(0, streams, _POLL):
            self._step(self._ids[first : first + _POLL])

    def seconds_per_event(self, calls: int) -> float:
        """Step `calls` batches of random streams."""
        picked = [
            [self._ids[n] for n in self._rng.choice(len(self._ids), self._batch, replace=False)] for _ in range(calls)
        ]
        started = time.perf_counter()
        for ids in picked:
            self._period += 1
            self._step(ids)
        return (time.perf_counter() - started) / (calls * self._batch)

    def _step(self, ids: list[str]) -> None:
        n = len(ids)
        ds = np.full(n, self._frequency.ahead(START_MS, self._period), np.int64)
        self._engine.step(EventBatch.of(ids, ds, np.full(n, 100 + self._period % 24, np.float32)))
