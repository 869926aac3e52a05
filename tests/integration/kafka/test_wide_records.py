"""Telegraf's JSON on real Kafka, several streams a record: once through a crash, and by one mapping everywhere."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from rillcast.cli import topic_table
from rillcast.settings import Settings
from tests.support import killed_service
from tests.support.kafka_cluster import KafkaCluster, unique
from tests.support.paths import ROOT
from tests.support.toy import HOUR_MS, unroll, write_toy

PARTITIONS, HOSTS, RECORDS = 3, 12, 1_000
START_S: Final = 1_714_564_800
FIELDS: Final = ("usage_user", "usage_system", "load")


def telegraf(seed: int) -> tuple[list[bytes], dict[str, list[int]]]:
    """Return records of random members, and the values of each stream in their order."""
    rng, values, lines = np.random.default_rng(seed), defaultdict[str, list[int]](list), []
    for at in range(RECORDS):
        host = f"web/{rng.integers(HOSTS)}"
        fields = {name: int(rng.integers(1, 1_000)) for name in FIELDS if rng.random() < 0.8} or {"load": 1}
        name = "cpu" if at % 10 else "disk"
        metric = {
            "name": name,
            "tags": {"host": host},
            "fields": fields | {"note": "x"},
            "timestamp": START_S + 3600 * at,
        }
        lines.append(json.dumps(metric).encode())
        if name == "cpu":
            for field, y in fields.items():
                values[f"{host}/{field}".replace("web/", r"web\/")].append(y)
    return lines, values


def run(*arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "rillcast", *map(str, arguments)],
        capture_output=True, text=True, timeout=120, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def test_every_member_of_a_record_is_forecast_once_through_a_crash(kafka: KafkaCluster, tmp_path: Path) -> None:
    lines, values = telegraf(3)
    topic = kafka.create_topic("telegraf", PARTITIONS)
    mapping: dict[str, object] = {
        "model": write_toy(tmp_path / "toy.onnx"),
        "kafka.bootstrap_servers": kafka.bootstrap_servers,
        "kafka.group_id": unique("group"),
        "input.topic": topic,
        "input.format": "telegraf",
        "input.only": "name=cpu",
        "input.fields.unique_id": "tags.host",
    }
    settings = mapping | {
        **killed_service.SETTINGS,
        "output.topic": kafka.create_topic("forecasts", PARTITIONS),
        "dead_letters.topic": kafka.create_topic("dead-letters"),
    }
    file = tmp_path / "telegraf.jsonl"
    file.write_bytes(b"\n".join(lines))
    flags = [part for name, value in mapping.items() for part in (f"--{name.replace('_', '-')}", value)]
    run("replay", file, *flags)
    keyed = {record.key for record in kafka.read_all(topic)}
    assert keyed == {f"web/{number}".encode() for number in range(HOSTS)} | {None}, "only what is left out has no key"
    killed_service.serve_through_a_kill(
        kafka, settings, tmp_path, metric="rillcast_forecasts_total", forecasts=300, records=RECORDS
    )
    assert killed_service.medians(kafka, str(settings["output.topic"])) == {
        unique_id: unroll(ys) for unique_id, ys in values.items()
    }
    assert not list(kafka.read_all(str(settings["dead_letters.topic"])))
    _other_commands_see_the_same(mapping, flags, values, tmp_path)


def _other_commands_see_the_same(
    mapping: dict[str, object], flags: list[object], values: dict[str, list[int]], folder: Path
) -> None:
    nested: dict[str, dict[str, object]] = {"kafka": {}, "input": {"fields": {"unique_id": "tags.host"}}}
    for name, value in mapping.items():
        section, _, rest = name.partition(".")
        if section in nested and "." not in rest and rest:
            nested[section][rest] = value
    table = folder / "table.parquet"
    taken = topic_table.write(Settings.model_validate({"model": "m.onnx"} | nested), table)
    frame = pl.read_parquet(table)
    assert taken.events == len(frame) == sum(map(len, values.values()))
    grouped = {row["unique_id"]: row["y"] for row in frame.sort("ds").group_by("unique_id").agg("y").to_dicts()}
    assert grouped == values
    warm = [*flags, "--kafka.group-id", unique("warm"), "--state.store", "local", "--state.path", folder / "state"]
    figures = json.loads(run("warm", "--from-topic", "--json", *warm))
    assert figures["stepped"] == len(frame)
    assert sum(partition["streams"] for partition in figures["partitions"]) == len(values)


def test_the_streams_of_a_history_are_warmed_where_their_records_go(kafka: KafkaCluster, tmp_path: Path) -> None:
    """Records are keyed by host, so the streams of a host are in its partition, not in that of their own ids."""
    topic = kafka.create_topic("telegraf", 8)
    file = tmp_path / "wide.csv"
    rows = [f"{START_S * 1000 + at * HOUR_MS},h{host},1,2" for host in range(10) for at in range(3)]
    file.write_text("\n".join(["ds,unique_id,cpu,mem", *rows]))
    history = tmp_path / "history.csv"
    names = [f"h{host}/{member}" for host in range(10) for member in ("cpu", "mem")]
    history.write_text("\n".join(["unique_id,ds,y", *(f"{name},{START_S * 1000},1" for name in names)]))
    flags = [
        "--model", write_toy(tmp_path / "toy.onnx"), "--kafka.bootstrap-servers", kafka.bootstrap_servers,
        "--input.topic", topic, "--input.fields.y", "cpu,mem",
    ]  # fmt: skip
    wide = [*flags, "--input.fields.unique-id", "unique_id"]
    lines = tmp_path / "wide.jsonl"
    members = ("ds", "unique_id", "cpu", "mem")
    lines.write_text(
        "\n".join(
            json.dumps(dict(zip(members, (int(r.split(",")[0]), r.split(",")[1], 1, 2), strict=True))) for r in rows
        )
    )
    run("replay", lines, *wide)
    streams: dict[int, set[str]] = defaultdict(set)
    for record in kafka.read_all(topic):
        streams[record.partition].add((record.key or b"").decode())
    state = ["--kafka.group-id", unique("warm"), "--state.store", "local", "--state.path", tmp_path / "state", "--json"]
    figures = json.loads(run("warm", "--history", history, *flags, *state))
    assert {each["partition"]: each["streams"] for each in figures["partitions"] if each["streams"]} == {
        partition: 2 * len(hosts) for partition, hosts in streams.items()
    }
