"""Cost of a raw event that joins an open period, against a loop that only decodes the same records."""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import msgspec
import numpy as np

from rillcast.benchmarks.load import START_MS, name_of
from rillcast.benchmarks.output import show
from rillcast.bundle.bundle import Bundle
from rillcast.codecs.observations.decoder import ObservationDecoder
from rillcast.engine import device
from rillcast.engine.batcher import Batching
from rillcast.engine.periods import KINDS, Aggregation, Partials
from rillcast.engine.step_engine import StepEngine
from rillcast.transports.base import Polled

__all__ = ["add_arguments", "measure", "show"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the benchmark's arguments."""
    parser.add_argument("--aggregate", choices=KINDS, default="mean", help="input.aggregate (default: mean)")
    parser.add_argument("--close", choices=("stream", "partition"), default="partition", help="input.close")
    parser.add_argument("--streams", type=int, default=10_000, help="streams (default: 10000)")
    parser.add_argument("--events", type=int, default=60, help="raw events of a stream in a period (default: 60)")
    parser.add_argument("--poll", type=int, default=4_000, help="records of a poll (default: 4000)")
    parser.add_argument("--periods", type=int, default=3, help="periods, in turns (default: 3)")


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Return the cost of a record that is decoded, of one that joins too, and of a period that closes, in turns.

    A poll is made of records in memory: a client's poll would add the same time to both loops.
    """
    bundle = Bundle.load(args.model)
    aggregation = Aggregation(args.aggregate, bundle.metadata.frequency, args.close)
    on = device.choose(args.device, args.threads)
    engine = StepEngine(bundle, on, batching=Batching(1_000), aggregation=aggregation)
    decoder, records = ObservationDecoder(), _Records(args, aggregation)
    decoding: list[float] = []
    joining: list[float] = []
    closing: list[float] = []
    events = 0
    for period in range(args.periods + 1):
        for polled in records.of(period):
            started = time.perf_counter()
            decoder.decode(polled)
            decoded = time.perf_counter()
            batch, _ = decoder.decode(polled)
            closed = sum(len(each.events) for each in engine.advance(batch))
            ended = time.perf_counter()
            if closed:
                closing.append((ended - decoded - (decoded - started)) / closed)
            elif period:  # the first makes the streams resident
                decoding.append((decoded - started) / len(polled))
                joining.append((ended - decoded) / len(polled))
                events += len(polled)
    return {
        "model": name_of(bundle),
        "device": on.name,
        "aggregate": args.aggregate,
        "close": args.close,
        "streams": args.streams,
        "events_per_period": args.events,
        "joining_events": events,
        "us_per_decoded_event": statistics.median(decoding) * 1e6,
        "us_per_joining_event": statistics.median(joining) * 1e6,
        "joining_to_decoding_ratio": statistics.median(a / b for a, b in zip(joining, decoding, strict=True)),
        "us_per_closed_period": statistics.median(closing) * 1e6,
        "bytes_per_stream": Partials.host_bytes(aggregation),
    }


class _Records:
    """Polls of raw events: all streams in turn, again and again through a period."""

    def __init__(self, args: argparse.Namespace, aggregation: Aggregation) -> None:
        self._args = args
        self._frequency = aggregation.frequency
        self._ids = [f"stream-{number}" for number in range(args.streams)]
        self._offset = 0

    def of(self, period: int) -> list[Polled]:
        """Return the polls of one period."""
        args = self._args
        start, end = (int(self._frequency.ahead(START_MS, each)) for each in (period, period + 1))
        n = args.streams * args.events
        ds = (start + np.arange(n, dtype=np.int64) * (end - start) // n).tolist()
        encode = msgspec.json.encode
        values = [encode({"unique_id": self._ids[at % args.streams], "ds": ds[at], "y": at % 997}) for at in range(n)]
        polls = []
        for first in range(0, n, args.poll):
            some = values[first : first + args.poll]
            offsets = np.arange(self._offset, self._offset + len(some), dtype=np.int64)
            self._offset += len(some)
            none = np.full(len(some), -1, np.int64)
            polls.append(Polled(np.zeros(len(some), np.int64), offsets, none, [None] * len(some), some))
        return polls
