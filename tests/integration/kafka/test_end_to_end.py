"""The service as a process, on real Kafka and on files: what consumers see equals one offline unroll of each stream."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from confluent_kafka import Producer

from rillcast.bundle.bundle import Bundle, Status
from rillcast.codecs.observations.rejections import Reason
from rillcast.publishing.dead_letters import DeadLetter
from rillcast_training.model.forecaster import Forecaster
from tests.support.hostile import HOSTILE
from tests.support.kafka_cluster import KafkaCluster, unique
from tests.support.service_process import ServiceProcess, json_lines, service
from tests.support.toy import unroll as toy_unroll
from tests.support.toy import write_toy
from tests.support.transports import CLIENTS
from tests.support.unrolls import LEVELS, hourly_forecaster, some_streams, unroll, write_bundle
from tests.support.workers import observation

STREAMS, STEPS = 1_000, 100
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def forecaster() -> Forecaster:
    return hourly_forecaster()


@pytest.fixture(scope="module")
def model(forecaster: Forecaster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(forecaster, tmp_path_factory.mktemp("model"))


class Expected:
    """What every consumer must see of `STREAMS` streams, `STEPS` events each."""

    def __init__(self, forecaster: Forecaster) -> None:
        self.ds, self.y = some_streams(STEPS, STREAMS)
        self.y[np.random.default_rng(1).random(self.y.shape) < 0.02] = np.nan
        self.forecast, self.status = unroll(forecaster, self.ds, self.y)
        self.ids = [f"stream-{number}" for number in range(STREAMS)]

    def events(self) -> list[tuple[str, int, float | None]]:
        return [
            (self.ids[s], int(self.ds[t, s]), None if np.isnan(self.y[t, s]) else float(self.y[t, s]))
            for t in range(STEPS)
            for s in range(STREAMS)
        ]

    def check(self, records: Sequence[dict[str, Any]], model_id: str) -> None:
        """Every event has its forecast, once, each stream's in order, and each equal to the unroll's."""
        assert len(records) == STREAMS * STEPS
        number = {unique_id: s for s, unique_id in enumerate(self.ids)}
        at: Counter[str] = Counter()
        seen: npt.NDArray[np.float64] = np.empty(self.forecast.shape)
        for record in records:
            unique_id = record["unique_id"]
            t, s = at[unique_id], number[unique_id]
            at[unique_id] += 1
            assert np.datetime64(record["ds"].removesuffix("Z"), "ms").astype(np.int64) == self.ds[t, s]
            assert record["status"] == Status(int(self.status[t, s])).name.lower()
            assert record["model"] == f"test@{model_id}"
            seen[t, s] = np.array([record["quantiles"][f"{level:g}"] for level in LEVELS]).T
        assert set(at.values()) == {STEPS}
        # Relative to the value, or to the stream's spread where the value passes through zero.
        spread = np.nanstd(self.y, axis=0)[None, :, None, None]
        error = np.abs(seen - self.forecast) / np.maximum(np.abs(self.forecast), spread)
        assert error.max() < TOLERANCE, f"worst relative error {error.max():.2e}"


@pytest.fixture(scope="module")
def expected(forecaster: Forecaster) -> Expected:
    return Expected(forecaster)


def kafka_settings(cluster: KafkaCluster, model: Path, client: str, partitions: int = 4) -> dict[str, object]:
    return {
        "model": model,
        "kafka.client": client,
        "kafka.bootstrap_servers": cluster.bootstrap_servers,
        "kafka.group_id": unique("group"),
        "kafka.session_timeout_s": 6,
        "input.topic": cluster.create_topic("observations", partitions),
        "output.topic": cluster.create_topic("forecasts", partitions),
        "dead_letters.topic": cluster.create_topic("dead-letters"),
    }


def run_to_end(cluster: KafkaCluster, settings: dict[str, object], folder: Path, count: int) -> ServiceProcess:
    """Run the service until the group has committed `count` offsets, then stop it by SIGTERM."""

    def committed() -> int:
        return sum(cluster.committed(str(settings["kafka.group_id"]), str(settings["input.topic"])).values())

    with service(settings, folder) as process:
        process.wait_until(lambda: committed() == count, f"{count} events committed")
        assert process.get("/readyz")[0] == 200
        assert process.stop() == 0, process.log[-4000:]
    return process


@pytest.mark.parametrize("client", CLIENTS)
def test_topic_to_topic_equals_offline_unroll(
    client: str, kafka: KafkaCluster, model: Path, expected: Expected, tmp_path: Path
) -> None:
    settings = kafka_settings(kafka, model, client)
    events = expected.events()
    kafka.produce(
        str(settings["input.topic"]),
        [json.dumps({"unique_id": i, "ds": ds, "y": y}).encode() for i, ds, y in events],
        [i.encode() for i, _, _ in events],
    )
    run_to_end(kafka, settings, tmp_path, len(events))
    records = kafka.read_all(str(settings["output.topic"]))
    for record in records:
        assert record.key == json.loads(record.value or b"")["unique_id"].encode()
    expected.check([json.loads(record.value or b"") for record in records], Bundle.load(model).metadata.model_id)
    assert kafka.read_all(str(settings["dead_letters.topic"])) == []


@pytest.mark.parametrize(("suffix", "out"), [("jsonl", "jsonl"), ("csv", "jsonl"), ("parquet", "parquet")])
def test_file_to_file_equals_offline_unroll(
    suffix: str, out: str, model: Path, expected: Expected, tmp_path: Path
) -> None:
    source, sink = tmp_path / f"in.{suffix}", tmp_path / f"out.{out}"
    frame = pl.DataFrame(
        expected.events(), schema={"unique_id": pl.String, "ds": pl.Int64, "y": pl.Float64}, orient="row"
    )
    if suffix == "parquet":
        frame.write_parquet(source)
    elif suffix == "csv":
        frame.write_csv(source)
    else:
        frame.write_ndjson(source)
    settings = {
        "model": model,
        "input.path": source,
        "output.path": sink,
        "dead_letters.path": tmp_path / "dead.jsonl",
    }
    with service(settings, tmp_path) as process:
        assert process.wait() == 0, process.log[-4000:]
    records = pl.read_parquet(sink).to_dicts() if out == "parquet" else json_lines(sink)
    expected.check(records, Bundle.load(model).metadata.model_id)
    assert (tmp_path / "dead.jsonl").read_bytes() == b""


@pytest.mark.parametrize("client", CLIENTS)
def test_a_thousand_hostile_records_stop_nothing(
    client: str, kafka: KafkaCluster, model: Path, forecaster: Forecaster, tmp_path: Path
) -> None:
    """1,000 hostile records among good ones, under the ids of good streams: all accounted for, no forecast changed."""
    settings = kafka_settings(kafka, model, client, partitions=1) | {
        "input.topic": kafka.create_topic("observations", 1, max_message_bytes=16_000_000)
    }
    steps, streams, hostile = 50, 40, 1_000
    ds, y = some_streams(steps, streams)
    good = [
        (
            f"good-{s}".encode(),
            json.dumps({"unique_id": f"good-{s}", "ds": int(ds[t, s]), "y": float(y[t, s])}).encode(),
        )
        for t in range(steps)
        for s in range(streams)
    ]
    bad = [(b"good-1", (HOSTILE[n % len(HOSTILE)][0]), HOSTILE[n % len(HOSTILE)][1]) for n in range(hostile - 1)]
    # The streams' own names, so that a leak would show.
    bad = [(key, value.replace(b'"a"', b'"good-1"') if value else value, reason) for key, value, reason in bad]
    huge = b'{"unique_id": "good-2", "ds": 0, "y": 1, "note": "' + b"x" * 10_000_000 + b'"}'
    bad.insert(hostile // 2, (b"good-2", huge, Reason.TOO_LARGE))
    order = np.random.default_rng(0).permutation(np.repeat([True, False], [len(good), len(bad)]))
    queues = {True: iter(good), False: iter([(key, value) for key, value, _ in bad])}
    produce_all(kafka, str(settings["input.topic"]), [next(queues[bool(is_good)]) for is_good in order])

    run_to_end(kafka, settings, tmp_path, len(good) + len(bad))
    forecasts, _ = unroll(forecaster, ds, y)
    records = [json.loads(record.value or b"") for record in kafka.read_all(str(settings["output.topic"]))]
    assert [record["unique_id"] for record in records] == [key.decode() for key, _ in good]
    seen = np.array([[record["quantiles"][f"{level:g}"] for level in LEVELS] for record in records])
    seen = seen.transpose(0, 2, 1).reshape(forecasts.shape)
    np.testing.assert_allclose(seen, forecasts, rtol=TOLERANCE, atol=TOLERANCE * float(np.std(y)))

    letters = kafka.read_all(str(settings["dead_letters.topic"]))
    assert len(letters) == len(bad)
    positions = np.flatnonzero(~order)
    for letter, position, (key, value, reason) in zip(letters, positions, bad, strict=True):
        read = DeadLetter.read(letter.key, letter.value, letter.headers)
        assert (read.reason, read.source) == (reason.value, settings["input.topic"])
        assert (read.partition, read.offset) == (0, int(position))
        assert (read.key, read.value) == (key, value and value[:900_000])
        assert read.is_whole == (len(value or b"") <= 900_000)


def produce_all(kafka: KafkaCluster, topic: str, records: Sequence[tuple[bytes, bytes | None]]) -> None:
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "message.max.bytes": 16_000_000})
    failures: list[object] = []
    for key, value in records:
        producer.produce(topic, value, key, on_delivery=lambda error, _: failures.append(error) if error else None)
        producer.poll(0)
    assert producer.flush(30) == 0
    assert failures == []


# What the short form of the chaos suite leaves out: each client, delivery and store in a pair that it does not have.
@pytest.mark.parametrize(
    ("client", "delivery", "store"),
    [
        ("librdkafka", "exactly_once", "local"),
        ("librdkafka", "at_least_once", "none"),
        ("kafka-python", "at_least_once", "kafka"),
        ("kafka-python", "exactly_once", "none"),
    ],
)
def test_kill_and_restart_continue_every_stream_exactly(
    client: str, delivery: str, store: str, kafka: KafkaCluster, tmp_path: Path
) -> None:
    """Kill -9 in mid-stream, twice. Nothing may be lost or differ; repeats only at_least_once, identical."""
    streams, steps = 50, 600
    settings = kafka_settings(kafka, write_toy(tmp_path / "toy.onnx"), client) | {
        "worker.delivery": delivery,
        "worker.commit_interval_s": 0.05,
        "state.store": store,
        "state.path": tmp_path / "state",
        "state.snapshot_interval_s": 0.2,
        "state.snapshot_max_interval_s": 0.2,
        "kafka.transactional_id": unique("member"),
    }
    events = [(f"s{s}", 7 * t + s + 1) for t in range(steps) for s in range(streams)]
    keys = [unique_id.encode() for unique_id, _ in events]
    values = [observation(unique_id, y) for unique_id, y in events]
    topic, third = str(settings["input.topic"]), len(events) // 3
    group = str(settings["kafka.group_id"])
    for part in range(2):
        kafka.produce(topic, values[part * third : (part + 1) * third], keys[part * third : (part + 1) * third])
        with service(settings, tmp_path) as process:
            target = part * third + third // 2
            process.wait_until(lambda target=target: sum(kafka.committed(group, topic).values()) > target, "half way")  # type: ignore[misc]
            process.kill()
    kafka.produce(topic, values[2 * third :], keys[2 * third :])
    run_to_end(kafka, settings, tmp_path, len(events))
    by_source: dict[tuple[int, int], tuple[str, int]] = {}
    published = kafka.read_all(str(settings["output.topic"]))
    for record in published:
        document = json.loads(record.value or b"")
        source = document["source"]["partition"], document["source"]["offset"]
        forecast = document["unique_id"], int(document["quantiles"]["0.5"][0])
        assert by_source.setdefault(source, forecast) == forecast
    assert len(by_source) == len(events)
    if delivery == "exactly_once":
        assert len(published) == len(events), "an event was published twice"
    for s in range(streams):
        states = [state for _, (unique_id, state) in sorted(by_source.items()) if unique_id == f"s{s}"]
        assert states == toy_unroll([7 * t + s + 1 for t in range(steps)])


def test_interrupt_ends_cleanly_and_the_pipe_has_every_forecast(model: Path, tmp_path: Path) -> None:
    """Standard input to a file; Ctrl-C while the pipe is open but idle."""
    import os

    read_end, write_end = os.pipe()
    saved = os.dup(0)
    os.dup2(read_end, 0)
    try:
        settings = {"model": model, "input.path": "-", "output.path": tmp_path / "out.jsonl",
                    "dead_letters.path": tmp_path / "dead.jsonl"}  # fmt: skip
        with service(settings, tmp_path) as process:
            os.write(write_end, observation("a", 1.0, 0) + b"\n" + observation("a", 2.0, 3_600_000) + b"\n")
            process.wait_until(lambda: process.metric("rillcast_forecasts_total") == 2, "two forecasts")
            assert process.stop(signal.SIGINT) == 0
    finally:
        os.dup2(saved, 0)
        for descriptor in (saved, read_end, write_end):
            os.close(descriptor)
    assert [record["unique_id"] for record in json_lines(tmp_path / "out.jsonl")] == ["a", "a"]
