"""One measured run of a loop over a backlog: its time, processor time and memory.

Owns: the stopwatch and its result. Does not know: the loop. Time begins with the first record in hand, so that joining
a group is not counted, and ends when the last result is durable and committed. Processor time is that of the whole
process, with the threads of the client library.
"""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Final, ParamSpec, TypeVar

from rillcast.errors import RillcastError

_DEADLINE_S: Final = 900.0
_MIB: Final = 1024 if sys.platform == "linux" else 1024 * 1024  # ru_maxrss is in KiB on Linux, in bytes on macOS


@dataclass(frozen=True, slots=True)
class Measured:
    """Figures of one run.

    Attributes:
        events: Number of records read.
        seconds: Seconds of wall time.
        cpu_seconds: Seconds of processor time of the process.
        peak_rss_mib: Most resident memory that the process had, in MiB.
        stages: Seconds of processor time of the thread that runs the loop, by stage.
    """

    events: int
    seconds: float
    cpu_seconds: float
    peak_rss_mib: float
    stages: Mapping[str, float] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Events per second."""
        return self.events / self.seconds

    def summary(self) -> dict[str, Any]:
        """Return the run as plain values; processor time is per event."""
        return {
            "events_per_second": self.rate,
            "cpu_us_per_event": self.cpu_seconds / self.events * 1e6,
            "peak_rss_mib": self.peak_rss_mib,
            "stages_us_per_event": {name: seconds / self.events * 1e6 for name, seconds in self.stages.items()},
        }


class Stopwatch:
    """Runs from `start`, which counts once, to `stop`."""

    def __init__(self) -> None:
        self._started: tuple[float, float] | None = None
        self._measured: tuple[float, float] | None = None

    @property
    def running(self) -> bool:
        """Whether it is started and not stopped."""
        return self._started is not None and self._measured is None

    def start(self) -> None:
        """Begin at the first call."""
        if self._started is None:
            self._started = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        """End at the first call after the start."""
        if self.running:
            assert self._started is not None
            wall, cpu = self._started
            self._measured = time.perf_counter() - wall, time.process_time() - cpu

    def measured(self, events: int, stages: Mapping[str, float] | None = None) -> Measured:
        """Return the figures of the run."""
        assert self._measured is not None, "the stopwatch was not started and stopped"
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _MIB
        return Measured(events, *self._measured, peak, dict(stages or {}))


def medians(runs: Sequence[Measured]) -> dict[str, Any]:
    """Return the medians of the runs' figures, with the spread of the rate."""
    each = [run.summary() for run in runs]
    rates = [run.rate for run in runs]
    stages: Mapping[str, float] = each[0]["stages_us_per_event"]
    return {
        "events_per_second": statistics.median(rates),
        "min": min(rates),
        "max": max(rates),
        "cpu_us_per_event": statistics.median(run["cpu_us_per_event"] for run in each),
        "peak_rss_mib": statistics.median(run["peak_rss_mib"] for run in each),
        "stages_us_per_event": {
            name: statistics.median(run["stages_us_per_event"][name] for run in each) for name in stages
        },
    }


def ratio(runs: Sequence[Measured], others: Sequence[Measured]) -> float:
    """Return the median of the rounds' ratios of rates."""
    return statistics.median(run.rate / other.rate for run, other in zip(runs, others, strict=True))


P = ParamSpec("P")
R = TypeVar("R")


def in_process(loop: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run `loop` in a new process, so that runs do not share memory, threads or warm caches.

    Raises:
        RillcastError: The loop failed or took too long; its message and exit code are passed on.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(there, loop, args, kwargs))
    process.start()
    there.close()
    try:
        if not here.poll(_DEADLINE_S):
            raise RillcastError(f"{loop.__name__} was still running after {_DEADLINE_S:g} s")
        outcome = here.recv()
    except EOFError as error:
        process.join()
        raise RillcastError(f"{loop.__name__} ended with exit code {process.exitcode} and no result") from error
    finally:
        if process.is_alive():
            process.join(30.0)
            process.kill()
        process.join()
    if isinstance(outcome, BaseException):
        raise outcome
    result: R = outcome
    return result


def _child(connection: Connection, loop: Callable[..., Any], args: Any, kwargs: Any) -> None:
    try:
        outcome = loop(*args, **kwargs)
    except RillcastError as error:  # its class may not survive the pipe, its policy does
        outcome = RillcastError(str(error))
        outcome.exit_code, outcome.retriable = error.exit_code, error.retriable
    except Exception as error:  # noqa: BLE001  the parent raises it
        outcome = RillcastError(f"{type(error).__name__}: {error}")
    connection.send(outcome)
    connection.close()
