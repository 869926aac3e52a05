"""The file source: pace, positions and missing files."""

from __future__ import annotations

import json
import time
from contextlib import closing
from pathlib import Path

import polars as pl
import pytest

from rillcast.errors import DataError
from rillcast.transports.file.pacer import Pacer
from rillcast.transports.file.source import FileSource
from tests.support.transports import Listener, read, rows


class SleepingTime:
    """Time that passes only in `sleep`."""

    time_ns = staticmethod(time.time_ns)

    def __init__(self) -> None:
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return sum(self.slept)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


def test_a_paced_source_sleeps_from_record_to_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, passing = tmp_path / "in.jsonl", SleepingTime()
    path.write_bytes(b"{}\n" * 11)
    with closing(FileSource(str(path), rate=50.0)) as source:
        monkeypatch.setattr(source, "_pacer", Pacer(50.0, passing.monotonic))
        monkeypatch.setattr("rillcast.transports.file.source.time", passing)
        source.open(Listener())
        taken = [len(source.poll(100, 1.0)) for _ in range(11)]
    assert taken == [1] * 11
    assert passing.slept == pytest.approx([0.02] * 10)


def test_commit_remembers_for_this_run_only(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"{}\n" * 3)
    for _ in range(2):
        listener = Listener()
        with closing(FileSource(str(path))) as source:
            source.open(listener)
            read(source, 3)
            source.commit({0: 3})
            assert source.committed == {0: 3}
        assert [assignment.committed for assignment in listener.assigned] == [None]


@pytest.mark.parametrize("name", ["none.jsonl", "none.csv", "none.parquet"])
def test_a_missing_file_is_a_data_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=name):
        FileSource(str(tmp_path / name)).open(Listener())


def test_a_long_file_is_read_in_order_through_the_source(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    pl.DataFrame(rows(70_000), schema=["unique_id", "ds", "y"], orient="row").write_parquet(path)
    with closing(FileSource(str(path))) as source:
        source.open(Listener(start=lambda _assignment: 66_000))
        records = read(source, 4_000)
        assert [record.offset for record in records] == list(range(66_000, 70_000))
        assert json.loads(records[0].value or b"")["ds"] == rows(66_001)[-1].ds
