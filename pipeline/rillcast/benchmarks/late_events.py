"""What late events cost: the engine with streams in the order of time, and with the same events shuffled."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np

from rillcast.arrays import FloatArray, IntArray
from rillcast.bundle.bundle import Bundle
from rillcast.engine import device
from rillcast.engine.batcher import Batching
from rillcast.engine.late import AllowedLateness
from rillcast.engine.step_engine import StepEngine
from rillcast.errors import SettingsError
from rillcast.events import EventBatch

_START_MS: Final = 1_704_067_200_000  # 2024-01-01T00:00:00Z


class _Events(NamedTuple):
    """A stretch of time of every stream, in the order of arrival: `(n,)` each."""

    streams: IntArray
    slots: IntArray
    y: FloatArray

    def take(self, rows: IntArray | slice) -> _Events:
        """Return some of them."""
        return _Events(self.streams[rows], self.slots[rows], self.y[rows])


class _Case:
    """An engine, the order in which its events come, and what it took."""

    def __init__(self, bundle: Bundle, args: argparse.Namespace, *, reach: int, within: float) -> None:
        lateness = AllowedLateness(reach, bundle.metadata.frequency) if reach else None
        self.engine = StepEngine(
            bundle, device.choose(args.device, args.threads), batching=Batching(args.batch), lateness=lateness
        )
        self._frequency, self._batch, self._within = bundle.metadata.frequency, args.batch, within
        self._ids = [f"stream-{number}" for number in range(args.streams)]
        self._offset = 0
        self.us_per_event: list[float] = []
        self.events = self.put = self.again = 0

    def block(self, events: _Events, rng: np.random.Generator, *, counts: bool) -> None:
        """Step one stretch of time."""
        if self._within:
            order = np.argsort(events.slots + self._within * rng.random(events.slots.size), kind="stable")
            events = events.take(order)
        seconds = 0.0
        for first in range(0, events.slots.size, self._batch):
            part = events.take(slice(first, first + self._batch))
            n = part.slots.size
            ids = [self._ids[stream] for stream in part.streams.tolist()]
            ds = self._frequency.ahead(_START_MS, part.slots)
            batch = EventBatch.of(ids, ds, part.y, first_offset=self._offset)
            self._offset += n
            started = time.perf_counter()
            stats = self.engine.step(batch).stats
            seconds += time.perf_counter() - started
            if counts:
                self.put += stats.late_events
                self.again += stats.replayed_steps
        if counts:
            self.events += events.slots.size
            self.us_per_event.append(seconds / events.slots.size * 1e6)


def rewind(args: argparse.Namespace) -> dict[str, Any]:
    """Return the cost of an event: without rewind, with it in order, and with it out of order, measured in turns.

    Raises:
        SettingsError: events would be later than the engine goes back.
    """
    if not 0 < args.within <= args.slots:
        raise SettingsError(f"--within {args.within}: expected more than 0, and at most --slots, {args.slots}")
    bundle = Bundle.load(args.model)
    cases = {
        "off": _Case(bundle, args, reach=0, within=0),
        "in_order": _Case(bundle, args, reach=args.slots, within=0),
        "disordered": _Case(bundle, args, reach=args.slots, within=args.within),
    }
    rng = np.random.default_rng(args.seed)
    for block in range(args.blocks + 1):  # the first makes the streams resident
        events = _stretch(args.streams, block * args.length, args.length)
        turn = list(cases.values())
        for case in turn[block % 3 :] + turn[: block % 3]:
            case.block(events, rng, counts=block > 0)
    off, ordered, late = (cases[name] for name in ("off", "in_order", "disordered"))

    def ratio(pick: Callable[[int], float]) -> float:
        return statistics.median(pick(block) for block in range(args.blocks))

    share = late.put / late.events
    return {
        "model": f"{bundle.metadata.name}@{bundle.metadata.model_id}",
        "device": device.choose(args.device, args.threads).name,
        "streams": args.streams,
        "rewind_slots": args.slots,
        "shuffled_within_slots": args.within,
        "us_per_event_off": statistics.median(off.us_per_event),
        "us_per_event_in_order": statistics.median(ordered.us_per_event),
        "us_per_event_disordered": statistics.median(late.us_per_event),
        "in_order_to_off_ratio": ratio(lambda block: ordered.us_per_event[block] / off.us_per_event[block]),
        "disordered_to_in_order_ratio": ratio(lambda block: late.us_per_event[block] / ordered.us_per_event[block]),
        "put_share": share,
        "steps_again_per_put": late.again / late.put,
        "put_to_in_order_ratio": ratio(
            lambda block: 1 + (late.us_per_event[block] / ordered.us_per_event[block] - 1) / share
        ),
    }


def _stretch(streams: int, first: int, length: int) -> _Events:
    """Return events of all streams in the order of time, with a daily shape, so that states stay ordinary."""
    slots = np.repeat(np.arange(first, first + length, dtype=np.int64), streams)
    which = np.tile(np.arange(streams, dtype=np.int64), length)
    y = 100 + 10 * np.sin(which + slots * (2 * np.pi / 24))
    return _Events(which, slots, y.astype(np.float32))
