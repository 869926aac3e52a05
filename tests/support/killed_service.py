"""A service on a real broker that is killed and started again, and its forecasts, each there once."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.support.kafka_cluster import KafkaCluster
from tests.support.service_process import service

SETTINGS: Final[Mapping[str, object]] = {
    "worker.delivery": "exactly_once",
    "kafka.group_instance_id": "one",  # its successor ends the transaction that the crash leaves open
    "kafka.session_timeout_s": 6,
    "worker.commit_interval_s": 0.05,
    "worker.max_poll_records": 20,
    "state.snapshot_interval_s": 0.2,
    "state.snapshot_events_per_stream": 0,
}
"""Many commits and snapshots, so that a kill comes between some."""


def serve_through_a_kill(
    kafka: KafkaCluster, settings: Mapping[str, object], folder: Path, *, metric: str, forecasts: int, records: int
) -> None:
    """Serve a topic of some records to its end; the first process is killed after some forecasts, by their metric."""
    with service(settings, folder) as first:
        first.wait_until(lambda: first.metric(metric) > forecasts, "some forecasts")
        first.kill()
    group, topic = str(settings["kafka.group_id"]), str(settings["input.topic"])
    with service(settings, folder) as last:
        last.wait_until(lambda: sum(kafka.committed(group, topic).values()) == records, "all records")
        assert last.stop() == 0, last.log[-4000:]


def medians(kafka: KafkaCluster, topic: str) -> dict[str, list[int]]:
    """Return the next period's median of each forecast of the toy, by stream in the order of time; none is a repeat."""
    found = defaultdict[str, dict[str, int]](dict)
    published = [record.value or b"" for record in kafka.read_all(topic)]
    for value in published:
        record = json.loads(value)
        found[record["unique_id"]][record["ds"]] = int(record["quantiles"]["0.5"][0])
    assert max(Counter(published).values()) == 1, "each once"
    return {unique_id: [at[ds] for ds in sorted(at)] for unique_id, at in found.items()}
