"""Commands over stored state with tables of models: all tables, or the one that a flag names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from rillcast import cli, settings
from rillcast.errors import SettingsError
from tests.support.toy import write_toy


@pytest.fixture(autouse=True)
def _tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings with two tables, in the directory in which commands run."""
    monkeypatch.chdir(tmp_path)
    tables = "".join(
        f'[[models]]\nname = "{name}"\nmodel = "{write_toy(tmp_path / f"{name}.onnx", multiplier=multiplier)}"\n'
        f'match = "{name}/*"\n'
        for name, multiplier in (("room", 3), ("shop", 5))
    )
    Path("rillcast.toml").write_text(
        tables + '[state]\nstore = "local"\npath = "state"\n[input]\npath = "in.csv"\n[output]\npath = "out.jsonl"\n'
        "[http]\nenabled = false\n"
    )


def served(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """Serve a file of a room and two shops, and return the rows of what is stored then."""
    streams = ["room/1", "shop/1", "shop/2"]
    rows = [f"{name},2026-03-01T{hour:02d}:00:00Z,{hour}\n" for hour in range(12) for name in streams]
    Path("in.csv").write_text("unique_id,ds,y\n" + "".join(rows))
    assert cli.main(["run"]) == 0
    return stored(capsys)


def stored(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert cli.main(["state", "inspect", "--json"]) == 0
    rows: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["partitions"]
    return rows


def streams_of(rows: list[dict[str, Any]]) -> dict[str, int]:
    return {row["model"].partition(":")[0]: row["streams"] for row in rows}


def test_a_table_is_exported_erased_and_imported_and_the_others_stay(capsys: pytest.CaptureFixture[str]) -> None:
    before = served(capsys)
    assert streams_of(before) == {"room": 1, "shop": 2}
    assert cli.main(["state", "export", "copy", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    ids = {row["model"].partition(":")[0]: row["model"].partition(":")[2] for row in before}
    assert said["tables"] == ids
    assert [(row["table"], row["partition"], row["streams"]) for row in said["partitions"]] == [
        ("room", 0, 1),
        ("shop", 0, 2),
    ]
    assert {path.parts[1:3] for path in Path("copy").rglob("manifest")} == {(f"models.{n}", ids[n]) for n in ids}

    assert cli.main(["state", "rebuild", "--table", "shop", "--yes"]) == 0
    told = capsys.readouterr().out
    assert f"models.shop (model {ids['shop']}):\n  partition 0: erases 2 streams" in told
    assert "models.room" not in told
    assert streams_of(stored(capsys)) == {"room": 1}
    assert cli.main(["state", "import", "copy"]) == 6, "room has state"
    assert "--replace" in capsys.readouterr().err
    assert cli.main(["state", "import", "copy", "--table", "shop"]) == 0
    assert stored(capsys) == before
    assert cli.main(["state", "rebuild", "--yes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["erased"] == {"room": [0], "shop": [0]}
    assert cli.main(["state", "import", "copy"]) == 0
    assert "imported 1 streams of models.room" in capsys.readouterr().out
    assert stored(capsys) == before


def test_an_import_says_which_table_the_directory_lacks(capsys: pytest.CaptureFixture[str]) -> None:
    before = served(capsys)
    assert cli.main(["state", "export", "copy", "--table", "room"]) == 0
    assert cli.main(["state", "import", "copy", "--replace"]) == 2
    said = capsys.readouterr().err
    assert "copy has no state of models.shop (model " in said
    assert "--table" in said
    shutil.move("copy/models.room", "copy/models.shop")  # of another model
    assert cli.main(["state", "import", "copy", "--table", "shop", "--replace"]) == 2
    assert stored(capsys) == before


@pytest.mark.parametrize("words", [["state", "export", "copy"], ["state", "rebuild", "--yes"]], ids=" ".join)
def test_a_table_that_the_settings_lack_is_named_with_those_that_they_have(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*words, "--table", "attic"]) == 2
    assert (
        "--table attic: there is no such table of [[models]]; the settings have room, shop" in capsys.readouterr().err
    )


def test_a_benchmark_of_one_model_says_that_there_are_tables() -> None:
    with pytest.raises(SettingsError, match=r"tables of models \(room, shop\), but this command looks after one model"):
        _ = settings.load(Path("rillcast.toml")).one_model
