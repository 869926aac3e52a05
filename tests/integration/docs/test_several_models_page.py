"""docs/how-to/several-models.md: its commands run, and each model forecasts what it forecasts alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rillcast.cli import main
from tests.support import pages
from tests.support.paths import ROOT

PAGE = ROOT / "docs" / "how-to" / "several-models.md"


def forecasts(path: str, prefix: str = "") -> list[dict[str, Any]]:
    """Return the forecasts of some streams, in the order of stream and time, without their place in the input."""
    records = [json.loads(line) for line in Path(path).read_text().splitlines()]
    for record in records:
        del record["source"]
    return sorted((r for r in records if r["unique_id"].startswith(prefix)), key=lambda r: (r["unique_id"], r["ds"]))


def test_the_commands_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pages.run(PAGE)
    for name, text in pages.titled(PAGE).items():
        Path(name).write_text(text)
    serve, elsewhere, _of_state = pages.commands(PAGE)  # the last is for topics: tests/integration/kafka has it
    done = [
        subprocess.run(
            ["bash", "-euc", f'rillcast() {{ "{sys.executable}" -m rillcast "$@"; }}\nexport -f rillcast\n{block}'],
            capture_output=True, text=True, timeout=600, check=True,
        )
        for block in (serve, elsewhere)
    ]  # fmt: skip
    assert "28 events were left out, because no table of models takes them" in done[0].stderr
    assert 'name = "days"' in done[0].stdout
    assert '"universal:1h"' in done[1].stdout
    rows = Path("mixed.csv").read_text().splitlines()
    Path("rillcast.toml").unlink()
    for model, prefix in (("universal:1h", "room/"), ("universal:1d", "shop/")):
        Path("alone.csv").write_text("\n".join([rows[0], *(row for row in rows if row.startswith(prefix))]) + "\n")
        arguments = ["--model", model, "--input.path", "alone.csv", "--output.path", "alone.jsonl"]
        assert main(["run", *arguments, "--http.enabled", "false", "--log.level", "error"]) == 0
        found = forecasts("forecasts.jsonl", prefix)
        assert found == forecasts("alone.jsonl")
        assert {record["model"].split("@")[0] for record in found} == {found[0]["model"].split("@")[0]}
    assert len({record["model"] for record in forecasts("forecasts.jsonl")}) == 2
