"""The line of progress: what it says, and that the log never glues to it."""

from __future__ import annotations

import gzip
import io
import logging
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import polars as pl
import pytest

from rillcast.cli import progress
from rillcast.cli.progress import Progress, line
from rillcast.codecs.observations.decoder import ObservationDecoder
from rillcast.settings import Settings
from rillcast.transports.file.source import FileSource
from tests.support.transports import Listener

CLEAR = "\r\x1b[K"
RECORDS = 30_000


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("records", "share", "rate", "expected"),
    [
        (120_000, 0.25, 20_000.0, "120,000 of about 480,000 records (25 %), 20,000/s, about 0:18 left"),
        (10, 0.0, 0.0, "10 records"),
        (500, None, 3.2, "500 records, 3/s"),
        (1_000_000, 0.01, 10_000.0, "1,000,000 of about 100,000,000 records (1 %), 10,000/s, about 2:45:00 left"),
        (7, 1.0, 7.0, "7 of about 7 records (100 %), 7/s, about 0:00 left"),
    ],
)
def test_the_line_has_share_rate_and_time_left(records: int, share: float | None, rate: float, expected: str) -> None:
    assert line(records, share, rate) == expected


def test_the_line_is_drawn_twice_a_second_with_the_rate_of_the_last_seconds_and_gives_way_to_the_log() -> None:
    now, terminal = [0.0], Terminal()
    shown = Progress(terminal, lambda: now[0])
    for step in range(400):
        now[0] = step / 10
        shown.reached(100 * step if step < 200 else 20_000 + 10 * step, 0.5)
    drawn = terminal.getvalue().split(CLEAR)[1:]
    assert len(drawn) == 80
    assert "1,000/s" in drawn[30]
    assert "100/s" in drawn[-1]
    assert shown.clear(object())
    assert terminal.getvalue().endswith(CLEAR)
    before = terminal.getvalue()
    assert shown.clear()
    assert terminal.getvalue() == before, "there is no line to clear"


def csv(path: Path) -> Path:
    rows = [f"s{row // 1000},{1_700_000_000_000 + row % 1000 * 3_600_000},{row}\n" for row in range(RECORDS)]
    path.write_text("unique_id,ds,y\n" + "".join(rows))
    return path


def packed(path: Path) -> Path:
    with gzip.open(path.with_suffix(".csv.gz"), "wb") as file:
        file.write(csv(path).read_bytes())
    return path.with_suffix(".csv.gz")


def parquet(path: Path) -> Path:
    pl.read_csv(csv(path)).write_parquet(path.with_suffix(".parquet"))
    return path.with_suffix(".parquet")


@pytest.mark.parametrize("write", [csv, packed, parquet])
@pytest.mark.parametrize("in_turns", [False, True])
def test_a_file_says_how_far_it_is(write: Callable[[Path], Path], in_turns: bool, tmp_path: Path) -> None:
    said: list[tuple[int, float | None]] = []
    streams = ObservationDecoder().streams if in_turns else None
    with closing(FileSource(str(write(tmp_path / "a.csv")), streams=streams)) as source:
        Progress(Terminal()).watch(source)
        source.on_poll = lambda records, share: said.append((records, share))
        source.open(Listener(start=lambda _: 0))
        while not source.exhausted:
            source.poll(5_000, 0.1)
    records, shares = [each[0] for each in said], [each[1] or 0.0 for each in said]
    assert records[:6] == [5_000, 10_000, 15_000, 20_000, 25_000, 30_000]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert shares[2] == pytest.approx(0.5, abs=0.25)  # the disk is read in blocks


def test_it_is_shown_on_a_terminal_for_a_file_only(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = logging.getLogger()
    handler = logging.StreamHandler(io.StringIO())
    monkeypatch.setattr(entries, "handlers", [handler])
    of_file = {"model": "m", "input": {"path": "a.csv"}, "output": {"path": "f.jsonl"}}
    assert progress.of_run(Settings.model_validate(of_file)) is None
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert progress.of_run(Settings.model_validate({"model": "m"})) is None
    assert progress.of_run(Settings.model_validate(of_file | {"log": {"format": "json"}})) is None
    shown = progress.of_run(Settings.model_validate(of_file))
    assert shown is not None
    shown.reached(5, 0.5)
    handler.handle(logging.makeLogRecord({"msg": "an entry"}))
    assert terminal.getvalue().endswith(CLEAR)
