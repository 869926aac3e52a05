"""How fast a GPU steps a model, and how fast a service is on it.

Owns: the ways that are compared, and their turns. Does not know: processes, the report.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rillcast.arrays import AnyArray
from rillcast.benchmarks.backlog import observations
from rillcast.benchmarks.gpu_numbers import Measurement
from rillcast.benchmarks.load import Load
from rillcast.benchmarks.serve import serve
from rillcast.benchmarks.timing import in_process
from rillcast.bundle.bundle import Bundle
from rillcast.engine.batcher import DEFAULT_RUNS, Runs
from rillcast.engine.device import Device
from rillcast.settings import (
    DeadLetterSettings,
    HttpSettings,
    InputSettings,
    OutputSettings,
    Settings,
    WorkerSettings,
)

BATCH_ROWS, POLL_RECORDS = 4096, 20_000
MEMBERS: Final = 2


class Pageable(Device):
    """A GPU whose host buffers are ordinary memory."""

    def host_buffer(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> AnyArray:
        """Return zeros that the driver stages."""
        return np.zeros(shape, dtype)


WAYS: Final = {
    "cpu": Device("cpu"),
    "plain": Device("cuda"),
    "graphs": Device("cuda", cuda_graphs=True),
    "graphs_pageable": Pageable("cuda", cuda_graphs=True),
    "graphs_tf32": Device("cuda", cuda_graphs=True, tf32=True),
}


@dataclass(frozen=True)
class Effort:
    """How long is measured.

    Attributes:
        batches: Batch sizes.
        seconds: For each batch size, way and round.
        rounds: Turns of the ways; the best counts.
        events: Events of each run of the service.
        backlogs: Numbers of streams that have 256 events each.
    """

    batches: Sequence[int] = (1, 16, 64, 256, 1024, 4096)
    seconds: float = 0.4
    rounds: int = 2
    events: int = 200_000
    backlogs: Sequence[int] = (4, 64, 1024)


def rates(model: str, effort: Effort) -> Iterator[Measurement]:
    """Yield the events per second of the engine by batch size, by way."""
    bundle, rows = Bundle.load(model), max(effort.batches)
    loads: dict[str, Load | str] = {}
    for way, on in WAYS.items():
        try:
            loads[way] = Load(bundle, on, rows)
        except Exception as error:  # noqa: BLE001  the other ways go on
            loads[way] = f"{type(error).__name__}: {error}"
    for batch in effort.batches:
        yield f"steps per second batch {batch}", partial(_in_turns, loads, batch, effort)
    for streams in effort.backlogs:
        yield f"catch-up of {streams} streams", partial(_catch_up, bundle, streams, effort)


def _in_turns(loads: dict[str, Load | str], batch: int, effort: Effort) -> dict[str, Any]:
    ids = [f"{batch}-{number}" for number in range(batch)]
    periods = {way: count() for way in loads}
    found: dict[str, Any] = {}
    for _ in range(effort.rounds):
        for way, load in loads.items():
            if isinstance(load, str) or isinstance(found.get(way), str):
                found[way] = load if isinstance(load, str) else found[way]
                continue
            try:
                found[way] = max(found.get(way, 0.0), _rate(load, ids, effort.seconds, periods[way]))
            except Exception as error:  # noqa: BLE001  the other ways go on
                found[way] = f"{type(error).__name__}: {error}"
    return found


def _rate(load: Load, ids: list[str], seconds: float, periods: Iterator[int]) -> float:
    load.step(0, ids, next(periods))  # captures, and allocates
    done, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds:
        load.step(0, ids, next(periods))
        done += 1
    return done * len(ids) / elapsed


def _catch_up(bundle: Bundle, streams: int, effort: Effort) -> dict[str, Any]:
    """Return the events per second of a backlog, in runs and in waves."""
    if bundle.sequence is None:
        return {"skipped": "the bundle has no sequence graph"}
    on, length = Device("cuda", cuda_graphs=True), DEFAULT_RUNS.lengths[0]
    ids = [f"s{number}" for number in range(streams)]
    loads = {"runs": Load(bundle, on, BATCH_ROWS), "waves": Load(bundle, on, BATCH_ROWS, runs=Runs())}
    found = {}
    for way, load in loads.items():
        load.step(0, ids, 0, length)
        done, started = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - started) < effort.seconds:
            done += 1
            load.step(0, ids, done * length, length)
        found[way] = done * length * streams / elapsed
    return found


def service(model: str, effort: Effort) -> Iterator[Measurement]:
    """Yield the events per second of the service from file to file, and of two at once on one GPU."""
    yield "service cpu", partial(_served, model, effort, "cpu", 1)
    yield "service cuda", partial(_served, model, effort, "cuda", 1)
    yield f"service cuda, {MEMBERS} members", partial(_served, model, effort, "cuda", MEMBERS)


def _served(model: str, effort: Effort, device: str, members: int) -> dict[str, Any]:
    streams = max(1, min(20_000, effort.events // 10))
    worker = WorkerSettings(batch_rows=BATCH_ROWS, max_poll_records=POLL_RECORDS) if device == "cuda" else None
    with tempfile.TemporaryDirectory(prefix="rillcast-bench-") as folder:
        path = Path(folder) / "observations.jsonl"
        lines = observations(Bundle.load(model).metadata.frequency, streams, 0, effort.events // streams)[1]
        path.write_bytes(b"\n".join(lines) + b"\n")

        def run(member: int) -> Any:
            settings = Settings.model_validate(
                {
                    "model": model,
                    "device": device,
                    "input": InputSettings(path=str(path)),
                    "output": OutputSettings(path=str(Path(folder) / f"forecasts-{member}.jsonl")),
                    "dead_letters": DeadLetterSettings(path=str(Path(folder) / f"dead-{member}.jsonl")),
                    "http": HttpSettings(port=0),
                    **({"worker": worker} if worker else {}),
                }
            )
            return in_process(serve, settings, len(lines))

        with ThreadPoolExecutor(members) as pool:
            runs = list(pool.map(run, range(members)))
    return {
        "events_per_second": sum(one.rate for one in runs),
        "cpu_us_per_event": sum(one.cpu_seconds for one in runs) / sum(one.events for one in runs) * 1e6,
        "members": members,
    }
