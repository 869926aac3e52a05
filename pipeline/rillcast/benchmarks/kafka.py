"""Rate of the service end to end over Kafka, against an echo loop of the same client and codec, in turns.

Owns: the runs, their order, and the figures. Each run is a separate process on a backlog that the input topic already
has. The order alternates between rounds, so that a drift of the machine's speed cancels out of the ratios.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from rillcast.benchmarks.backlog import fill_backlog, for_a_file, for_one_run, observations, write_file
from rillcast.benchmarks.echo import bytes_per_forecast, echo
from rillcast.benchmarks.load import name_of
from rillcast.benchmarks.serve import serve
from rillcast.benchmarks.timing import Measured, in_process, medians, ratio
from rillcast.bundle.bundle import Bundle
from rillcast.settings import Settings

log = logging.getLogger(__name__)

_Plan: TypeAlias = tuple[Callable[[Settings, int], Measured], Settings, int]

_SERVICE, _LIMIT, _BUSY, _FILE = "service", "echo", "busy", "file"


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
    parser.add_argument("--file", action="store_true", help="also measure the same events from a file to a file (json)")
    parser.add_argument("--repeat", type=int, default=3, help="rounds (default: 3)")


def measure(args: argparse.Namespace, settings: Settings) -> dict[str, Any]:
    """Return rates, processor time and stages of the service and of its limit, by client and codec."""
    bundle = Bundle.load(settings.one_model)
    frequency = bundle.metadata.frequency
    cases = []
    with tempfile.TemporaryDirectory(prefix="rillcast-bench-") as folder:
        for client in args.clients.split(","):
            # kafka-python is ten times slower, and a run of seconds is enough.
            events = args.events if client == "librdkafka" else args.events // 10
            topics, filled = fill_backlog(settings, args.partitions, frequency, events, args.streams)
            busy = fill_backlog(settings, args.partitions, frequency, events // 4, args.busy) if args.busy else None
            path = Path(folder) / "observations.jsonl" if args.file else None
            if path is not None:
                values = observations(frequency, args.streams, 0, filled // args.streams)[1]
                write_file(path, values, args.streams, "interleaved")
            for codec in args.codecs.split(","):
                of_topic = for_one_run(topics.settings, client, codec)
                plans: dict[str, _Plan] = {_SERVICE: (serve, of_topic, filled), _LIMIT: (echo, of_topic, filled)}
                if busy is not None:
                    plans[_BUSY] = serve, for_one_run(busy[0].settings, client, codec), busy[1]
                if path is not None and codec == "json":
                    plans[_FILE] = serve, for_a_file(of_topic, path), filled
                size = bytes_per_forecast(of_topic, bundle.metadata)
                cases.append({"client": client, "codec": codec, "bytes_per_forecast": size} | _case(plans, args))
    return {
        "model": name_of(bundle),
        "streams": args.streams,
        "delivery": settings.worker.delivery,
        "cases": cases,
    }


def _case(plans: Mapping[str, _Plan], args: argparse.Namespace) -> dict[str, Any]:
    runs: dict[str, list[Measured]] = {name: [] for name in plans}
    for number in range(args.repeat):
        for name in list(runs) if number % 2 else reversed(list(runs)):
            loop, settings, events = plans[name]
            kafka = settings.kafka.model_copy(update={"group_id": f"bench-{uuid.uuid4().hex[:8]}"})
            runs[name].append(in_process(loop, settings.model_copy(update={"kafka": kafka}), events))
            log.info("%s: %s", name, runs[name][-1].summary())
    case: dict[str, Any] = {
        "events": plans[_SERVICE][2],
        "runs": {name: medians(measured) for name, measured in runs.items()},
        "ratio_to_echo": ratio(runs[_SERVICE], runs[_LIMIT]),
    }
    if _FILE in runs:
        case["file_to_topic_ratio"] = ratio(runs[_FILE], runs[_SERVICE])
    if _BUSY in runs:
        case |= {"busy_streams": args.busy, "busy_ratio": ratio(runs[_BUSY], runs[_SERVICE])}
    return case


def show(figures: dict[str, Any]) -> None:
    """Print each case with its share of the limit, and the stages of its runs."""
    print(f"{figures['model']}, {figures['streams']:,} streams, {figures['delivery']}")
    for case in figures["cases"]:
        size = f"{case['bytes_per_forecast']:,.0f} bytes a forecast"
        print(f"{case['client']}, {case['codec']}, {size}: {case['ratio_to_echo']:.2f} of the limit")
        for name, run in case["runs"].items():
            stages = ", ".join(f"{stage} {us:.2f}" for stage, us in run["stages_us_per_event"].items())
            print(
                f"  {name:<8} {run['events_per_second']:>9,.0f} events/s  {run['cpu_us_per_event']:.1f} us of processor"
                f" per event, {run['peak_rss_mib']:.0f} MiB\n{'':>11}us per event: {stages}"
            )
