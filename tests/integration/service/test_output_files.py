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


def run(folder: Path, source: str | Path, *, out: str = "out.jsonl") -> int:
    """Run from a file, with the files of yesterday in place."""
    for name in (out, "dead.jsonl", "anomalies.jsonl"):
        (folder / name).write_bytes(YESTERDAY)
    flags = ["--model", MODEL, "--input.path", str(source), "--http.enabled", "false"]
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
        ("none.jsonl.gz", b"no gzip", 5),
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
