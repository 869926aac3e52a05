"""The service end to end over Kafka, against the echo loop of the same client and codec, in turns within one run.

Owns: what is run, in which order, and the figures. Each run is a process of its own on a backlog that the input topic
already has. The order of a round alternates, so that a drift of the machine's speed cancels out of the ratios.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final

from rillcast.benchmarks.durability import observations
from rillcast.benchmarks.echo import echo
from rillcast.benchmarks.process import Topics
from rillcast.benchmarks.serve import serve
from rillcast.benchmarks.timing import Measured, in_process
from rillcast.bundle.bundle import Bundle
from rillcast.bundle.frequency import Frequency
from rillcast.settings import Settings

log = logging.getLogger(__name__)

_SERVICE, _LIMIT, _BUSY = "service", "echo", "busy"


def kafka(args: argparse.Namespace, settings: Settings) -> dict[str, Any]:
    """Return rates, processor time and stages of the service and of its limit, by client and codec."""
    metadata = Bundle.load(settings.model).metadata
    cases = []
    for client in args.clients.split(","):
        # kafka-python is ten times slower, and a run of seconds is enough.
        events = args.events if client == "librdkafka" else args.events // 10
        backlog = fill_backlog(settings, args.partitions, metadata.frequency, events, args.streams)
        busy = None
        if args.busy:
            busy = fill_backlog(settings, args.partitions, metadata.frequency, events // 4, args.busy)
        for codec in args.codecs.split(","):
            cases.append(_case(backlog, busy, client, codec, args))  # noqa: PERF401  each takes minutes
    return {
        "model": f"{metadata.name}@{metadata.model_id}",
        "streams": args.streams,
        "delivery": settings.worker.delivery,
        "cases": cases,
    }


def fill_backlog(
    settings: Settings, partitions: int, frequency: Frequency, events: int, streams: int
) -> tuple[Topics, int]:
    """Make topics with a backlog of about `events` events, round by round of the streams."""
    rounds = max(1, events // streams)
    topics = Topics(settings, partitions)
    # In parts, so that a backlog of any size fits in memory.
    rows = max(1, 100_000 // streams)
    for first in range(0, rounds, rows):
        topics.fill(*observations(frequency, streams, first, min(rows, rounds - first)))
    return topics, rounds * streams


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


def for_one_run(settings: Settings, client: str, codec: str) -> Settings:
    """Return settings under which the backlog is read from its beginning."""
    return settings.model_copy(
        update={
            "kafka": settings.kafka.model_copy(update={"group_id": f"bench-{uuid.uuid4().hex[:8]}", "client": client}),
            "output": settings.output.model_copy(update={"codec": codec}),
            "http": settings.http.model_copy(update={"port": 0}),
        }
    )


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
