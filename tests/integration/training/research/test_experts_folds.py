"""The folds behind the default kind of network: what is held out, what is trained on, and the table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rillcast_training.research import experts_folds
from rillcast_training.research.experts_folds import BEGIN, END, FOLDS, Fold, split
from tests.support.forecasters import brief_parity

HOUR_MS = 3_600_000
SMALL = {
    "hidden": 4,
    "epochs": 1,
    "batches": 1,
    "batch": 2,
    "window": 16,
    "seasons": (4,),
    "quantiles": (0.1, 0.5, 0.9),
}


def made(_folder: Path) -> pl.DataFrame:
    """Two streams; the second ends earlier, and knows its promotions."""
    rows = [
        (name, (480_000 + hour) * HOUR_MS, 10.0 + hour % 4 + 0.1 * (hour * 7 % 5), float(hour % 3 == 0))
        for name, length in (("a", 90), ("b", 70))
        for hour in range(length)
    ]
    return pl.DataFrame(rows, schema=["unique_id", "ds", "y", "promo"], orient="row")


@pytest.fixture
def arguments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    monkeypatch.setattr(
        experts_folds, "NETWORKS", {"alone": SMALL | {"experts": False}, "on experts": SMALL | {"experts": True}}
    )
    monkeypatch.setattr(experts_folds, "FOLDS", {"made": Fold("streams", "1h", 4, 8, made, (("promo", "past"),))})
    return ["--data", str(tmp_path), "--work", str(tmp_path / "work"), "--only", "made"]


def test_the_newest_periods_of_each_stream_are_held_out() -> None:
    early, late = split(made(Path()), "1h", 8)
    assert (len(early), len(late)) == (144, 16)
    for name, newest in (("a", 89), ("b", 69)):
        held = late.filter(pl.col("unique_id") == name)["ds"] // HOUR_MS - 480_000
        assert held.to_list() == list(range(newest - 7, newest + 1))
        assert early.filter(pl.col("unique_id") == name)["ds"].max() == (480_000 + newest - 8) * HOUR_MS


def test_both_kinds_are_trained_once_and_the_page_is_written(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    with brief_parity():
        assert experts_folds.main([*arguments, "--document", str(page)]) == 0
    text = page.read_text()
    (row,) = [line for line in text.splitlines() if line.startswith("| streams | 1 | ")]
    assert "\nold\n" not in text
    assert row.count("|") == text.splitlines()[3].count("|")
    names = {file.name for file in (tmp_path / "work").glob("*.json")}
    assert names == {"made.alone.0.json", "made.on_experts.0.json", "made.experts.json"}

    def never(*_arguments: Any, **_options: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(experts_folds, "train", never)
    capsys.readouterr()
    assert experts_folds.main(arguments) == 0
    assert row in capsys.readouterr().out


def test_data_that_are_not_there_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--data", str(tmp_path), "--work", str(tmp_path / "work"), "--only", "hospital"]
    assert experts_folds.main(arguments) == 2
    assert "hospital_train.csv.gz does not exist; name other data sets with --only" in capsys.readouterr().err
    assert {fold.freq for fold in FOLDS.values()} >= {"5min", "30min", "1h", "1d", "1w", "1mo"}
