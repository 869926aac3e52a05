"""Cost of late events: an engine with events in the order of time, and with the same events shuffled."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from rillcast.arrays import FloatArray, IntArray
from rillcast.benchmarks.load import START_MS, daily, name_of
from rillcast.benchmarks.output import show
from rillcast.bundle.bundle import Bundle
from rillcast.engine import device
from rillcast.engine.batcher import Batching
from rillcast.engine.late import AllowedLateness
from rillcast.engine.step_engine import StepEngine
from rillcast.errors import SettingsError
from rillcast.events import EventBatch

__all__ = ["add_arguments", "measure", "show"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the benchmark's arguments."""
    parser.add_argument("--periods", type=int, default=6, help="input.allowed_lateness_periods (default: 6)")
    parser.add_argument("--within", type=float, default=6, help="periods within which events are shuffled (default: 6)")
    parser.add_argument("--streams", type=int, default=500, help="streams (default: 500)")
    parser.add_argument("--length", type=int, default=48, help="periods of a block (default: 48)")
    parser.add_argument("--blocks", type=int, default=9, help="measurements of each case, in turns (default: 9)")
    parser.add_argument("--batch", type=int, default=1_000, help="events per call (default: 1000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the order (default: 0)")


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Return the cost of an event with no allowed lateness, with it in order, and with it out of order, in turns.

    Raises:
        SettingsError: Events would be later than the allowed lateness.
    """
    if not 0 < args.within <= args.periods:
        raise SettingsError(f"--within {args.within}: expected more than 0, and at most --periods, {args.periods}")
    bundle = Bundle.load(args.model)
    cases = {
        "off": _Case(bundle, args, lateness=0, within=0),
        "in_order": _Case(bundle, args, lateness=args.periods, within=0),
        "disordered": _Case(bundle, args, lateness=args.periods, within=args.within),
    }
    rng = np.random.default_rng(args.seed)
    for block in range(args.blocks + 1):  # the first makes the streams resident
        events = _events(args.streams, block * args.length, args.length)
        order = list(cases.values())
        for case in order[block % 3 :] + order[: block % 3]:
            case.step(events, rng, counts=block > 0)
    off, ordered, late = (cases[name] for name in ("off", "in_order", "disordered"))

    def ratio(pick: Callable[[int], float]) -> float:
        return statistics.median(pick(block) for block in range(args.blocks))

    share = late.late_events / late.events
    return {
        "model": name_of(bundle),
        "device": device.choose(args.device, args.threads).name,
        "streams": args.streams,
        # Figures keep the names under which users have stored them.
        "rewind_slots": args.periods,
        "shuffled_within_slots": args.within,
        "us_per_event_off": statistics.median(off.us_per_event),
        "us_per_event_in_order": statistics.median(ordered.us_per_event),
        "us_per_event_disordered": statistics.median(late.us_per_event),
        "in_order_to_off_ratio": ratio(lambda block: ordered.us_per_event[block] / off.us_per_event[block]),
        "disordered_to_in_order_ratio": ratio(lambda block: late.us_per_event[block] / ordered.us_per_event[block]),
        "put_share": share,
        "steps_again_per_put": late.replayed_steps / late.late_events,
        "put_to_in_order_ratio": ratio(
            lambda block: 1 + (late.us_per_event[block] / ordered.us_per_event[block] - 1) / share
        ),
    }


class _Events(NamedTuple):
    """Events of every stream in some periods, in the order of arrival: `(n,)` each."""

    streams: IntArray
    periods: IntArray
    y: FloatArray

    def take(self, rows: IntArray | slice) -> _Events:
        """Return some of them."""
        return _Events(self.streams[rows], self.periods[rows], self.y[rows])


class _Case:
    """An engine, the order in which its events arrive, and the time of its steps."""

    def __init__(self, bundle: Bundle, args: argparse.Namespace, *, lateness: int, within: float) -> None:
        allowed = AllowedLateness(lateness, bundle.metadata.frequency) if lateness else None
        self.engine = StepEngine(
            bundle, device.choose(args.device, args.threads), batching=Batching(args.batch), lateness=allowed
        )
        self._frequency, self._batch, self._within = bundle.metadata.frequency, args.batch, within
        self._ids = [f"stream-{number}" for number in range(args.streams)]
        self._offset = 0
        self.us_per_event: list[float] = []
        self.events = self.late_events = self.replayed_steps = 0

    def step(self, events: _Events, rng: np.random.Generator, *, counts: bool) -> None:
        """Step the events of one block."""
        if self._within:
            order = np.argsort(events.periods + self._within * rng.random(events.periods.size), kind="stable")
            events = events.take(order)
        seconds = 0.0
        for first in range(0, events.periods.size, self._batch):
            part = events.take(slice(first, first + self._batch))
            ids = [self._ids[stream] for stream in part.streams.tolist()]
            ds = self._frequency.ahead(START_MS, part.periods)
            batch = EventBatch.of(ids, ds, part.y, first_offset=self._offset)
            self._offset += len(ids)
            started = time.perf_counter()
            stats = self.engine.step(batch).stats
            seconds += time.perf_counter() - started
            if counts:
                self.late_events += stats.late_events
                self.replayed_steps += stats.replayed_steps
        if counts:
            self.events += events.periods.size
            self.us_per_event.append(seconds / events.periods.size * 1e6)


def _events(streams: int, first: int, length: int) -> _Events:
    """Return events of all streams in the order of time."""
    periods = np.repeat(np.arange(first, first + length, dtype=np.int64), streams)
    which = np.tile(np.arange(streams, dtype=np.int64), length)
    return _Events(which, periods, daily(which, periods))
