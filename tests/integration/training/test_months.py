"""Calendar months from end to end: data, training, backtest, service, explanation. Every period begins with a month."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from rillcast import cli
from rillcast.bundle.bundle import Bundle
from rillcast.bundle.frequency import parse
from rillcast.codecs.forecasts.reader import decode_forecast
from rillcast.engine.device import Device
from rillcast.engine.late import AllowedLateness
from rillcast.engine.step_engine import StepEngine
from rillcast.events import EventBatch
from tests.support.forecasters import brief_parity
from tests.support.kafka_cluster import KafkaCluster, unique
from tests.support.service_process import service

HORIZON, MONTHS = 5, 70
MISSING, ABSENT = 50, 55  # months of the second stream without a value, and without an event


def moments() -> list[tuple[str, int, str, float | None]]:
    """Events of two streams from May 2017 on: one at the first of the month, one somewhere in it."""
    events: list[tuple[str, int, str, float | None]] = []
    rng = np.random.default_rng(5)
    for month in range(MONTHS):
        year, number = divmod(2017 * 12 + 4 + month, 12)
        y = 100 + month + 20 * np.sin(month * np.pi / 6) + rng.normal()
        events.append(("firsts", month, f"{year}-{number + 1:02d}-01", round(float(y), 3)))
        if month != ABSENT:
            value = None if month == MISSING else round(float(2 * y), 3)
            events.append(("any/day", month, f"{year}-{number + 1:02d}-{rng.integers(1, 29):02d}T07:30:00Z", value))
    return events


EVENTS = moments()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that was trained by the command, and the events as a file."""
    folder = tmp_path_factory.mktemp("months")
    made = folder / "made.csv"
    assert cli.main(["data", "synthesize", str(made), "--freq", "1mo", "--series", "8", "--length", "110"]) == 0
    shape = "--no-experts --horizon 5 --hidden 4 --epochs 1 --batches 2 --batch 4 --window 64 --quantiles 0.1,0.5,0.9"
    with brief_parity():
        assert cli.main(["train", str(made), "--freq", "MS", *shape.split(), "--out", str(folder / "m.onnx")]) == 0
    rows = [f"{name},{ds},{'' if y is None else y}" for name, _, ds, y in EVENTS]
    (folder / "events.csv").write_text("\n".join(["unique_id,ds,y", *rows]) + "\n")
    return folder


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    assert cli.main([*arguments, "--json"]) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def month_starts(milliseconds: np.ndarray) -> list[int]:
    """Return the months, counted from 1970, and check that each time is the first moment of one."""
    times = np.asarray(milliseconds, np.int64).astype("M8[ms]")
    months = times.astype("M8[M]")
    assert (months == times).all()
    found: list[int] = months.astype(np.int64).tolist()
    return found


