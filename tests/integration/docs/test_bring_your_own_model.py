"""docs/how-to/bring-your-own-model.md: its block writes a bundle that the commands accept and serve."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rillcast.cli import main
from tests.support import pages
from tests.support.paths import ROOT

PAGE = ROOT / "docs" / "how-to" / "bring-your-own-model.md"


def test_the_model_of_the_page_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxscript", reason="PyTorch's exporter needs it; `make test` installs it")
    monkeypatch.chdir(tmp_path)
    assert len(pages.run(PAGE)) == 1
    capsys.readouterr()
    assert main(["inspect", "mine.onnx"]) == 0
    assert capsys.readouterr().out.startswith("mine@")
    rows = [f"{name},2024-05-0{day}T{hour:02}:00:00,{hour}" for day in (1, 2) for hour in range(24) for name in "ab"]
    Path("events.csv").write_text("\n".join(["unique_id,ds,y", *rows]) + "\n")
    command = ["run", "--model", "mine.onnx", "--input.path", "events.csv", "--output.path", "forecasts.jsonl"]
    assert main([*command, "--http.enabled", "false", "--log.level", "error"]) == 0
    forecasts = [json.loads(line) for line in Path("forecasts.jsonl").read_text().splitlines()]
    assert len(forecasts) == len(rows)
    assert {len(values) for forecast in forecasts for values in forecast["quantiles"].values()} == {3}
