"""Files: separators, signs and encodings are found, and the settings that are written read the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rillcast import cli
from rillcast.discovery.settings_file import write
from rillcast.settings import load

HOURS = [f"2026-03-{1 + hour // 24:02d} {hour % 24:02d}:00" for hour in range(96)]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def init(capsys: pytest.CaptureFixture[str], path: str, *more: str) -> dict[str, Any]:
    """Run `init`, check that `run` serves the file with what was written, and return what init said."""
    assert cli.main(["init", "--input.path", path, "--json", *more]) == 0
    said: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert cli.main(["run", "--http.enabled", "false"]) == 0
    assert said["refused"] == {}
    return said


def forecasts() -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path("forecasts.jsonl").read_text().splitlines()]


def test_semicolons_decimal_commas_and_latin_letters(capsys: pytest.CaptureFixture[str]) -> None:
    rows = "".join(f"Zürich-{n % 2};{hour};{n},5\n" for hour in HOURS for n in range(2))
    Path("zurich.csv").write_text("Standort;Zeit;Wert\n" + rows, encoding="latin-1")
    said = init(capsys, "zurich.csv")
    settings = load()
    assert (settings.input.separator, settings.input.decimal, settings.input.encoding) == (";", ",", "cp1252")
    fields = settings.input.fields
    assert (fields.unique_id, fields.ds, fields.y) == ("Standort", "Zeit", "Wert")
    assert said["settings"]["model"] == "universal:1h"
    assert {each["unique_id"] for each in forecasts()} == {"Zürich-0", "Zürich-1"}


def test_a_file_of_one_stream(capsys: pytest.CaptureFixture[str]) -> None:
    Path("sun.csv").write_text("timestamp,value\n" + "".join(f"{hour},{n}\n" for n, hour in enumerate(HOURS)))
    init(capsys, "sun.csv")
    assert load().input.fields.unique_id == ""
    assert {each["unique_id"] for each in forecasts()} == {"sun"}


def test_parquet_and_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"meter": f"m{n}", "read_at": hour.replace(" ", "T"), "kwh": n + 0.5} for hour in HOURS for n in range(2)]
    pl.DataFrame(rows).with_columns(pl.col("read_at").str.to_datetime("%Y-%m-%dT%H:%M")).write_parquet("m.parquet")
    init(capsys, "m.parquet")
    assert load().input.fields.y == "kwh"
    nested = [{"meta": {"meter": row["meter"]}, "at": row["read_at"], "kwh": row["kwh"]} for row in rows]
    Path("m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in nested))
    init(capsys, "m.jsonl", "--force")
    assert load().input.fields.unique_id == "meta.meter"
    assert len(forecasts()) == len(rows)


def test_what_was_found_is_printed_for_a_person(capsys: pytest.CaptureFixture[str]) -> None:
    days = [(f"d{n}", f"2026-{1 + day // 28:02d}-{1 + day % 28:02d}", day) for day in range(56) for n in range(2)]
    hours = [(f"h{n}", hour, number) for number, hour in enumerate(HOURS) for n in range(3)]
    Path("mixed.csv").write_text("meter,at,kwh\n" + "".join(f"{m},{t},{y}\n" for m, t, y in days + hours))
    assert cli.main(["init", "--input.path", "mixed.csv"]) == 0
    said = capsys.readouterr().out
    for line in (
        "records      400 of 400 of mixed.csv",
        "cadence      1h (100% of the steps are exact); streams: 1h 60%, 1d 40%",
        "values       whole numbers; 1.2% are 0, 0.0% missing",
        "input.fields.unique_id = meter: its name, 5 different ones in 400 records",
        "note: not all streams have the cadence of the model (40% 1d)",
        "wrote rillcast.toml; start the service: rillcast run",
    ):
        assert line in said


@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl"])
def test_rows_without_a_value_are_counted(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"page": f"/p{n % 3}", "time": f"2026-03-01T{n // 120:02d}:{n // 2 % 60:02d}:00Z"} for n in range(2_400)]
    path = Path(f"clicks.{kind}")
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        frame = pl.DataFrame(rows)
        (frame.write_csv if kind == "csv" else frame.write_parquet)(path)
    said = init(capsys, str(path))
    assert said["settings"]["input.aggregate"] == "count"
    assert {each["unique_id"] for each in forecasts()} == {"/p0", "/p1", "/p2"}


def test_a_file_of_metrics(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"name": "cpu", "tags": {"host": "a"}, "fields": {"u": n / 9, "v": n / 7}, "timestamp": 1_772_323_200 + n * 60}
        for n in range(90)
    ]
    Path("metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    init(capsys, "metrics.jsonl")
    assert load().input.format == "telegraf"
    assert {each["unique_id"] for each in forecasts()} == {"cpu/host=a/u", "cpu/host=a/v"}


def test_raw_events_of_a_file_are_summed_as_by_polars(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [(f"shop-{n % 3}", 1_772_323_200 + n * 40, 1 + n % 4) for n in range(3_990)]  # whole periods
    lines = "".join(f"{shop},{at},{sold}\n" for shop, at, sold in rows)
    Path("sales.csv").write_text("shop,ts,units_sold\n" + lines)
    said = init(capsys, "sales.csv")
    assert said["settings"]["input.aggregate"] == "sum"
    assert said["settings"]["input.fields.ds_unit"] == "s"
    frame = pl.DataFrame(rows, schema=["shop", "ts", "sold"], orient="row").with_columns(ds=pl.from_epoch("ts"))
    every = {"1min": "1m", "5min": "5m"}[said["settings"]["model"].removeprefix("universal:")]
    sums = frame.sort("ds").group_by_dynamic("ds", every=every, group_by="shop").agg(pl.col("sold").sum())
    raw = {(each["unique_id"], each["ds"]): each["quantiles"] for each in forecasts()}
    sums.rename({"shop": "unique_id", "sold": "y"}).write_csv("sums.csv")
    assert cli.main(["init", "--input.path", "sums.csv", "--force"]) == 0
    settings = load()
    assert (settings.model, settings.input.aggregate) == (said["settings"]["model"], "none")
    assert cli.main(["run", "--http.enabled", "false"]) == 0
    assert raw == {(each["unique_id"], each["ds"]): each["quantiles"] for each in forecasts()}


def test_what_the_flags_say_stays(capsys: pytest.CaptureFixture[str]) -> None:
    rows = "".join(f"a,{hour},{n},{n + 0.5}\n" for n, hour in enumerate(HOURS))
    Path("two.csv").write_text("host,ts,value,other\n" + rows)
    init(capsys, "two.csv", "--input.fields.y", "other", "--output.decimals", "2")
    settings = load()
    assert (settings.input.fields.y, settings.output.decimals) == ("other", 2)
    capsys.readouterr()
    assert cli.main(["init", "--check"]) == 0
    assert "all of 96 are observations" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "empty"),
        ("id,value\na,1\n", "no member looks like a time"),
        ("id,ts,value\n", "no records"),
    ],
)
def test_a_file_that_is_no_input_is_refused(text: str, found: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("odd.csv").write_text(text)
    assert cli.main(["init", "--input.path", "odd.csv"]) == 2
    assert found in capsys.readouterr().err
    assert not Path("rillcast.toml").exists()


def test_a_settings_file_is_read_back_whatever_its_values() -> None:
    values = {"model": 'a"b\\c\n😀', "kafka.request_timeout_s": 1.5, "http.enabled": False, "input.topic": "t"}
    why = {"model": "for " + "very " * 40 + "good reasons", "input.topic": "x"}
    Path("odd.toml").write_text(write(values, why, ["head", "", "more"]), encoding="utf-8")
    read = load(Path("odd.toml"))
    assert (read.model, read.kafka.request_timeout_s, read.http.enabled, read.input.topic) == tuple(values.values())
    assert all(len(line) <= 102 for line in Path("odd.toml").read_text().splitlines())


def test_passwords_are_not_written(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("RILLCAST_KAFKA__SASL_PASSWORD", "tell-nobody")
    Path("sun.csv").write_text("timestamp,value\n" + "".join(f"{hour},{n}\n" for n, hour in enumerate(HOURS)))
    init(capsys, "sun.csv")
    assert "tell-nobody" not in Path("rillcast.toml").read_text()
