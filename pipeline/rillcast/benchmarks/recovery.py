"""Time of a recovery: from `kill -9` to the first new forecast, with the service as a process and a real broker."""

from __future__ import annotations

import argparse
import time
from typing import Any, Final

from rillcast.benchmarks.backlog import observations
from rillcast.benchmarks.load import name_of
from rillcast.benchmarks.output import show
from rillcast.benchmarks.process import Topics
from rillcast.bundle.bundle import Bundle
from rillcast.settings import Settings

__all__ = ["add_arguments", "measure", "show"]

_FORECASTS: Final = "rillcast_forecasts_total"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the benchmark's arguments."""
    parser.add_argument("--streams", type=int, default=100_000, help="resident streams (default: 100000)")
    parser.add_argument("--rounds", type=int, default=20, help="events per stream before the kill (default: 20)")
    parser.add_argument("--snapshot-interval", type=float, default=30.0, help="state.snapshot_interval_s (default: 30)")


def measure(args: argparse.Namespace, settings: Settings) -> dict[str, Any]:
    """Kill a service with many streams and time the next one from its start to its first new forecast.

    Bytes of state per event are compared with a changelog that writes each changed row at each commit. All streams have
    events in turn, so that no row changes twice within a commit: that is one row per event. Load and replay are means
    over the partitions; the first forecast may come before the last of them is live.
    """
    bundle = Bundle.load(settings.one_model)
    frequency, row_bytes = bundle.metadata.frequency, bundle.metadata.row_bytes
    topics = Topics(settings, args.partitions)
    rounds = args.rounds
    topics.fill(*observations(frequency, args.streams, 0, rounds))
    changes = {"state__snapshot_interval_s": args.snapshot_interval, "kafka__group_instance_id": "bench"}
    total = rounds * args.streams
    with topics.service(**changes) as service:
        service.wait_for_metric(_FORECASTS, total)
        caught_up_s = time.perf_counter() - service.started
        service.wait_for_metric("rillcast_state_marks_written_total", args.partitions)
        # Events since the last snapshot, which the next service replays.
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
        service.wait_for(lambda: service.metric("rillcast_partitions_restoring") == 0, "all partitions are live")
        replayed = service.metric("rillcast_replayed_events_total")
        load_s = service.metric("rillcast_restore_load_duration_seconds_sum") / args.partitions
        restore_s = service.metric("rillcast_restore_duration_seconds_sum") / args.partitions
    per_event = written / target
    return {
        "model": name_of(bundle),
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
        "row_bytes": row_bytes,
        "fewer_than_rows_at_commits": row_bytes / per_event if per_event else None,
    }
