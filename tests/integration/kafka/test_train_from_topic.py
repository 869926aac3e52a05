"""`rillcast train --from-topic` on real Kafka: what the service would have stepped is what is trained on."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rillcast import cli, settings
from rillcast.bundle.bundle import Bundle
from rillcast.cli import topic_table
from rillcast.errors import DataError
from rillcast.settings import Settings
from tests.support.kafka_cluster import KafkaCluster
from tests.support.transports import CLIENTS

STREAMS, SLOTS, START = 3, 260, 475_000
HOUR_MS = 3_600_000


def rows() -> list[tuple[str, int, float]]:
    return [
        (f"s{stream}", (START + slot) * HOUR_MS, 10.0 + stream + 3 * math.sin(slot * math.tau / 24))
        for slot in range(SLOTS)
        for stream in range(STREAMS)
    ]


def filled_topic(kafka: KafkaCluster) -> str:
    topic = kafka.create_topic("observations", 2)
    values = [json.dumps({"unique_id": name, "ds": ds, "y": y}).encode() for name, ds, y in rows()]
    kafka.produce(topic, values, [name.encode() for name, _, _ in rows()])
    kafka.produce(topic, [b"no observation", b'{"unique_id": "s0", "ds": "no time", "y": 1}'], [b"s0", b"s0"])
    return topic


def settings_of(kafka: KafkaCluster, topic: str, client: str = "kafka-python") -> Settings:
    return Settings.model_validate(
        {"kafka": {"bootstrap_servers": kafka.bootstrap_servers, "client": client}, "input": {"topic": topic}}
    )


@pytest.mark.parametrize("client", CLIENTS)
def test_the_table_holds_every_observation_and_nothing_else(client: str, kafka: KafkaCluster, tmp_path: Path) -> None:
    topic = filled_topic(kafka)
    taken = topic_table.write(settings_of(kafka, topic, client), tmp_path / "table.parquet")
    table = pl.read_parquet(tmp_path / "table.parquet").sort("ds", "unique_id")
    expected = pl.DataFrame(rows(), schema=["unique_id", "ds", "y"], orient="row").sort("ds", "unique_id")
    assert table["unique_id"].to_list() == expected["unique_id"].to_list()
    assert table["ds"].to_list() == expected["ds"].to_list()
    assert table["y"].to_list() == pytest.approx(expected["y"].to_list(), rel=1e-6)
    assert taken.events == STREAMS * SLOTS
    assert taken.refused.total() == 2


def test_only_the_last_records_of_each_partition_are_read_where_that_is_asked(
    kafka: KafkaCluster, tmp_path: Path
) -> None:
    topic = kafka.create_topic("observations", 1)
    values = [json.dumps({"unique_id": "s", "ds": (START + n) * HOUR_MS, "y": n}).encode() for n in range(20)]
    kafka.produce(topic, values, [b"s"] * 20)
    assert topic_table.write(settings_of(kafka, topic), tmp_path / "table.parquet", last=5).events == 5
    assert pl.read_parquet(tmp_path / "table.parquet")["y"].to_list() == [15, 16, 17, 18, 19]


def test_a_topic_without_observations_is_an_error(kafka: KafkaCluster, tmp_path: Path) -> None:
    topic = kafka.create_topic("observations", 1)
    with pytest.raises(DataError, match="found none"):
        topic_table.write(settings_of(kafka, topic), tmp_path / "table.parquet")
    kafka.produce(topic, [b"no observation"], [b"s"])
    with pytest.raises(DataError, match="1 records that were all rejected"):
        topic_table.write(settings_of(kafka, topic), tmp_path / "table.parquet")


@pytest.mark.usefixtures("brief_parity")
def test_covariates_are_read_from_the_records(
    kafka: KafkaCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model is trained on them, declares them, and is trained further on what came since."""
    monkeypatch.chdir(tmp_path)
    topic = kafka.create_topic("observations", 2)
    promo = [float(slot % 5 == 0) for slot in range(SLOTS + 6)]
    values = [
        json.dumps(
            {"unique_id": name, "ds": ds, "y": y + 20 * promo[slot], "x": {"promo": promo[slot], "kind": kind},
             "future": {"promo": promo[slot + 1 : slot + 7]}}
        ).encode()
        for name, ds, y in rows()
        for slot, kind in [(ds // HOUR_MS - START, "mall" if name == "s0" else "corner")]
    ]  # fmt: skip
    kafka.produce(topic, values, [name.encode() for name, _, _ in rows()])
    Path("rillcast.toml").write_text(
        f'[kafka]\nbootstrap_servers = "{kafka.bootstrap_servers}"\n[input]\ntopic = "{topic}"\n'
    )
    small = ["--epochs", "1", "--batches", "1", "--batch", "4", "--quiet", "--from-topic"]
    shape = ["--horizon", "6", "--hidden", "8", "--context", "48", "--season", "24", "--no-calendar", "--freq", "1h"]
    wanted = ["--covariate", "promo:known", "--covariate", "kind:category"]
    assert cli.main(["train", *small, *shape, *wanted, "--out", "first.onnx"]) == 0, capsys.readouterr().err
    table = pl.read_parquet("first.onnx.parquet").filter(pl.col("unique_id") == "s0").sort("ds")
    assert table["promo"].to_list() == promo[:SLOTS]
    assert table["kind"].unique().to_list() == ["mall"]
    assert table["future.promo"].to_list() == [promo[slot + 1 : slot + 7] for slot in range(SLOTS)]
    declared = Bundle.load(Path("first.onnx")).metadata.covariates
    assert [(one.name, one.kind, one.categories) for one in declared] == [
        ("promo", "known", ()),
        ("kind", "category", ("corner", "mall")),
    ]
    assert cli.main(["train", *small, "--init", "first.onnx", "--out", "second.onnx"]) == 0, capsys.readouterr().err
    assert (
        pl.read_parquet("second.onnx.parquet")
        .sort("unique_id", "ds")
        .equals(pl.read_parquet("first.onnx.parquet").sort("unique_id", "ds"))
    )
    assert Bundle.load(Path("second.onnx")).metadata.covariates == declared


@pytest.mark.usefixtures("brief_parity")
def test_a_candidate_is_trained_held_to_the_live_model_pushed_and_promoted(
    kafka: KafkaCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    topic = filled_topic(kafka)
    Path("rillcast.toml").write_text(
        f'model_cache = "cache"\n[kafka]\nbootstrap_servers = "{kafka.bootstrap_servers}"\n[input]\ntopic = "{topic}"\n'
    )

    def rillcast(*arguments: str) -> dict[str, Any]:
        assert cli.main([*arguments, "--json"]) == 0, capsys.readouterr().err
        told: dict[str, Any] = json.loads(capsys.readouterr().out)
        return told

    rillcast("model", "push", "models", "universal:1h")
    rillcast("model", "promote", "models", str(rillcast("model", "push", "models", "universal:1h")["model_id"]))
    small = ["--horizon", "6", "--hidden", "8", "--epochs", "1", "--batches", "1", "--batch", "4", "--quiet"]
    shape = ["--context", "48", "--season", "24", "--no-calendar", "--freq", "1h"]
    trained = rillcast("train", "--from-topic", "--hold-out", "24", *shape, *small, "--out", "candidate.onnx")
    summary = trained["training"]
    assert isinstance(summary, dict)
    assert summary["observations"] == STREAMS * (SLOTS - 24), "what is held out is not trained on"
    generous = ["--tolerance", "1000", "--coverage-tolerance", "1"]
    judged = rillcast(
        "evaluate",
        "candidate.onnx",
        "--against",
        "models@live",
        "candidate.onnx.parquet",
        "--hold-out",
        "24",
        *generous,
    )
    assert judged["may_be_promoted"] is True
    pushed = rillcast("model", "push", "models", "candidate.onnx")
    assert pushed["model_id"] == trained["model_id"]
    rillcast("model", "promote", "models", str(pushed["model_id"]), "--other-records")  # no service follows it yet
    assert rillcast("model", "list", "models")["aliases"]["live"]["model_id"] == trained["model_id"]
    assert settings.load().input.topic == topic
