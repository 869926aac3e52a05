"""The history of `rillcast warm` in other forms: as in the topic, wide, with covariates, in raw events."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from rillcast.bundle.bundle import Bundle
from rillcast.cli.commands.warm import _of_file, _take_file, _warming
from rillcast.cli.stored_tables import choose_tables
from rillcast.durability.warming import Warming
from rillcast.settings import InputSettings, Settings
from rillcast.transports.kafka.kafka_python.partitioner import partition_of
from rillcast_training.export.bundle import export
from tests.support.covariates import config_with
from tests.support.forecasters import HOUR_MS, brief_parity, random_forecaster, write_network

pytestmark = pytest.mark.usefixtures("brief_parity")
PARTITIONS, HOURS, START_MS = 3, 30, 475_000 * HOUR_MS


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "m.onnx"
    write_network(path)
    return path


def warmed(model: Path, history: Path, *, as_in_topic: bool = False, **given: object) -> Warming:
    settings = Settings(model=str(model), input=InputSettings.model_validate(given))
    of_file = _of_file(settings, str(history), None if as_in_topic else "ms")
    warming = _warming(settings, choose_tables(settings, None), PARTITIONS, of_file)
    _take_file(of_file, warming, Bundle.load(model).metadata.covariates)
    assert not warming.taken.refused
    return warming


def states(warming: Warming) -> dict[tuple[int, str], list[str]]:
    """Return partition, stream and all state columns."""
    residents, found = warming._engines[0].residents, dict[tuple[int, str], list[str]]()
    for partition in range(PARTITIONS):
        for page in residents.export(partition, 0):
            for row, name in enumerate(page.unique_ids):
                columns = {key: column for key, column in page.rows.items() if not key.startswith("period.")}
                if name:
                    found[partition, name] = [repr(columns[key][row].tolist()) for key in sorted(columns)]
    return found


def wide(folder: Path) -> tuple[Path, Path, Path]:
    """Write the same history as the topic has it, as a table of the same columns, and in the plain form."""
    rows = [
        {"host": f"h{host}", "at": (START_MS + hour * HOUR_MS) // 1_000, "cpu": hour % 7 + host, "mem": hour % 5}
        for hour in range(HOURS)
        for host in range(4)
    ]
    records, table, plain = folder / "wide.jsonl", folder / "wide.csv", folder / "plain.csv"
    records.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    frame = pl.DataFrame(rows)
    frame.write_csv(table)
    frame.unpivot(["cpu", "mem"], index=["host", "at"], value_name="y").select(
        pl.format("{}/{}", "host", "variable").alias("unique_id"), (pl.col("at") * 1_000).alias("ds"), "y"
    ).write_csv(plain)
    return records, table, plain


def test_a_wide_history_is_that_of_its_streams(model: Path, tmp_path: Path) -> None:
    fields = {"unique_id": "host", "ds": "at", "y": "cpu,mem", "ds_unit": "s"}
    records, table, plain = (
        states(warmed(model, path, as_in_topic=index < 2, fields=fields, only="host=h0|h1|h2|h3"))
        for index, path in enumerate(wide(tmp_path))
    )
    assert records == table == plain
    assert {name for _, name in records} == {f"h{host}/{what}" for host in range(4) for what in ("cpu", "mem")}
    assert all(partition == partition_of(name.split("/")[0], PARTITIONS) for partition, name in records)


@pytest.mark.parametrize("as_in_topic", [False, True])
def test_a_history_has_covariates_as_columns_or_members(tmp_path: Path, *, as_in_topic: bool) -> None:
    model = tmp_path / "m.onnx"
    with brief_parity():
        export(random_forecaster(config_with()), model, name="m")
    rng, rows = np.random.default_rng(3), []
    for hour in range(HOURS):
        x = {"temp": round(float(rng.normal(10, 5)), 2), "promo": int(rng.integers(0, 2)), "shop": "mall", "size": 3}
        rows.append({"unique_id": "s", "ds": START_MS + hour * HOUR_MS, "y": hour % 7, "x": x | {"price": 100}})
    records, table = tmp_path / "h.jsonl", tmp_path / "h.csv"
    records.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    pl.DataFrame(rows).unnest("x").write_csv(table)
    of_records, of_table = (states(warmed(model, path, as_in_topic=as_in_topic)) for path in (records, table))
    assert of_records == of_table
    without = tmp_path / "without.csv"
    pl.read_csv(table).with_columns(temp=pl.lit(None), promo=pl.lit(None), shop=pl.lit(None)).write_csv(without)
    assert states(warmed(model, without)) != of_table


def test_a_history_of_raw_events_is_aggregated_as_in_service(model: Path, tmp_path: Path) -> None:
    """The last hour stays open: its events go on in the topic."""
    raw, hours = tmp_path / "raw.csv", tmp_path / "hours.csv"
    events = [(START_MS + minute * 60_000, minute % 9) for minute in range(0, HOURS * 60, 7)]
    frame = pl.DataFrame(events, schema=["ds", "y"], orient="row").with_columns(unique_id=pl.lit("s"))
    frame.sample(fraction=1, shuffle=True, seed=1).write_csv(raw)
    grouped = frame.group_by(pl.col("ds") // HOUR_MS * HOUR_MS, "unique_id").agg(pl.col("y").sum()).sort("ds")
    grouped.head(-1).write_csv(hours)
    assert states(warmed(model, raw, aggregate="sum")) == states(warmed(model, hours))
