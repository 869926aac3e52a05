"""Commands that look after one model refuse settings with tables of models; `state inspect` lists what tables store."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rillcast import cli
from tests.support.toy import write_toy

ONE_MODEL = [
    ["warm", "--history", "history.csv", "--input.topic", "observations"],
    ["state", "export", "copy"],
    ["state", "import", "copy"],
    ["state", "rebuild", "--yes"],
    ["init", "--check"],
]


@pytest.fixture(autouse=True)
def _tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings with two tables, in the directory in which commands run."""
    monkeypatch.chdir(tmp_path)
    tables = "".join(
        f'[[models]]\nname = "{name}"\nmodel = "{write_toy(tmp_path / f"{name}.onnx", multiplier=multiplier)}"\n'
        f'match = "{name}/*"\n'
        for name, multiplier in (("room", 3), ("shop", 5))
    )
    Path("rillcast.toml").write_text(tables + '[state]\nstore = "local"\npath = "state"\n[http]\nenabled = false\n')
    Path("copy").mkdir()
    Path("history.csv").write_text("unique_id,ds,y\n")


@pytest.mark.parametrize("command", ONE_MODEL, ids=" ".join)
def test_a_command_for_one_model_says_that_there_are_tables(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(command) == 2
    assert "the settings have tables of models (room, shop), but this command looks after one model" in (
        capsys.readouterr().err
    )
    assert not list(Path("copy").iterdir())


def test_inspect_lists_the_state_of_each_table(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"{name}/1,2026-03-01T{hour:02d}:00:00Z,{hour}\n" for hour in range(12) for name in ("room", "shop")]
    Path("in.csv").write_text("unique_id,ds,y\n" + "".join(rows))
    assert cli.main(["run", "--input.path", "in.csv", "--output.path", "out.jsonl"]) == 0
    capsys.readouterr()
    assert cli.main(["state", "inspect", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    names = {row["model"].partition(":")[0]: row["streams"] for row in found["partitions"]}
    assert names == {"room": 1, "shop": 1}
