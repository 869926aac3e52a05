"""Latency of a forecast: from the broker's append of the observation to its append of the forecast.

The loop is open: each observation is sent at its time, even if forecasts are outstanding. A service that stalls is
charged for all events that arrive meanwhile (no coordinated omission). Both topics carry the time of the append
(`message.timestamp.type=LogAppendTime`), the clock of one broker in whole milliseconds. A forecast names its
observation, so each is compared with its own. The service's own metrics divide the mean: up to the hand-over of the
forecast to the client, and of that from the decoding on; they include the seconds of warming up. A run in which the
wall clock was stepped does not count.

Owns: the rate, the schedule and the figures. Does not know: the service, other than as a process.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any, Final

import numpy as np

from rillcast.arrays import IntArray
from rillcast.benchmarks import output
from rillcast.benchmarks.backlog import fill_backlog, for_one_run, observations
from rillcast.benchmarks.load import name_of
from rillcast.benchmarks.process import Topics
from rillcast.benchmarks.serve import serve
from rillcast.benchmarks.timing import in_process
from rillcast.bundle.bundle import Bundle
from rillcast.codecs.forecasts.reader import decode_forecast
from rillcast.errors import TransportError
from rillcast.settings import Settings
from rillcast.transports.base import Assignment, Channel, Records
from rillcast.transports.connect import open_sink, open_source

__all__ = ["QUANTILES", "add_arguments", "measure", "show"]

log = logging.getLogger(__name__)

QUANTILES: Final = ("p50_ms", "p99_ms", "p999_ms", "max_ms")
_TICK_S: Final = 0.002
_WARM_UP_S: Final = 5.0  # the first second waits for the code of broker and client, and is worked off in two or three
_CLOCK_STEP_S: Final = 0.05  # a virtual machine that was suspended, or a correction of the time; slewing is below it
_DEADLINE_S: Final = 120.0
_BY_APPEND: Final = {"message.timestamp.type": "LogAppendTime"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the benchmark's arguments."""
    parser.add_argument(
        "--rate", type=float, default=0.0, help="events per second (default: half of the service's rate on a backlog)"
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="seconds of each run (default: 20)")
    parser.add_argument("--streams", type=int, default=10_000, help="streams (default: 10000)")
    parser.add_argument(
        "--events", type=int, default=200_000, help="events of the run that finds the rate (default: 200000)"
    )
    parser.add_argument("--repeat", type=int, default=3, help="runs; the one in the middle is shown (default: 3)")


