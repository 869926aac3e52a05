"""The comparison of cells: the held-out part, the kept results, and the table."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rillcast_training.data.series import load
from rillcast_training.research import record_cells

pytestmark = pytest.mark.usefixtures("brief_parity")

FLAGS = [
    *("--freq", "1h", "--horizon", "4", "--hidden", "4", "--epochs", "2"),
    *("--batches", "2", "--batch", "4", "--window", "40"),
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "waves.csv"
    y = 5 + np.sin(np.arange(240) * np.pi / 12) + 0.1 * np.random.default_rng(0).normal(size=240)
    path.write_text(
        "\n".join(["unique_id,ds,y", *(f"a,{hour * 3_600_000},{v:.4f}" for hour, v in enumerate(y))]) + "\n"
    )
    return path


def test_cells_are_scored_on_held_out_data_and_only_once(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page, work = tmp_path / "page.md", tmp_path / "work"
    page.write_text("before\n<!-- cells: begin -->\nold\n<!-- cells: end -->\nafter\n")
    command = [str(data), *FLAGS, "--workdir", str(work), "--page", str(page)]
    assert record_cells.main([*command, "--cells", "elman"]) == 0
    (early,), (late,) = (load(work / f"{part}.parquet", "1h") for part in ("train", "test"))
    assert early.periods[-1] < late.periods[0]
    assert len(early.periods) + len(late.periods) == 240
    assert 0.15 < len(late.periods) / 240 < 0.25
    kept = json.loads((work / "elman.json").read_text())
    (work / "gru.json").write_text(json.dumps(kept | {"cell": "gru", "parameters": 1_234}))

    def never(_: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(record_cells, "train", never)
    capsys.readouterr()
    assert record_cells.main([*command, "--cells", "elman,gru"]) == 0
    shown = capsys.readouterr().out
    assert [line.split("|")[1].strip() for line in shown.splitlines()[2:]] == ["`elman`", "`gru`", "seasonal naive"]
    assert "| `gru` | 1,234 |" in shown
    assert page.read_text() == f"before\n<!-- cells: begin -->\n{shown}<!-- cells: end -->\nafter\n"


def test_data_that_cannot_be_read_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert record_cells.main([str(tmp_path / "none.csv"), *FLAGS, "--workdir", str(tmp_path)]) == 2
    assert "none.csv" in capsys.readouterr().err
