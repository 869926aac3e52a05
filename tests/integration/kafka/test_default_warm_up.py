"""The default warm-up of a real model on a real broker: from where it begins, and that it is warm when it takes over.

The records' timestamps are their events' times, as those of a topic of sensors are. A model that is promoted reads back
twice its context and no more; from its first published forecast on it equals the model that was stepped offline, in
PyTorch, from that offset on, and it never says that it is warming up.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from rillcast.bundle.bundle import Bundle
from rillcast.bundle.registry.model_registry import ModelRegistry
from tests.support.kafka_cluster import KafkaCluster, unique
from tests.support.service_process import service
from tests.support.transports import CLIENTS
from tests.support.unrolls import LEVELS, hourly_forecaster, some_streams, unroll, write_bundle

STREAMS: Final = 6
AFTER: Final = 40  # hours that the new model serves
MORE: Final = 100  # hours that are retained beyond what a warm-up reads
TOLERANCE: Final = 1e-4
NOON: Final = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)


@pytest.mark.parametrize("client", CLIENTS)
def test_a_promoted_model_is_warmed_with_twice_its_context_and_equals_an_offline_unroll_from_there(
    client: str, kafka: KafkaCluster, tmp_path: Path
) -> None:
    registry = ModelRegistry.at(str(tmp_path / "registry"))
    old, new = hourly_forecaster("elman", hidden=8), hourly_forecaster("gru", hidden=16, seed=1)
    ids = [
        registry.push(write_bundle(each, tmp_path / str(number)).read_bytes(), NOON)[0].model_id
        for number, each in enumerate((old, new))
    ]
    registry.promote(ids[0], NOON)
    context = Bundle.from_bytes(registry.pull(ids[1]).data).metadata.context
    before = MORE + 2 * context
    ds, y = some_streams(steps=before + AFTER, streams=STREAMS)
    topic = kafka.create_topic("observations", 1, retention_ms=-1)
    output, group = kafka.create_topic("forecasts", 1), unique("group")
    settings = {
        "model": f"{tmp_path / 'registry'}@live",
        "model_cache": tmp_path / "cache",
        "rollout.poll_interval_s": 0.2,
        "kafka.client": client,
        "kafka.bootstrap_servers": kafka.bootstrap_servers,
        "kafka.group_id": group,
        "input.topic": topic,
        "output.topic": output,
        "dead_letters.topic": kafka.create_topic("dead-letters", 1),
        "worker.delivery": "exactly_once",
        "worker.commit_interval_s": 0.1,
    }

    def put(first: int, last: int) -> None:
        events = [(s, int(ds[t, s]), float(y[t, s])) for t in range(first, last) for s in range(STREAMS)]
        records = [json.dumps({"unique_id": f"s{s}", "ds": at, "y": value}).encode() for s, at, value in events]
        keys = [f"s{s}".encode() for s, _, _ in events]
        kafka.produce(topic, records, keys, timestamps_ms=[at for _, at, _ in events])

    def committed() -> int:
        return kafka.committed(group, topic).get(0, 0)

    put(0, before)
    with service(settings, tmp_path) as process:
        process.wait_until(lambda: committed() == before * STREAMS, "all of the past")
        registry.promote(ids[1], NOON)
        completed = 'rillcast_model_swaps_total{outcome="completed"}'
        process.wait_until(lambda: process.metric(completed) == 1, "the swap")
        put(before, before + AFTER)
        process.wait_until(lambda: committed() == (before + AFTER) * STREAMS, "every event committed")
        assert process.stop() == 0, process.log[-4000:]
    found = re.search(rf"model {ids[1]}, partition 0: following from offset (\d+) \(no kept state\)", process.log)
    assert found is not None, process.log
    began = before - 1 - 2 * context  # the newest event is one slot before `before`
    assert int(found[1]) == began * STREAMS

    forecasts, statuses = unroll(new, ds[began:], y[began:])
    seen = np.full((AFTER, *forecasts.shape[1:]), np.nan)
    published = [json.loads(record.value or b"") for record in kafka.read_all(output)]
    assert len(published) == (before + AFTER) * STREAMS
    for record in published:
        t, s = divmod(record["source"]["offset"], STREAMS)
        assert record["model"].rpartition("@")[2] == ids[t >= before], "at one offset"
        if t >= before:
            assert record["status"] == "ok", "it was warm"
            seen[t - before, s] = np.array([record["quantiles"][f"{level:g}"] for level in LEVELS]).T
    assert set(statuses[before - began :].ravel().tolist()) == {0}
    want = forecasts[before - began :]
    unit = np.maximum(np.abs(want), np.std(y, axis=0)[None, :, None, None])
    error = (np.abs(seen - want) / unit).max()
    assert error < TOLERANCE, f"worst relative error {error:.2e}"
    apart = (np.abs(unroll(new, ds, y)[0][before:] - want) / unit).max()
    assert apart > 10 * TOLERANCE, f"stepped from the first event it would be the same, but for {apart:.2e}"
