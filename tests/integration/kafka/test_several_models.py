"""Two models in one service on real Kafka: each forecasts its streams once, through a crash, from stored state."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rillcast import cli
from rillcast.bundle.bundle import Bundle
from rillcast.stores.format.pages import PageCodec
from rillcast.stores.local_snapshot import read_snapshot
from tests.support import killed_service
from tests.support.kafka_cluster import KafkaCluster, unique
from tests.support.stores import assert_same_pages
from tests.support.toy import HOUR_MS, unroll, write_toy

PARTITIONS, STREAMS, HISTORY, RECORDS = 2, 10, 200, 800
START_MS = 1_714_564_800_000
MULTIPLIERS = {"even": 31, "odd": 37}


def command(settings: Mapping[str, object], *words: str) -> int:
    """Run a command as a member without a static name, which would stay in the group for a while."""
    given = {name: value for name, value in settings.items() if name != "kafka.group_instance_id"}
    flags = [part for name, value in given.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    return cli.main([*words, *flags])


def test_each_model_forecasts_its_streams_once_through_a_crash(
    kafka: KafkaCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    topic, values = kafka.create_topic("mixed", PARTITIONS), defaultdict[str, list[int]](list)
    rng = np.random.default_rng(5)
    records: dict[str, list[dict[str, Any]]] = {f"s{stream}": [] for stream in range(STREAMS)}
    history = ["unique_id,ds,y,kind"]
    for at in range(HISTORY + RECORDS):
        stream, y = int(rng.integers(STREAMS)), int(rng.integers(1, 1_000))
        record = {"unique_id": f"s{stream}", "ds": START_MS + at * HOUR_MS, "y": y, "kind": "ab"[stream % 2]}
        if at < HISTORY:
            history.append(",".join(map(str, record.values())))
        else:
            records[f"s{stream}"].append(record)
        values[f"s{stream}"].append(y)
    for unique_id, of_stream in records.items():  # keyed, so that the history is of the same partitions
        kafka.produce(topic, [json.dumps(each).encode() for each in of_stream], [unique_id.encode()] * len(of_stream))
    (tmp_path / "history.csv").write_text("\n".join([*history, "other,2024-01-01,1,c"]) + "\n")
    toys = {name: write_toy(tmp_path / f"{name}.onnx", m) for name, m in MULTIPLIERS.items()}
    settings: dict[str, object] = {
        **killed_service.SETTINGS,
        "models": json.dumps(
            [
                {"name": "even", "model": str(toys["even"]), "match": "s[02468]"},
                {"name": "odd", "model": str(toys["odd"]), "only": "kind=b"},
            ]
        ),
        "kafka.bootstrap_servers": kafka.bootstrap_servers,
        "kafka.group_id": unique("group"),
        "input.topic": topic,
        "output.topic": kafka.create_topic("forecasts", PARTITIONS),
        "dead_letters.topic": kafka.create_topic("dead-letters"),
    }
    warm_one_table_then_the_other(settings, tmp_path / "history.csv", capsys)
    erase_one_table_and_bring_it_back(settings, toys, tmp_path, capsys)
    killed_service.serve_through_a_kill(
        kafka,
        settings,
        tmp_path,
        metric='rillcast_forecasts_total{model="odd"}',
        forecasts=100,
        records=RECORDS,
    )
    assert killed_service.medians(kafka, str(settings["output.topic"])) == {
        unique_id: unroll(ys, MULTIPLIERS["odd" if int(unique_id[1:]) % 2 else "even"])[-len(records[unique_id]) :]
        for unique_id, ys in values.items()
    }


def warm_one_table_then_the_other(
    settings: Mapping[str, object], history: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert command(settings, "warm", "--history", str(history), "--table", "odd", "--json") == 0
    warmed = json.loads(capsys.readouterr().out)
    assert {row["table"] for row in warmed["partitions"]} == {"odd"}
    assert sum(row["streams"] for row in warmed["partitions"]) == STREAMS // 2
    assert warmed["unmatched"] == 1
    assert command(settings, "warm", "--history", str(history)) == 6
    assert "models.odd (model " in capsys.readouterr().err
    assert command(settings, "warm", "--history", str(history), "--force", "--json") == 0
    every = json.loads(capsys.readouterr().out)
    assert warmed["stepped"] < every["stepped"] == HISTORY
    assert [row for row in every["partitions"] if row["table"] == "odd"] == warmed["partitions"]


def erase_one_table_and_bring_it_back(
    settings: Mapping[str, object], toys: Mapping[str, Path], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    before, after = folder / "before", folder / "after"
    assert command(settings, "state", "export", str(before), "--json") == 0
    exported = json.loads(capsys.readouterr().out)
    streams = {name: sum(r["streams"] for r in exported["partitions"] if r["table"] == name) for name in toys}
    assert streams == {"even": STREAMS // 2, "odd": STREAMS // 2}
    assert command(settings, "state", "rebuild", "--table", "odd", "--yes", "--json") == 0
    erased = json.loads(capsys.readouterr().out)
    assert erased["erased"] == {"odd": [0, 1]}
    assert command(settings, "state", "export", str(after), "--json") == 0
    assert {row["table"] for row in json.loads(capsys.readouterr().out)["partitions"]} == {"even"}
    assert command(settings, "state", "import", str(before), "--table", "odd") == 0
    assert command(settings, "state", "export", str(after), "--replace") == 0
    for name, model in toys.items():
        metadata = Bundle.load(model).metadata
        codec = PageCodec(metadata.model_id, metadata.states)
        for partition in range(PARTITIONS):
            old, new = (read_snapshot(each / f"models.{name}", codec, partition) for each in (before, after))
            assert (old.mark, len(old.pages)) == (new.mark, len(new.pages))
            assert_same_pages(new.pages, old.pages)
