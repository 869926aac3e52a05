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


def mixed(days: list[str], hours: list[str], more: dict[str, str] | None = None) -> None:
    """Write `mixed.csv`, whose streams have 56 days and 96 hours; `more` is a further column's text by stream."""
    rows = [(stream, f"2026-{1 + day // 28:02d}-{1 + day % 28:02d} 00:00", day) for day in range(56) for stream in days]
    rows += [(stream, hour, number) for number, hour in enumerate(HOURS) for stream in hours]
    lines = [f"{stream},{at},{y}{f',{more[stream]}' if more else ''}\n" for stream, at, y in rows]
    Path("mixed.csv").write_text(f"meter,at,kwh{',tariff' if more else ''}\n" + "".join(lines))


def cadences() -> dict[str, str]:
    """Return the frequency of each stream's forecasts."""
    found = {(each["unique_id"], each["freq"]) for each in forecasts()}
    assert len(found) == len(dict(found))
    return dict(found)


def test_what_was_found_is_printed_for_a_person(capsys: pytest.CaptureFixture[str]) -> None:
    mixed(["m3", "m7"], ["m1", "m20", "m30", "m31"])
    assert cli.main(["init", "--input.path", "mixed.csv"]) == 0
    said = capsys.readouterr().out
    for line in (
        "records      496 of 496 of mixed.csv",
        "cadence      1h (100% of the steps are exact); streams: 1h 67%, 1d 33%",
        "values       whole numbers; 1.2% are 0, 0.0% missing",
        "input.fields.unique_id = meter: its name, 6 different ones in 496 records",
        "wrote rillcast.toml; start the service: rillcast run",
    ):
        assert line in said


def test_streams_of_two_cadences_get_a_model_each_by_their_ids(capsys: pytest.CaptureFixture[str]) -> None:
    days, hours = ["all?", "shop/1"], ["shop", "room/1", "allo"]
    mixed(days, hours)
    said = init(capsys, "mixed.csv")
    assert {(table.name.split("-")[0], table.match) for table in load().models} == {
        ("1d", "all[?]"),
        ("1d", "shop/*"),
        ("1h", "*"),
    }
    assert not said["notes"]
    assert cadences() == dict.fromkeys(days, "1d") | dict.fromkeys(hours, "1h")


def test_streams_of_two_cadences_get_a_model_each_by_a_member(capsys: pytest.CaptureFixture[str]) -> None:
    streams = [f"{letter * 3}" for letter in "abcdefghi"]
    days, hours = streams[:4], streams[4:]
    kinds = dict.fromkeys(days[:2], "home") | dict.fromkeys(days[2:], "farm") | dict.fromkeys(hours, "mill")
    mixed(days, hours, kinds | {hours[0]: "port"})
    init(capsys, "mixed.csv")
    assert [(table.name, table.only) for table in load().models] == [("1d", "tariff=farm|home"), ("1h", None)]
    assert cadences() == dict.fromkeys(days, "1d") | dict.fromkeys(hours, "1h")


def test_streams_that_nothing_tells_apart_get_one_model_and_a_note(capsys: pytest.CaptureFixture[str]) -> None:
    streams = [f"{letter * 3}" for letter in "abcdefghi"]
    mixed(streams[:4], streams[4:], {stream: "home" if n % 2 else "farm" for n, stream in enumerate(streams)})
    said = init(capsys, "mixed.csv")
    assert not load().models
    assert said["settings"]["model"] == "universal:1h"
    assert said["notes"][0].startswith("not all streams have the cadence of the model (44% 1d)")
    assert said["notes"][1].startswith("streams of several cadences (5 1h, 4 1d) have one model")


def test_raw_readings_beside_sales_by_the_day_are_averaged_and_sales_are_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    raw = [
        (f"room/{n % 2}", f"2026-03-01 {n // 180:02d}:{n // 3 % 60:02d}:{n % 3 * 20:02d}", n / 7) for n in range(480)
    ]
    days = [(f"shop/{shop}", f"2026-02-{1 + day:02d} 00:00:00", day) for day in range(28) for shop in range(3)]
    Path("raw.csv").write_text("id,at,value\n" + "".join(f"{i},{t},{y}\n" for i, t, y in days + raw))
    init(capsys, "raw.csv")
    found = {table.name: (table.match, table.aggregate) for table in load().models}
    assert found == {"1min": ("room/*", "mean"), "1d": ("*", None)}
    assert set(cadences().values()) == {"1d", "1min"}


@pytest.mark.parametrize("flag", ["--model", "--models"])
def test_a_model_that_the_flags_name_stays(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    mixed(["d0", "d1"], ["h0", "h1", "h2"])
    text = "universal:1d" if flag == "--model" else '[{"name": "all", "model": "universal:1d"}]'
    assert cli.main(["init", "--input.path", "mixed.csv", flag, text]) == 0
    assert [(each.name, each.model) for each in load().served] == [("" if flag == "--model" else "all", "universal:1d")]
    assert ("without --model it would be universal:1h" in capsys.readouterr().out) == (flag == "--model")


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
    values = {"model": 'a"b\\c\n😀\x7f\x01', "kafka.request_timeout_s": 1.5, "http.enabled": False, "input.topic": "t"}
    why = {"model": "for " + "very " * 40 + "good reasons", "input.topic": "x\x7f\x01\x00y"}
    Path("odd.toml").write_text(write(values, why, ["head", "", "more"]), encoding="utf-8")
    read = load(Path("odd.toml"))
    assert (read.model, read.kafka.request_timeout_s, read.http.enabled, read.input.topic) == tuple(values.values())
    assert all(len(line) <= 102 for line in Path("odd.toml").read_text().splitlines())


def test_passwords_are_not_written(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("RILLCAST_KAFKA__SASL_PASSWORD", "tell-nobody")
    Path("sun.csv").write_text("timestamp,value\n" + "".join(f"{hour},{n}\n" for n, hour in enumerate(HOURS)))
    init(capsys, "sun.csv")
    assert "tell-nobody" not in Path("rillcast.toml").read_text()
