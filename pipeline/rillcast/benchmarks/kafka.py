"""Rate of the service end to end over Kafka, against an echo loop of the same client and codec, in turns.

Owns: the runs, their order, and the figures. Each run is a separate process on a backlog that the input topic already
has. The order alternates between rounds, so that a drift of the machine's speed cancels out of the ratios.
"""

from __future__ import annotations

import argparse
import logging
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Final

from rillcast.benchmarks.backlog import fill_backlog, for_one_run
from rillcast.benchmarks.echo import echo
from rillcast.benchmarks.load import name_of
from rillcast.benchmarks.process import Topics
from rillcast.benchmarks.serve import serve
from rillcast.benchmarks.timing import Measured, in_process
from rillcast.bundle.bundle import Bundle
from rillcast.settings import Settings

log = logging.getLogger(__name__)

_SERVICE, _LIMIT, _BUSY = "service", "echo", "busy"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the benchmark's arguments."""
    parser.add_argument(
        "--clients", default="librdkafka,kafka-python", help="client libraries (default: librdkafka,kafka-python)"
    )
    parser.add_argument(
        "--codecs",
        default="json,float32",
        help="codecs of the forecasts: json, msgpack, float32 (default: json,float32)",
    )
    parser.add_argument("--streams", type=int, default=10_000, help="streams (default: 10000)")
    parser.add_argument("--busy", type=int, default=0, help="also measure this few busy streams; 0 = no (default: 0)")
    parser.add_argument(
        "--events", type=int, default=200_000, help="events per run, a tenth with kafka-python (default: 200000)"
    )
    parser.add_argument("--repeat", type=int, default=3, help="rounds (default: 3)")


def measure(args: argparse.Namespace, settings: Settings) -> dict[str, Any]:
    """Return rates, processor time and stages of the service and of its limit, by client and codec."""
    bundle = Bundle.load(settings.one_model)
    frequency = bundle.metadata.frequency
    cases = []
    for client in args.clients.split(","):
        # kafka-python is ten times slower, and a run of seconds is enough.
        events = args.events if client == "librdkafka" else args.events // 10
        backlog = fill_backlog(settings, args.partitions, frequency, events, args.streams)
        busy = None
        if args.busy:
            busy = fill_backlog(settings, args.partitions, frequency, events // 4, args.busy)
        for codec in args.codecs.split(","):
            cases.append(_case(backlog, busy, client, codec, args))  # noqa: PERF401  each takes minutes
    return {
        "model": name_of(bundle),
        "streams": args.streams,
        "delivery": settings.worker.delivery,
        "cases": cases,
    }


def _case(
    backlog: tuple[Topics, int], busy: tuple[Topics, int] | None, client: str, codec: str, args: argparse.Namespace
) -> dict[str, Any]:
    runs: dict[str, list[Measured]] = {_SERVICE: [], _LIMIT: []}
    if busy is not None:
        runs[_BUSY] = []
    for number in range(args.repeat):
        for name in list(runs) if number % 2 else reversed(list(runs)):
            topics, events = busy if name == _BUSY and busy is not None else backlog
            of_run = for_one_run(topics.settings, client, codec)
            runs[name].append(in_process(echo if name == _LIMIT else serve, of_run, events))
            log.info("%s %s %s: %s", client, codec, name, runs[name][-1].summary())
    figures = {name: _summary(measured) for name, measured in runs.items()}
    ratio = _ratio(runs[_SERVICE], runs[_LIMIT])
    case = {"client": client, "codec": codec, "events": backlog[1], "runs": figures, "ratio_to_echo": ratio}
    if busy is not None:
        case |= {"busy_streams": args.busy, "busy_ratio": _ratio(runs[_BUSY], runs[_SERVICE])}
    return case


def _ratio(runs: Sequence[Measured], limits: Sequence[Measured]) -> float:
    """Return the median of the rounds' ratios of rates."""
    return statistics.median(run.rate / limit.rate for run, limit in zip(runs, limits, strict=True))


def _summary(runs: Sequence[Measured]) -> dict[str, Any]:
    """Return medians, with the spread of the rate."""
    each = [run.summary() for run in runs]
    rates = [run.rate for run in runs]
    stages: Final[Mapping[str, float]] = each[0]["stages_us_per_event"]
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


def show(figures: dict[str, Any]) -> None:
    """Print each case with its share of the limit, and the stages of its runs."""
    print(f"{figures['model']}, {figures['streams']:,} streams, {figures['delivery']}")
    for case in figures["cases"]:
        print(f"{case['client']}, {case['codec']}: {case['ratio_to_echo']:.2f} of the limit")
        for name, run in case["runs"].items():
            stages = ", ".join(f"{stage} {us:.2f}" for stage, us in run["stages_us_per_event"].items())
            print(
                f"  {name:<8} {run['events_per_second']:>9,.0f} events/s  {run['cpu_us_per_event']:.1f} us of processor"
                f" per event, {run['peak_rss_mib']:.0f} MiB\n{'':>11}us per event: {stages}"
            )
