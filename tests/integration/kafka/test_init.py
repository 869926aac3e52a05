"""`rillcast init` on a real broker: what it writes is served unedited, and nothing is left behind on the broker."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from confluent_kafka.admin import AdminClient

from rillcast import cli
from rillcast.settings import load
from tests.benchmarks.any_topic import accept, clicks
from tests.support.kafka_cluster import KafkaCluster, unique
from tests.support.service_process import ServiceProcess
from tests.support.transports import CLIENTS

START_MS = 1_764_547_200_000


def topics(kafka: KafkaCluster, partitions: int) -> dict[str, str]:
    """Create the topics of a service, and return the flags that name them."""
    return {
        "input.topic": kafka.create_topic("metrics", partitions, retention_ms=-1),
        "output.topic": kafka.create_topic("forecasts", 2),
        "dead-letters.topic": kafka.create_topic("dead-letters"),
        "kafka.bootstrap-servers": kafka.bootstrap_servers,
        "kafka.group-id": unique("group"),
    }


def init(given: dict[str, str], out: Path, *more: str) -> int:
    flags = [part for name, value in given.items() for part in (f"--{name}", value)]
    return cli.main(["init", "--out", str(out), *flags, *more])


def forecasts_of(kafka: KafkaCluster, given: dict[str, str], out: Path, folder: Path, wait_for: int) -> list[Any]:
    """Serve with the settings as they were written, and return the forecasts."""
    command = (sys.executable, "-m", "rillcast", "run", "--config", str(out), "--http.port", "0")
    process = ServiceProcess({}, folder, command=command)
    try:
        topic = given["output.topic"]
        process.wait_until(lambda: len(kafka.read_all(topic)) >= wait_for, "the forecasts")
        assert process.stop() == 0
    finally:
        process.kill()
    return [json.loads(record.value or b"") for record in kafka.read_all(topic)]


def seen(kafka: KafkaCluster) -> tuple[set[str], set[str]]:
    """Return the topics and groups that the broker has."""
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    groups = {group.group_id for group in admin.list_consumer_groups().result(20).valid}
    return {name for name in admin.list_topics(timeout=20).topics if not name.startswith("__")}, groups


@pytest.mark.parametrize("client", CLIENTS)
def test_sensor_readings_are_averaged_and_forecast_without_an_edit(
    kafka: KafkaCluster, client: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given, out = topics(kafka, 2) | {"kafka.client": client}, tmp_path / "rillcast.toml"
    rng = np.random.default_rng(1)
    rows = []
    for step in range(200):  # every 20 s
        for stream in range(6):
            at_s = START_MS // 1_000 + step * 20 + int(rng.integers(0, 3))
            rows.append((f"pump-{stream}", at_s, round(20 + float(rng.normal()), 3)))
    for partition in range(2):
        mine = [row for row in rows if int(row[0][-1]) % 2 == partition]
        values = [
            json.dumps({"meta": {"seq": number}, "tags": {"device": d}, "time": t, "fields": {"temp": y}}).encode()
            for number, (d, t, y) in enumerate(mine)
        ]
        kafka.produce(given["input.topic"], values, [row[0].encode() for row in mine], partition=partition)
    before = seen(kafka)
    assert init(given, out, "--json") == 0
    after = seen(kafka)
    assert after[0] == before[0]
    assert after[1] <= before[1]  # groups of earlier tests may expire
    found = json.loads(capsys.readouterr().out)
    chosen = load(out)
    fields = chosen.input.fields
    assert (fields.unique_id, fields.ds, fields.ds_unit, fields.y) == ("tags.device", "time", "s", "fields.temp")
    assert (chosen.model, chosen.input.aggregate, chosen.input.close) == ("universal:1min", "mean", "partition")
    assert found["records"] == len(rows)
    assert found["profile"]["frequencies"] == {"20s": 1.0}

    frame = pl.DataFrame(rows, schema=["unique_id", "s", "y"], orient="row")
    frame = frame.with_columns(ds=pl.from_epoch("s")).sort("ds")
    groups = frame.group_by_dynamic("ds", every="1m", group_by="unique_id").agg(pl.col("y").mean())
    expected = {(row["unique_id"], row["ds"].isoformat()) for row in groups.iter_rows(named=True)}
    published = forecasts_of(kafka, given, out, tmp_path, 6 * 60)
    origins = [(each["unique_id"], each["ds"].removesuffix(".000Z")) for each in published]
    assert max(Counter(origins).values()) == 1
    assert set(origins) <= expected
    last = max(ds for _, ds in expected)  # not closed yet
    assert {each for each in expected if each[1] < last} - set(origins) == set()


def test_clicks_are_counted_and_forecast_as_polars_counts_them(kafka: KafkaCluster, tmp_path: Path) -> None:
    """The short form of `make acceptance`."""
    report = accept(kafka, clicks(streams=9, minutes=20), tmp_path)
    assert report.clean, report.line()
    assert (report.aggregate, report.model, report.streams) == ("count", "universal:1min", 9)
    chosen = load(tmp_path / "clicks.toml")
    assert (chosen.input.fields.unique_id, chosen.input.fields.ds) == ("url", "eventTime")
    assert report.forecasts >= 9 * 17
    assert report.backtest["wql"] > 0


def test_wide_metrics_of_telegraf_are_forecast(kafka: KafkaCluster, tmp_path: Path) -> None:
    given, out = topics(kafka, 2), tmp_path / "rillcast.toml"
    rng = np.random.default_rng(5)
    for partition in range(2):
        metrics = [
            {
                "name": "cpu",
                "tags": {"host": f"web-{partition}"},
                "fields": {"usage_user": round(float(rng.random()), 3), "usage_idle": round(float(rng.random()), 3)},
                "timestamp": START_MS // 1_000 + step * 60,
            }
            for step in range(80)
        ]
        kafka.produce(given["input.topic"], [json.dumps(each).encode() for each in metrics], partition=partition)
    assert init(given, out) == 0
    chosen = load(out)
    assert (chosen.input.format, chosen.model, chosen.input.aggregate) == ("telegraf", "universal:1min", "none")
    published = forecasts_of(kafka, given, out, tmp_path, 2 * 2 * 80)
    assert Counter(each["unique_id"] for each in published) == {
        f"cpu/host=web-{n}/{name}": 80 for n in range(2) for name in ("usage_user", "usage_idle")
    }


def test_an_existing_file_is_kept_and_an_empty_topic_is_said(
    kafka: KafkaCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given, out = topics(kafka, 1), tmp_path / "rillcast.toml"
    assert init(given, out, "--seconds", "1") == 2
    assert "no record came within 1 s" in capsys.readouterr().err
    out.write_text("# mine\n")
    assert init(given, out, "--seconds", "1") == 2
    assert "--force" in capsys.readouterr().err
    assert out.read_text() == "# mine\n"


def check(given: dict[str, str], out: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, set[str]]]:
    """Run `init --check`, and return the exit code and the findings that are not good, by what they are about."""
    flags = [part for name, value in given.items() for part in (f"--{name}", value)]
    capsys.readouterr()
    code = cli.main(["init", "--check", "--json", "--seconds", "2", "--config", str(out), *flags])
    found: dict[str, set[str]] = {}
    for each in json.loads(capsys.readouterr().out)["findings"]:
        if each["level"] != "good":
            found.setdefault(each["about"], set()).add(f"{each['level']}: {each['text']}")
    return code, found


def test_a_check_says_what_is_wrong_with_topics_and_records(
    kafka: KafkaCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given, out = topics(kafka, 2), tmp_path / "rillcast.toml"
    hours = range(60)
    for stream in range(4):
        values = [json.dumps({"id": f"s{stream}", "ts": START_MS + h * 3_600_000, "v": h}).encode() for h in hours]
        kafka.produce(given["input.topic"], values, [f"s{stream}".encode()] * len(hours), partition=stream % 2)
    assert init(given, out) == 0
    assert check(given, out, capsys) == (0, {})

    before = seen(kafka)
    code, found = check(given | {"output.topic": "no-such-topic", "model": "universal:1d"}, out, capsys)
    assert code == 2
    assert list(found) == ["no-such-topic", "streams"]
    assert "--create --topic no-such-topic" in found["no-such-topic"].pop()
    assert "repeat a period of 1d" in found["streams"].pop()
    assert seen(kafka)[0] == before[0]

    small = kafka.create_topic("small", max_message_bytes=900)
    state = kafka.create_topic("state", 3, max_message_bytes=4_000_000)  # room for a page
    code, found = check(given | {"output.topic": small, "state.topic": state}, out, capsys)
    assert code == 2
    assert "records of 900 bytes" in found[small].pop()
    assert {each.split(", ")[0] for each in found[state]} == {
        "error: it has 3 partitions",
        "error: it has cleanup.policy=delete",
    }

    kafka.produce(given["input.topic"], [b"{"] * 9 + [b'{"id": "s0", "ts": 1, "v": 1}'], partition=1)
    brief = kafka.create_topic("brief", 1, retention_ms=3_600_000)
    code, found = check(given, out, capsys)
    assert code == 2
    assert any("9 of 250 would become dead letters (9 not_json)" in each for each in found["records"])
    assert any("1 of 4 have events in several partitions, such as 's0'" in each for each in found["streams"])
    code, found = check(given | {"input.topic": brief}, out, capsys)
    assert any("it retains events for 1 h" in each and "the model looks back" in each for each in found[brief])
    assert any("no record came" in each for each in found["records"])
    tables = json.dumps([{"name": f, "model": f"universal:{f}", "match": f"s{n}"} for n, f in enumerate(("1d", "1h"))])
    code, found = check(given | {"input.topic": brief, "output.topic": small, "models": tables}, out, capsys)
    assert code == 2
    assert any("and models.1d looks back 14 periods of 1d" in each for each in found[brief])
    assert any("a forecast of models." in each for each in found[small])
    code, found = check(given | {"models": tables}, out, capsys)
    assert any("no table takes 2 streams, such as 's2'" in each for each in found["models"])
