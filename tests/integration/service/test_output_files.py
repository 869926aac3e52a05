"""The output files of `rillcast run`, as a process: what a run does to the files of another."""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from rillcast import cli
from tests.support.service_process import service
from tests.support.workers import observation

YESTERDAY = b'{"of": "yesterday"}\n'
HOUR_MS = 3_600_000
MODEL = "universal:1h"


def events(unique_id: str, count: int) -> bytes:
    return b"".join(observation(unique_id, 1.0, HOUR_MS * n) + b"\n" for n in range(count))


def run(folder: Path, source: str | Path, *, out: str = "out.jsonl", flags: Sequence[str] = ()) -> int:
    """Run from a file, with the files of yesterday in place."""
    for name in (out, "dead.jsonl", "anomalies.jsonl"):
        (folder / name).write_bytes(YESTERDAY)
    flags = [*flags, "--model", MODEL, "--input.path", str(source), "--http.enabled", "false"]
    flags += ["--output.path", str(folder / out), "--dead-letters.path", str(folder / "dead.jsonl")]
    flags += ["--anomalies.path", str(folder / "anomalies.jsonl")]
    return cli.main(["run", *flags])


@pytest.mark.parametrize("out", ["out.jsonl", "out.parquet"])
@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("no.jsonl", None, 2),
        ("header.csv", b"when,what\n1,2\n", 2),
        ("cut.jsonl.gz", gzip.compress(events("a", 5_000))[:-600], 5),
        ("none.jsonl.gz", b"no gzip", 2),
    ],
)
def test_a_run_that_fails_leaves_the_files_of_yesterday(
    tmp_path: Path, out: str, name: str, content: bytes | None, code: int
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert run(tmp_path, tmp_path / name, out=out) == code
    for kept in (out, "dead.jsonl", "anomalies.jsonl"):
        assert (tmp_path / kept).read_bytes() == YESTERDAY


def test_a_run_that_ends_well_replaces_them_and_leaves_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(events("a", 3) + b"rubbish\n")
    assert run(tmp_path, tmp_path / "in.jsonl") == 0
    lines = (tmp_path / "out.jsonl").read_bytes().splitlines()
    assert [json.loads(line)["unique_id"] for line in lines] == ["a"] * 3
    assert len((tmp_path / "dead.jsonl").read_bytes().splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "anomalies.jsonl",
        "dead.jsonl",
        "in.jsonl",
        "out.jsonl",
    ]


@pytest.mark.parametrize(
    ("content", "said", "letters"),
    [
        (b"unique_id,ds,y\n" + b'a,2024-05-01T00:00:00,"10,000.0"\n' * 3, "3 of 3 records became dead letters", 3),
        (b"unique_id,ds,y\n", "it has 0 records", 0),
    ],
    ids=["all-dead-letters", "no-records"],
)
@pytest.mark.parametrize("out", ["out.jsonl", "out.parquet"])
def test_a_run_without_a_forecast_is_an_error_and_leaves_the_forecasts_of_yesterday(
    tmp_path: Path, out: str, content: bytes, said: str, letters: int, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.csv").write_bytes(content)
    assert run(tmp_path, tmp_path / "in.csv", out=out) == 7
    assert (tmp_path / out).read_bytes() == YESTERDAY
    assert (tmp_path / "anomalies.jsonl").read_bytes() == YESTERDAY
    assert len((tmp_path / "dead.jsonl").read_bytes().splitlines()) == letters
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"in.csv: no forecast; {said}" in error
    if letters:
        assert "(3 wrong_type), in" in error
        assert f"rillcast dlq list --file {tmp_path / 'dead.jsonl'}" in error
        assert "in.csv[0]@0: " in error


def test_a_run_without_a_forecast_leaves_no_empty_file(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(b"rubbish\n")
    flags = ["--input.path", str(tmp_path / "in.jsonl"), "--output.path", str(tmp_path / "out.jsonl")]
    flags += ["--dead-letters.path", str(tmp_path / "dead.jsonl"), "--http.enabled", "false", "--model", MODEL]
    assert cli.main(["run", *flags]) == 7
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dead.jsonl", "in.jsonl"]


def test_a_run_says_how_many_records_have_no_forecast_and_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again, before = observation("a", 1.0, 2 * HOUR_MS), observation("a", 1.0, 0)
    (tmp_path / "in.jsonl").write_bytes(events("a", 3) + again + b"\n" + before + b"\nrubbish\n{}\n{}\n")
    assert run(tmp_path, tmp_path / "in.jsonl") == 0
    said = capsys.readouterr().err
    assert "4 of 8 records became dead letters (2 missing_field, 1 " in said
    assert "the first missing_field at" in said
    assert "in.jsonl[0]@6: " in said
    assert "1 of 8 records repeated the period of an earlier event and were ignored, the first at" in said
    assert "in.jsonl[0]@3: stream 'a' at 1970-01-01T02:00:00.000Z" in said


def test_a_run_with_a_local_store_can_be_repeated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.jsonl").write_bytes(events("a", 300))
    flags = ["--state.store", "local", "--state.path", str(tmp_path / "state")]
    assert run(tmp_path, tmp_path / "in.jsonl", flags=flags) == 0
    first = (tmp_path / "out.jsonl").read_bytes()
    assert "has state of an earlier run" not in capsys.readouterr().err
    assert run(tmp_path, tmp_path / "in.jsonl", flags=flags) == 0
    assert (tmp_path / "out.jsonl").read_bytes() == first
    assert "has state of an earlier run (1 partitions); a run over a file starts" in capsys.readouterr().err
    (tmp_path / "in.jsonl").write_bytes(events("b", 3))
    assert run(tmp_path, tmp_path / "in.jsonl", flags=flags) == 0
    assert cli.main(["state", "inspect", "--json", *flags]) == 0
    (stored,) = json.loads(capsys.readouterr().out)["partitions"]
    assert (stored["offset"], stored["streams"]) == (3, 1), "nothing of the earlier runs is left"


@pytest.mark.parametrize("shared", ["output.path", "dead_letters.path", "anomalies.path"])
def test_a_second_run_on_a_file_is_refused_and_the_first_is_whole(
    tmp_path: Path, shared: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def settings(name: str) -> dict[str, object]:
        own = {
            path: tmp_path / f"{name}-{path}.jsonl" for path in ("output.path", "dead_letters.path", "anomalies.path")
        }
        return {"model": MODEL, "http.port": 0, **own, shared: tmp_path / "shared.jsonl"}

    def second() -> Sequence[str]:
        (tmp_path / "in.jsonl").write_bytes(events("south", 5))
        flags = settings("south") | {"input.path": tmp_path / "in.jsonl"}
        return ["run", *(part for path, value in flags.items() for part in (f"--{path.replace('_', '-')}", str(value)))]

    with service(settings("north") | {"input.path": "-"}, tmp_path, stdin=subprocess.PIPE) as first:
        first.write(events("north", 10))
        first.wait_until(lambda: first.metric("rillcast_forecasts_total") == 10, "ten forecasts")
        assert cli.main(second()) == 5
        assert f"shared.jsonl is in use by process {first.pid}, " in capsys.readouterr().err
        assert not list(tmp_path.glob("south-*.jsonl"))
        first.write(events("north-2", 10))
        first.wait_until(lambda: first.metric("rillcast_forecasts_total") == 20, "twenty forecasts")
        assert first.stop(signal.SIGTERM) == 0
    out = tmp_path / ("shared.jsonl" if shared == "output.path" else "north-output.path.jsonl")
    assert [json.loads(line)["unique_id"] for line in out.read_bytes().splitlines()] == ["north"] * 10 + [
        "north-2"
    ] * 10
    assert cli.main(second()) == 0  # the first has released it
