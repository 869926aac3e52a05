"""The engine alone: no transport, no codec."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from rillcast.bundle.bundle import Bundle
from rillcast.engine import device
from rillcast.engine.batcher import DEFAULT_RUNS, Batching
from rillcast.engine.step_engine import StepEngine
from rillcast.errors import SettingsError
from rillcast.events import EventBatch

_START_MS: Final = 1_704_067_200_000  # 2024-01-01T00:00:00Z
_RUN, _RUNS = DEFAULT_RUNS.lengths[0], max(1, DEFAULT_RUNS.max_rows // DEFAULT_RUNS.lengths[0])


class _Load:
    """A model and events for it: every stream in turn, one slot further each time round."""

    def __init__(self, args: argparse.Namespace, batch_rows: int, *, cuda_graphs: bool = False) -> None:
        bundle = Bundle.load(args.model)
        on = device.choose(args.device, args.threads, cuda_graphs=cuda_graphs)
        # As the service has it: on a GPU every call goes through buffers that stay.
        self.engine = StepEngine(bundle, on, batching=Batching(batch_rows, on.row_buckets(batch_rows)))
        self._frequency = bundle.metadata.frequency
        self._offset = 0
        self.about = {"model": f"{bundle.metadata.name}@{bundle.metadata.model_id}", "device": on.name}

    def step(self, partition: int, unique_ids: list[str], slot: int, slots: int = 1) -> None:
        """Step streams from a slot on, with values that have a daily shape, so that states stay ordinary."""
        n = len(unique_ids) * slots
        slot_of = slot + np.repeat(np.arange(slots), len(unique_ids))
        phases = np.tile(np.arange(len(unique_ids)), slots)
        y = np.sin(phases + slot_of * (2 * np.pi / 24)).astype(np.float32) * 10 + 100
        ds = self._frequency.ahead(_START_MS, slot_of)
        self.engine.step(EventBatch.of(unique_ids * slots, ds, y, partition=partition, first_offset=self._offset))
        self._offset += n

    def age(self, partition: int, unique_ids: list[str], slots: int) -> None:
        """Bring new streams to a slot as a backlog does, in runs: single steps would take many times as long."""
        for first in range(0, len(unique_ids), _RUNS):
            for slot in range(0, slots, _RUN):
                self.step(partition, unique_ids[first : first + _RUNS], slot, min(_RUN, slots - slot))


def step(args: argparse.Namespace) -> dict[str, Any]:
    """Return whole steps per second by batch size."""
    try:
        batches = [int(text) for text in args.batches.split(",")]
    except ValueError as error:
        raise SettingsError(f"--batches {args.batches!r}: expected whole numbers separated by commas") from error
    if min(batches) < 1 or max(batches) > args.streams:
        raise SettingsError(f"--batches {args.batches!r}: each must be between 1 and --streams {args.streams}")
    # Without and with, in turns, so that a drift of the machine's speed cancels out.
    ways = (False, True) if args.cuda_graphs else (False,)
    loads = {(batch, graphs): _Load(args, batch, cuda_graphs=graphs) for batch in batches for graphs in ways}
    unique_ids = [f"stream-{number}" for number in range(args.streams)]
    for load in loads.values():
        load.step(0, unique_ids, 0)
    rates: dict[tuple[int, bool], list[float]] = {case: [] for case in loads}
    slots = dict.fromkeys(loads, 1)
    for _ in range(args.rounds):
        for case, load in loads.items():
            batch, _ = case
            groups = [unique_ids[first : first + batch] for first in range(0, args.streams - batch + 1, batch)]
            done, started = 0, time.perf_counter()
            while (elapsed := time.perf_counter() - started) < args.seconds:
                group = groups[done % len(groups)]
                if done and done % len(groups) == 0:
                    slots[case] += 1
                load.step(0, group, slots[case])
                done += 1
            slots[case] += 1
            rates[case].append(done * batch / elapsed)
    return load.about | {
        "streams": args.streams,
        "threads": args.threads,
        "steps": [
            {
                "batch": batch,
                "cuda_graphs": graphs,
                "steps_per_second": statistics.median(measured),
                "min": min(measured),
                "max": max(measured),
                "us_per_step": 1e6 / statistics.median(measured),
            }
            for (batch, graphs), measured in rates.items()
        ],
    }


def flatness(args: argparse.Namespace) -> dict[str, Any]:
    """Return the cost of an event early and late in a stream's life, measured in turns."""
    load = _Load(args, args.batch)
    old = [f"old-{number}" for number in range(args.batch)]
    young = [f"young-{number}" for number in range(args.batch)]
    load.age(0, old, args.age)
    calls = 50
    old_times: list[float] = []
    young_times: list[float] = []
    for block in range(args.blocks):
        load.engine.residents.release(1)
        load.age(1, young, args.young)
        at = args.age + block * calls
        # In turns, and each first every other time, so that neither profits from the other's warm cache.
        pair: list[tuple[list[float], Callable[[int], None]]] = [
            (young_times, lambda call: load.step(1, young, args.young + call)),
            (old_times, lambda call, at=at: load.step(0, old, at + call)),  # type: ignore[misc]
        ]
        for times, step in pair if block % 2 else reversed(pair):
            started = time.perf_counter()
            for call in range(calls):
                step(call)
            times.append((time.perf_counter() - started) / (calls * args.batch))
    ratios = [o / y for o, y in zip(old_times, young_times, strict=True)]
    return load.about | {
        "batch": args.batch,
        "young_step": args.young,
        "old_step": args.age,
        "young_us_per_event": statistics.median(young_times) * 1e6,
        "old_us_per_event": statistics.median(old_times) * 1e6,
        "old_to_young_ratio": statistics.median(ratios),
        "ratio_quartiles": statistics.quantiles(ratios, n=4),
    }
