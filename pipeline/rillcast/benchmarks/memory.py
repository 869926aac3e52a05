"""Memory of a resident stream, and the effect of growth and snapshots on the step, in a separate process.

Owns: the load and the figures. The memory of a stream is the growth of the process between its first streams and its
last, without interpreter, libraries and model. The directory is that memory minus the row of state.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from rillcast.benchmarks.load import START_MS, name_of
from rillcast.benchmarks.output import show
from rillcast.benchmarks.timing import in_process
from rillcast.bundle.bundle import Bundle
from rillcast.bundle.frequency import Frequency
from rillcast.engine import device
from rillcast.engine.batcher import Batching
from rillcast.engine.step_engine import StepEngine
from rillcast.errors import SettingsError
from rillcast.events import EventBatch

__all__ = ["add_arguments", "measure", "show"]

_POLL: Final = 2_000
_PARTITIONS: Final = 8
_FEW: Final = _POLL * _PARTITIONS
"""Streams that are there before memory is measured: a poll of each partition."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the benchmark's arguments."""
    parser.add_argument("--streams", type=int, default=1_000_000, help="streams (default: 1000000)")
    parser.add_argument("--rounds", type=int, default=1, help="events per stream after the first (default: 1)")
    parser.add_argument("--pages", type=int, default=64, help="pages that a commit takes of a snapshot (default: 64)")


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Return bytes per stream, and the longest polls while streams are added and while they are stored.

    Raises:
        SettingsError: This system does not show the memory of a process, or there is nothing to measure.
    """
    if args.streams <= _FEW or args.rounds < 1:
        raise SettingsError(
            f"--streams {args.streams} --rounds {args.rounds}: expected more than {_FEW:,}, and at least 1"
        )
    if not Path("/proc/self/statm").exists():
        raise SettingsError("bench memory reads /proc/self/statm, which this system lacks")
    figures: dict[str, Any] = in_process(_measure, args.model, args.streams, args.rounds, args.pages)
    return figures


def _measure(model: Path, streams: int, rounds: int, pages: int) -> dict[str, Any]:
    bundle = Bundle.load(model)
    engine = StepEngine(bundle, device.choose("cpu"), batching=Batching(1_000))
    _round(engine, 0, _FEW, 0, bundle.metadata.frequency)
    gc.collect()
    before = _resident_bytes()
    coming = _round(engine, _FEW, streams, 0, bundle.metadata.frequency)
    gc.collect()
    grown = _resident_bytes() - before
    stepping = [
        seconds
        for period in range(1, rounds + 1)
        for seconds in _round(engine, 0, streams, period, bundle.metadata.frequency)
    ]
    row_bytes = bundle.metadata.row_bytes
    per_stream = grown / (streams - _FEW)
    return {
        "model": name_of(bundle),
        "streams": streams,
        "rss_bytes": _resident_bytes(),
        "rss_bytes_per_stream": per_stream,
        "row_bytes": row_bytes,
        "directory_bytes_per_stream": per_stream - row_bytes,
        "us_per_event": statistics.median(stepping) / _POLL * 1e6,
        "us_per_event_of_new_streams": statistics.median(coming) / _POLL * 1e6,
        "longest_poll_of_new_streams_s": max(coming),
        "longest_poll_s": max(stepping),
        "median_poll_s": statistics.median(stepping),
        f"export_of_{pages}_pages_s": _export(engine, pages),
    }


def _round(engine: StepEngine, first: int, last: int, period: int, frequency: Frequency) -> list[float]:
    """Step each stream once, in polls that hold streams of one partition; return the seconds of each poll."""
    taken = []
    for start in range(first, last, _POLL):
        # New texts each time, as from a decoder; the directory keeps the first ones.
        unique_ids = [f"stream-{number:07d}" for number in range(start, min(start + _POLL, last))]
        partition = start // _POLL % _PARTITIONS
        ds = frequency.ahead(START_MS, period)
        taken.append(_step(engine, partition, unique_ids, period * 1_000_000_000 + start, ds))
    return taken


def _step(engine: StepEngine, partition: int, unique_ids: Sequence[str], offset: int, ds: int) -> float:
    n = len(unique_ids)
    times, y = np.full(n, ds, np.int64), np.full(n, 100.0, np.float32)
    events = EventBatch.of(unique_ids, times, y, partition=partition, first_offset=offset)
    started = time.perf_counter()
    engine.step(events)
    return time.perf_counter() - started


def _export(engine: StepEngine, pages: int) -> float:
    """Return the seconds that the loop waits for the rows of `pages` pages, which a commit takes of a snapshot."""
    changed, residents = 0, engine.residents
    started = time.perf_counter()
    for partition in range(_PARTITIONS):
        if changed < pages:
            changed += len(residents.export(partition, 1))
    return (time.perf_counter() - started) / changed * pages


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
