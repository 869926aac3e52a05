"""Sizing: the arithmetic, and a run on a small scale; no measured figure is judged here."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from rillcast.benchmarks.sizing import Constants, deployment, measure, show
from rillcast.errors import SettingsError
from tests.support.toy import write_toy

CONSTANTS = Constants(
    cpu_us_per_event=30.0,
    process_bytes=2e8,
    bytes_per_stream=2_000.0,
    row_bytes=1_800,
    observation_bytes=70.0,
    forecast_bytes={"json": 4_000.0, "float32": 1_800.0},
)


def test_members_follow_the_rate_and_memory_follows_the_streams() -> None:
    found = deployment(CONSTANTS, streams=1_000_000, rate=100_000)
    assert found["cores"] == pytest.approx(3.0)
    assert found["members"] == 5, "3 cores at 60 % of a core each"
    assert found["partitions"] == 20
    assert found["memory_bytes"] == pytest.approx(5 * 2e8 + 2e9)
    assert found["state_bytes"] == 1_800_000_000
    assert found["input_bytes_per_second"] == pytest.approx(7e6)
    assert found["output_bytes_per_second"] == pytest.approx({"json": 4e8, "float32": 1.8e8})


def test_there_is_at_least_one_member() -> None:
    assert deployment(CONSTANTS, streams=1, rate=1)["members"] == 1


def arguments(tmp_path: Path, **changed: object) -> argparse.Namespace:
    given = {"streams": "10000,1000", "rates": "2000,100", "cpu_us": None, "events": 2_000, "residents": 20_000}
    return argparse.Namespace(model=write_toy(tmp_path / "toy.onnx"), **given | changed)


def test_constants_are_measured_and_every_table_row_is_made_of_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = measure(arguments(tmp_path))
    assert figures["cpu_us_per_event"] > 0
    assert figures["row_bytes"] == 8
    assert figures["forecast_bytes"]["float32"] < figures["forecast_bytes"]["json"]
    rows = [(row["streams"], row["events_per_second"]) for row in figures["deployments"]]
    assert rows == [(10_000, 2_000), (10_000, 100), (1_000, 100)], "a stream has at most one event a second"
    show(figures)
    assert "| 10,000 | 2,000 |" in capsys.readouterr().out


def test_a_measured_processor_time_takes_the_place_of_ours(tmp_path: Path) -> None:
    figures = measure(arguments(tmp_path, cpu_us=500.0))
    assert (figures["cpu_us_per_event"], figures["cpu_of"]) == (500.0, "--cpu-us")
    assert figures["deployments"][0]["cores"] == pytest.approx(1.0)


@pytest.mark.parametrize("changed", [{"streams": "0"}, {"rates": "100,-1"}, {"residents": 10}])
def test_senseless_numbers_are_refused(tmp_path: Path, changed: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match="expected"):
        measure(arguments(tmp_path, **changed))
