"""Whether a GPU computes the forecasts that the CPU computes, and whether its own ways of computing them agree.

Owns: the events, and the comparison of two engines over them. Does not know: processes, the report.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeAlias

import numpy as np

from rillcast.arrays import FloatArray
from rillcast.benchmarks.load import START_MS, daily
from rillcast.bundle.bundle import Bundle
from rillcast.bundle.frequency import Frequency
from rillcast.engine.batcher import Batching, Runs
from rillcast.engine.device import Device
from rillcast.engine.step_engine import Outcome, StepEngine, StepResult
from rillcast.events import EventBatch

Measurement: TypeAlias = tuple[str, Callable[[], dict[str, Any]]]
"""Name of a figure, and what returns it."""
SIZES: Final = (1000, 10, 1000, 200)
"""Rows of the calls in turns, so that replays of one size run between those of others."""
LIMITS: Final = (1e-5, 1e-4, 1e-3, 1e-2)
AGREES: Final = 1e-3
"""Two devices agree where at most this share of values differs by more than this share of itself. Last bits differ, and
a forecaster that chooses between rules may choose another one where two are as good."""
_HUGE: Final = 1e30  # finite, but its squares are not: the step is quarantined


@dataclass(frozen=True)
class Amount:
    """How much is compared.

    Attributes:
        streams: Number of streams.
        steps: Calls; call `i` has `SIZES[i % 4]` of 1,000 parts of the streams.
    """

    streams: int = 1000
    steps: int = 400


class Calls:
    """Events of streams, call by call; the same for each instance."""

    def __init__(self, frequency: Frequency, amount: Amount, *, odd: bool) -> None:
        self._frequency, self._amount, self._odd = frequency, amount, odd
        self._ids = [f"s{number}" for number in range(amount.streams)]

    def __iter__(self) -> Iterator[EventBatch]:
        draw = np.random.default_rng(20)
        ages, offset = np.zeros(self._amount.streams, np.int64), 0
        for number in range(self._amount.steps):
            rows = max(1, SIZES[number % len(SIZES)] * self._amount.streams // max(SIZES))
            periods = ages[:rows].copy()
            y = daily(np.arange(rows), periods) + draw.normal(0, 1, rows).astype(np.float32)
            if self._odd:
                kind = draw.random(rows)
                y[kind < 0.03] = np.nan
                y[kind > 0.995] = _HUGE
                late = (kind > 0.96) & (kind < 0.98)
                periods[late] = np.maximum(0, periods[late] - 3)
            ages[:rows] += 1
            ds = self._frequency.ahead(START_MS, periods)
            yield EventBatch.of(self._ids[:rows], ds, y, first_offset=offset)
            offset += rows


class Difference:
    """What two engines returned for the same calls, compared."""

    def __init__(self) -> None:
        self._values = self._nan = self._status = self._outcome = 0
        self._beyond = np.zeros(len(LIMITS), np.int64)
        self._largest = 0.0
        self._outcomes = np.zeros(len(Outcome), np.int64)

    def add(self, expected: StepResult, found: StepResult) -> None:
        """Compare one call; differences are shares of a value's size and its forecast's range."""
        self._outcome += int((expected.outcome != found.outcome).sum())
        self._outcomes += np.bincount(expected.outcome, minlength=len(Outcome))
        both = (expected.outcome == Outcome.STEPPED) & (found.outcome == Outcome.STEPPED)
        self._status += int((expected.status != found.status)[both].sum())
        self._compare(expected.forecast[both], found.forecast[both])

    def _compare(self, expected: FloatArray, found: FloatArray) -> None:
        if not expected.size:
            return
        known = np.isfinite(expected) & np.isfinite(found)
        self._nan += int((np.isfinite(expected) != np.isfinite(found)).sum())
        with np.errstate(invalid="ignore", over="ignore"):
            width = np.nanmax(expected, axis=(1, 2), keepdims=True) - np.nanmin(expected, axis=(1, 2), keepdims=True)
            share = np.abs(found - expected) / np.maximum(np.abs(expected) + width, np.finfo(np.float32).tiny)
        self._values += int(known.sum())
        self._largest = max(self._largest, float(np.max(share[known], initial=0.0)))
        self._beyond += np.array([int((share[known] > limit).sum()) for limit in LIMITS])

    def figures(self) -> dict[str, Any]:
        """Return counts and shares, and whether the two agree."""
        beyond = zip(LIMITS, self._beyond, strict=True)
        shares = {f"share_beyond_{limit:g}": int(n) / max(1, self._values) for limit, n in beyond}
        same = not (self._nan or self._status or self._outcome) and self._values > 0
        return {
            "agrees": bool(same and shares[f"share_beyond_{AGREES:g}"] <= AGREES),
            "values": self._values,
            "largest": self._largest,
            **shares,
            "other_nan": self._nan,
            "other_status": self._status,
            "other_outcome": self._outcome,
            "outcomes": {outcome.name.lower(): int(self._outcomes[outcome]) for outcome in Outcome},
        }


def measurements(model: str, amount: Amount, *, graphs: bool) -> Iterator[Measurement]:
    """Yield the comparisons of a model, with or without CUDA graphs."""
    bundle, how = Bundle.load(model), "graphs" if graphs else "plain"
    for tf32 in (False, True):
        on = Device("cuda", cuda_graphs=graphs, tf32=tf32)
        name = f"parity {how}{' tf32' if tf32 else ''}"
        yield name, partial(_against_cpu, bundle, on, amount, odd=False)
    on = Device("cuda", cuda_graphs=graphs)
    yield f"odd events {how}", partial(_against_cpu, bundle, on, amount, odd=True)
    yield f"runs against steps {how}", partial(_runs_against_steps, bundle, on)


def _against_cpu(bundle: Bundle, on: Device, amount: Amount, *, odd: bool) -> dict[str, Any]:
    rows = max(SIZES)
    engines = [StepEngine(bundle, device, batching=device.batching(rows)) for device in (Device("cpu"), on)]
    difference = Difference()
    for events in Calls(bundle.metadata.frequency, amount, odd=odd):
        expected, found = (engine.step(events) for engine in engines)
        difference.add(expected, found)
    return difference.figures()


def _runs_against_steps(bundle: Bundle, on: Device) -> dict[str, Any]:
    """Compare the sequence graph with the step, both on the GPU."""
    if bundle.sequence is None:
        return {"skipped": "the bundle has no sequence graph"}
    in_runs = StepEngine(bundle, on, batching=on.batching(1000))
    in_steps = StepEngine(bundle, on, batching=Batching(1000, on.row_buckets(1000), Runs()))
    difference, streams, length = Difference(), 4, 256
    ids = [f"s{number}" for number in range(streams)] * length
    for call in range(3):
        periods = call * length + np.repeat(np.arange(length), streams)
        y = daily(np.tile(np.arange(streams), length), periods)
        ds = bundle.metadata.frequency.ahead(START_MS, periods)
        events = EventBatch.of(ids, ds, y, first_offset=call * len(ids))
        difference.add(in_steps.step(events), in_runs.step(events))
    return difference.figures()