def measure(args: argparse.Namespace, settings: Settings) -> dict[str, Any]:
    """Return the quantiles of the latency at a fixed rate, and what the mean consists of.

    They are those of the run whose 99th percentile is in the middle; `runs` has the quantiles of all.

    Raises:
        TransportError: A record was not found in time, or the machine's clock was stepped in too many runs.
    """
    bundle = Bundle.load(settings.one_model)
    frequency = bundle.metadata.frequency
    most = args.rate * 2
    if not args.rate:
        topics, events = fill_backlog(settings, args.partitions, frequency, args.events, args.streams)
        most = in_process(
            serve, for_one_run(topics.settings, settings.kafka.client, settings.output.codec), events
        ).rate
    rate = most / 2
    rounds = round(rate * (args.seconds + _WARM_UP_S)) // args.streams + 1
    load = observations(frequency, args.streams, 0, rounds)
    runs: list[dict[str, Any]] = []
    for _ in range(2 * args.repeat):
        stepped = _ClockStep()
        run = _run(args, settings, load, rate)
        if abs(step_s := stepped.seconds()) < _CLOCK_STEP_S:
            runs.append(run)
        else:
            log.warning("the clock of this machine was stepped by %.3f s in a run, which does not count", step_s)
        if len(runs) == args.repeat:
            break
    else:
        raise TransportError(
            f"the clock of this machine was stepped in {2 * args.repeat - len(runs)} of {2 * args.repeat} runs: times "
            "of appends say nothing about latency. Run it where the clock is steady"
        )
    runs.sort(key=lambda run: run["p99_ms"])
    return {
        "model": name_of(bundle),
        "streams": args.streams,
        "rate": rate,
        "rate_of_a_backlog": most,
        "clock": "LogAppendTime of both topics, whole milliseconds",
        **runs[len(runs) // 2],
        "runs": [{name: run[name] for name in QUANTILES} for run in runs],
    }


def show(figures: dict[str, Any]) -> None:
    """Print the figures of the run in the middle, and the quantiles of all."""
    output.show({name: value for name, value in figures.items() if name != "runs"})
    for run in figures["runs"]:
        print("of a run".ljust(28), ", ".join(f"{name} {value:,.0f}" for name, value in run.items()))


def _run(
    args: argparse.Namespace, settings: Settings, load: tuple[Sequence[bytes], Sequence[bytes]], rate: float
) -> dict[str, Any]:
    keys, values = load
    topics = Topics(settings, args.partitions, _BY_APPEND)
    with topics.service() as service:
        service.wait_for_metric("rillcast_partitions", args.partitions)
        late_s = _feed(topics, keys, values, rate)
        service.wait_for_metric("rillcast_forecasts_total", len(keys))
        of_service = {
            "handed_over_mean_ms": 1e3 * service.mean("rillcast_event_latency_seconds"),
            "poll_mean_ms": 1e3 * service.mean("rillcast_poll_duration_seconds"),
            "poll_mean_events": service.mean("rillcast_poll_records"),
            "commit_mean_ms": 1e3 * service.mean("rillcast_commit_duration_seconds"),
        }
    taken = _latencies(topics, len(keys), skip=round(rate * _WARM_UP_S))
    quantiles = (*np.quantile(taken, (0.5, 0.99, 0.999)).tolist(), float(taken.max()))
    return {
        "events": int(taken.size),
        **dict(zip(QUANTILES, quantiles, strict=True)),
        "mean_ms": float(taken.mean()),
        **of_service,
        "sender_late_by_at_most_s": late_s,
        "histogram_ms": np.bincount(np.minimum(taken, 200)).tolist(),
    }


class _ClockStep:
    """How far the clock that brokers stamp with has moved from the one that only runs forward."""

    def __init__(self) -> None:
        self._apart = self._now()

    def seconds(self) -> float:
        return self._now() - self._apart

    @staticmethod
    def _now() -> float:
        return time.time() - time.monotonic()


def _feed(topics: Topics, keys: Sequence[bytes], values: Sequence[bytes], rate: float) -> float:
    """Send the i-th observation at second `i / rate`; return the largest delay of the sender itself, in seconds."""
    late = 0.0
    with closing(open_sink(topics.to_input())) as sink:
        started, sent = time.perf_counter(), 0
        while sent < len(keys):
            due = min(len(keys), int((time.perf_counter() - started) * rate) + 1)
            if due > sent:
                late = max(late, time.perf_counter() - started - sent / rate)
                sink.publish(Channel.FORECASTS, Records(keys[sent:due], values[sent:due]))
                sent = due
            time.sleep(_TICK_S)
        sink.flush(_DEADLINE_S)
    return late


def _latencies(topics: Topics, events: int, skip: int) -> IntArray:
    """Return the milliseconds of each observation but the first `skip`, in the order in which they were appended."""
    appended: dict[tuple[int, int], int] = {}
    for partition, offset, at, _, _ in _read(topics, topics.settings.input.topic, events):
        appended[partition, offset] = at
    first_ms = sorted(appended.values())[min(skip, events - 1)]
    taken = []
    for _, _, at, key, value in _read(topics, topics.settings.output.topic, events):
        forecast = decode_forecast(value, key)
        observed = appended[forecast.partition, forecast.offset]
        if observed >= first_ms:
            taken.append(at - observed)
    return np.array(taken, np.int64)


def _read(topics: Topics, topic: str, events: int) -> list[tuple[int, int, int, bytes, bytes]]:
    """Return partition, offset, time of the append, key and value of all records of a topic."""
    settings = topics.settings
    kafka = settings.kafka.model_copy(update={"group_id": f"{topic}-reader"})
    source = open_source(
        settings.model_copy(update={"kafka": kafka, "input": settings.input.model_copy(update={"topic": topic})})
    )
    source.open(_FromTheBeginning())
    records: list[tuple[int, int, int, bytes, bytes]] = []
    deadline = time.monotonic() + _DEADLINE_S
    with closing(source):
        while len(records) < events:
            if time.monotonic() > deadline:
                raise TransportError(f"topic {topic}: {len(records)} of {events} records after {_DEADLINE_S:g} s")
            polled = source.poll(10_000, 0.1)
            where = polled.partitions.tolist(), polled.offsets.tolist(), polled.timestamps_ms.tolist()
            records += [
                (partition, offset, at, key or b"", value or b"")
                for partition, offset, at, key, value in zip(*where, polled.keys, polled.values, strict=True)
            ]
    return records


class _FromTheBeginning:
    """Reads every partition from its beginning."""

    def on_assigned(self, assignments: Sequence[Assignment]) -> Mapping[int, int | None]:
        return {assignment.partition: assignment.beginning for assignment in assignments}

    def on_revoked(self, partitions: Sequence[int]) -> None:
        """The only member of its group keeps its partitions."""

    def on_lost(self, partitions: Sequence[int]) -> None:
        """The only member of its group keeps its partitions."""