def test_synthetic_months_begin_months_and_are_known_for_such(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = pl.read_csv(folder / "made.csv", try_parse_dates=True)
    month_starts(made["ds"].dt.epoch("ms").to_numpy())
    found = printed(capsys, "data", "show", str(folder / "made.csv"))
    assert (found["freq"], found["seasons"], found["absent"]) == ("1mo", [12], pytest.approx(0, abs=0.1))
    assert printed(capsys, "data", "show", str(folder / "events.csv"))["freq"] == "1mo"


def test_the_bundle_says_its_frequency_and_when_its_data_end(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metadata = printed(capsys, "inspect", str(folder / "m.onnx"))["metadata"]
    assert (metadata["freq"], metadata["season"], metadata["context"]) == ("1mo", 12, 36)
    assert metadata["training"]["last_ds"].endswith("-01T00:00:00.000Z")


def in_full(ds: str) -> str:
    """Return a date as a record has to have it."""
    return ds if "T" in ds else f"{ds}T00:00:00Z"


def check_records(records: list[bytes], keys: list[bytes]) -> None:
    """Every event has its forecast, and the forecasts are for the five months after it, each from its beginning."""
    first = 2017 * 12 + 4 - 1970 * 12
    at = {(name, in_full(ds)): month for name, month, ds, _ in EVENTS}
    assert len(records) == len(EVENTS)
    statuses = {}
    for value, key in zip(records, keys, strict=True):
        record = json.loads(value)
        month = at.pop((record["unique_id"], record["ds"].replace(".000Z", "Z")))
        read = decode_forecast(value, key)
        assert read.freq == "1mo"
        assert month_starts(read.times) == [first + month + ahead for ahead in range(1, HORIZON + 1)]
        statuses[record["unique_id"], month] = record["status"]
    assert at == {}
    assert statuses["any/day", MISSING] == "missing"
    assert statuses["any/day", ABSENT + 1] == "gap"
    assert {status for (_, month), status in statuses.items() if month < 35} == {"warming_up"}
    assert set(statuses.values()) == {"warming_up", "ok", "missing", "gap"}


def test_file_to_file(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "forecasts.jsonl"
    settings = {
        "model": folder / "m.onnx",
        "input.path": folder / "events.csv",
        "output.path": out,
        "dead_letters.path": tmp_path / "dead.jsonl",
    }
    with service(settings, tmp_path) as process:
        assert process.wait() == 0, process.log[-4000:]
    records = out.read_bytes().splitlines()
    check_records(records, [json.loads(record)["unique_id"].encode() for record in records])
    assert (tmp_path / "dead.jsonl").read_bytes() == b""


def test_topic_to_topic_and_the_live_page(kafka: KafkaCluster, folder: Path, tmp_path: Path) -> None:
    settings: dict[str, object] = {
        "model": folder / "m.onnx",
        "kafka.bootstrap_servers": kafka.bootstrap_servers,
        "kafka.group_id": unique("group"),
        "input.topic": kafka.create_topic("observations", 2),
        "output.topic": kafka.create_topic("forecasts", 2),
        "dead_letters.topic": kafka.create_topic("dead-letters"),
    }
    kafka.produce(
        str(settings["input.topic"]),
        [json.dumps({"unique_id": name, "ds": in_full(ds), "y": y}).encode() for name, _, ds, y in EVENTS],
        [name.encode() for name, *_ in EVENTS],
    )
    group, topic = str(settings["kafka.group_id"]), str(settings["input.topic"])
    with service(settings, tmp_path) as process:
        process.wait_until(lambda: sum(kafka.committed(group, topic).values()) == len(EVENTS), "all is committed")
        shown = json.loads(process.get("/api/streams/firsts")[1])
        assert process.stop() == 0, process.log[-4000:]
    records = kafka.read_all(str(settings["output.topic"]))
    check_records([record.value or b"" for record in records], [record.key or b"" for record in records])
    last = month_starts(shown["ds"])[-1]
    assert month_starts(shown["forecast"]["ds"]) == [last + ahead for ahead in range(1, HORIZON + 1)]
    assert month_starts(shown["one_step"]["ds"]) == [month + 1 for month in month_starts(shown["ds"])]
    assert kafka.read_all(str(settings["dead_letters.topic"])) == []


def test_a_backtest_has_months_for_origins(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "forecasts.parquet"
    figures = printed(capsys, "backtest", str(folder / "m.onnx"), str(folder / "events.csv"), "--forecasts", str(table))
    assert np.isfinite(figures["seasonal_naive"]["mase"])
    for _, made in pl.read_parquet(table).group_by("unique_id"):
        origins = month_starts(made["origin"].dt.epoch("ms").unique().sort().to_numpy())
        assert set(np.diff(origins)) == {HORIZON}


def test_an_explanation_names_months_and_is_of_the_forecast_that_is_served(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--stream", "any/day", "--at", "2022-03-31", "--out", str(tmp_path / "p.png")]
    found = printed(capsys, "explain", "forecast", str(folder / "m.onnx"), str(folder / "events.csv"), *where)
    assert found["at"] == "2022-03-01T00:00:00Z"
    assert {period["ds"][7:] for period in found["slots"]} == {"-01T00:00:00Z"}
    assert found["forecast"] == pytest.approx(found["forecast_of_the_file"], rel=1e-4)


def test_a_search_measures_models_of_months(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command that it recommends trains a model of months, of the very shape that was measured."""
    flags = "--freq 1mo --horizon 5 --budget 1s --trials 1 --cells gru --hidden 2 --layers 1 --epochs 1 --batches 2"
    found = printed(
        capsys, "tune", str(folder / "made.csv"), *flags.split(), "--batch", "4", "--no-experts",
        "--study", str(tmp_path / "s"),
    )  # fmt: skip
    out = tmp_path / "recommended.onnx"
    quick = ["--epochs", "1", "--batches", "2", "--batch", "4", "--quiet", "--out", str(out)]
    with brief_parity():
        assert cli.main([*found["command"].split()[1:], *quick]) == 0
    metadata = Bundle.load(out).metadata
    assert (metadata.freq, metadata.season, metadata.horizon) == ("1mo", 12, HORIZON)
    (trial,) = found["trials"]
    assert metadata.row_bytes == trial["state_bytes"]
    assert metadata.context == trial["options"]["context"]


def test_late_months_are_stepped_in_their_order(folder: Path) -> None:
    """Events up to three months late leave the stream as if all had come in time."""
    bundle, rng = Bundle.load(folder / "m.onnx"), np.random.default_rng(2)
    frequency, count = parse("1mo"), 60
    periods = 600 + np.arange(count)
    y = (50 + 10 * np.sin(periods * np.pi / 6) + rng.normal(size=count)).astype(np.float32)
    ds = frequency.start_of(periods + 1) - 1 - rng.integers(0, 20 * 86_400_000, count)
    order = np.argsort(np.append(periods[:-1] + rng.uniform(0, 3, count - 1), np.inf), kind="stable")
    assert (np.diff(periods[order]) < 0).sum() > 10

    def last_forecast(which: np.ndarray, lateness: AllowedLateness | None) -> np.ndarray:
        engine = StepEngine(bundle, Device("cpu"), lateness=lateness)
        for number, event in enumerate(which):
            result = engine.step(EventBatch.of(["a"], ds[[event]], y[[event]], first_offset=number))
        return result.forecast

    in_order = last_forecast(np.arange(count), None)
    np.testing.assert_array_equal(last_forecast(order, AllowedLateness(3, frequency)), in_order)
    assert (last_forecast(order, None) != in_order).any()
