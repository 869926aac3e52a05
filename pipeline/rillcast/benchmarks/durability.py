"""What durability costs and how long a recovery takes, on a real broker, with the service as a process of its own."""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any, Final

import msgspec

from rillcast.benchmarks.process import Topics
from rillcast.bundle.bundle import Bundle
from rillcast.bundle.frequency import Frequency
from rillcast.settings import Settings

_START_MS: Final = 1_704_067_200_000  # 2024-01-01T00:00:00Z
_FORECASTS: Final = "rillcast_forecasts_total"
_encode = msgspec.json.Encoder().encode


def observations(frequency: Frequency, streams: int, first: int, rounds: int) -> tuple[list[bytes], list[bytes]]:
    """Return keys and values of `rounds` events for each of `streams`, round by round from slot `first` on."""
    keys, values = [], []
    for slot in range(first, first + rounds):
        ds = frequency.ahead(_START_MS, slot)
        for number in range(streams):
            unique_id = f"stream-{number}"
            y = 100 + 10 * ((slot + number) % 24) + number % 7
            keys.append(unique_id.encode())
            values.append(_encode({"unique_id": unique_id, "ds": ds, "y": y}))
    return keys, values


def recovery(args: argparse.Namespace, settings: Settings) -> dict[str, Any]:
    """Kill a service with many streams and time the next one from its start to its first new forecast.

    Bytes of state per event are compared with a changelog that writes each changed row at each commit: with every
    stream in turn no row changes twice within a commit, so that is one whole row per event.
    Load and replay are means over the partitions; the first forecast may come before the last of them is live.
    """
    metadata = Bundle.load(settings.model).metadata
    topics = Topics(settings, args.partitions)
    rounds, frequency = args.rounds, metadata.frequency
    topics.fill(*observations(frequency, args.streams, 0, rounds))
    changes = {"state__snapshot_interval_s": args.snapshot_interval, "kafka__group_instance_id": "bench"}
    total = rounds * args.streams
    with topics.service(**changes) as service:
        service.wait_for_metric(_FORECASTS, total)
        caught_up_s = time.perf_counter() - service.started
        service.wait_for_metric("rillcast_state_marks_written_total", args.partitions)
        # What has to be replayed: events since the last snapshot.
        topics.fill(*observations(frequency, args.streams // 10, rounds, 1))
        target = total + args.streams // 10
        service.wait_for_metric(_FORECASTS, target)
        written = service.metric("rillcast_state_written_bytes_total")
        pages = service.metric("rillcast_state_pages_written_total")
    topics.fill(*observations(frequency, 100, rounds + 1, 1))
    with topics.reader() as reader, topics.service(**changes) as service:
        while not len(reader.poll(1, 0.01)):
            pass
        first_s = time.perf_counter() - service.started
        service.wait_for(lambda: service.metric("rillcast_partitions_restoring") == 0, "all partitions live")
        replayed = service.metric("rillcast_replayed_events_total")
        load_s = service.metric("rillcast_restore_load_duration_seconds_sum") / args.partitions
        restore_s = service.metric("rillcast_restore_duration_seconds_sum") / args.partitions
    per_event = written / target
    return {
        "model": f"{metadata.name}@{metadata.model_id}",
        "streams": args.streams,
        "events": target,
        "events_per_second": total / caught_up_s,
        "first_forecast_s": first_s,
        "load_s": load_s,
        "replay_s": restore_s - load_s,
        "replayed_events": replayed,
        "snapshot_interval_s": args.snapshot_interval,
        "state_bytes_written": written,
        "state_pages_written": pages,
        "state_bytes_per_event": per_event,
        "row_bytes": metadata.row_bytes,
        "fewer_than_rows_at_commits": metadata.row_bytes / per_event if per_event else None,
    }


def delivery(args: argparse.Namespace, settings: Settings) -> dict[str, Any]:
    """Run the same backlog under both deliveries, in turns, and compare the rates."""
    metadata = Bundle.load(settings.model).metadata
    rounds = max(1, args.events // args.streams)
    total = rounds * args.streams
    rates: dict[str, list[float]] = {"at_least_once": [], "exactly_once": []}
    for _ in range(args.repeat):
        for name, measured in rates.items():
            topics = Topics(settings, args.partitions)
            topics.fill(*observations(metadata.frequency, args.streams, 0, rounds))
            with topics.service(worker__delivery=name) as service:
                service.wait_for_metric(_FORECASTS, 1)
                started, before = time.perf_counter(), service.metric(_FORECASTS)
                service.wait_for_metric(_FORECASTS, total)
                measured.append((total - before) / (time.perf_counter() - started))
    pairs = zip(rates["exactly_once"], rates["at_least_once"], strict=True)
    return {
        "model": f"{metadata.name}@{metadata.model_id}",
        "streams": args.streams,
        "events": total,
        "commit_interval_s": settings.worker.commit_interval_s,
        "events_per_second": {name: statistics.median(measured) for name, measured in rates.items()},
        "exactly_to_at_least_ratio": statistics.median(exactly / at_least for exactly, at_least in pairs),
    }
