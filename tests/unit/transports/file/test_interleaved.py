"""A file sorted by stream is read so that many streams can be stepped at once; each stream keeps its order."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from rillcast.codecs.observations.decoder import ObservationDecoder
from rillcast.transports.base import Polled
from rillcast.transports.file import interleaved
from rillcast.transports.file.interleaved import turns
from rillcast.transports.file.source import FileSource
from tests.support.transports import Listener

HOUR_MS = 3_600_000
STREAMS, LENGTH = 30, 500


def write(path: Path, rows: Sequence[tuple[str, int]]) -> None:
    text = "".join(f"{name},{(470_000 + hour) * HOUR_MS},{hour}\n" for name, hour in rows)
    path.write_text("unique_id,ds,y\n" + text)


def by_stream() -> list[tuple[str, int]]:
    return [(f"s{stream}", hour) for stream in range(STREAMS) for hour in range(LENGTH)]


def polls(path: Path, size: int, start: int = 0, rate: float = 0.0) -> list[Polled]:
    found = []
    with closing(FileSource(str(path), rate=rate, streams=ObservationDecoder().streams)) as source:
        source.open(Listener(start=lambda _assignment: start))
        while not source.exhausted:
            found.append(source.poll(size, 0.1))
    return found


def values(found: Sequence[Polled]) -> list[bytes]:
    return [value or b"" for polled in found for value in polled.values]


def test_streams_are_taken_in_turns_and_keep_their_order(tmp_path: Path) -> None:
    write(tmp_path / "in.csv", by_stream())
    found = polls(tmp_path / "in.csv", 4_000)
    records = [json.loads(value) for value in values(found)]
    assert [record["unique_id"] for record in records[: 2 * STREAMS]] == [f"s{n}" for n in range(STREAMS)] * 2
    for stream in range(STREAMS):
        assert [r["y"] for r in records if r["unique_id"] == f"s{stream}"] == list(range(LENGTH))
    offsets = np.concatenate([polled.offsets for polled in found])
    assert offsets.tolist() == list(range(STREAMS * LENGTH)), "in the order of reading"
    assert found[0].place(1) == f"row {LENGTH + 1} (line {LENGTH + 2})", "where it stands in the file"


@pytest.mark.parametrize(("size", "start"), [(700, 0), (4_000, 0), (4_000, 5_001), (100, 14_999)])
def test_the_order_depends_on_the_file_alone(
    size: int, start: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interleaved.InterleavedReader.__init__, "__defaults__", (6_000,))
    monkeypatch.setattr(interleaved, "_WINDOW", 500)
    write(tmp_path / "in.csv", by_stream())
    whole = values(polls(tmp_path / "in.csv", 1_000))
    assert values(polls(tmp_path / "in.csv", size, start)) == whole[start:]
    names = [json.loads(value)["unique_id"] for value in whole[:24]]
    assert names == [f"s{n}" for n in range(12)] * 2, "a block has twelve streams"


def test_a_file_in_the_order_of_time_is_read_as_it_stands(tmp_path: Path) -> None:
    rows = [(f"s{stream}", hour) for hour in range(30) for stream in range(300)]
    write(tmp_path / "in.csv", rows)
    found = [json.loads(value) for value in values(polls(tmp_path / "in.csv", 4_000))]
    assert [(record["unique_id"], record["y"]) for record in found] == rows


def test_a_paced_file_is_read_as_it_stands(tmp_path: Path) -> None:
    write(tmp_path / "in.csv", by_stream()[:5_000])
    found = [json.loads(value) for value in values(polls(tmp_path / "in.csv", 4_000, rate=1e6))]
    assert [(record["unique_id"], record["y"]) for record in found] == by_stream()[:5_000]


def test_records_without_a_stream_keep_their_order_and_their_faults(tmp_path: Path) -> None:
    lines = [
        json.dumps({"unique_id": f"s{stream}", "ds": (470_000 + hour) * HOUR_MS, "y": hour})
        for stream in range(10)
        for hour in range(500)
    ]
    lines[100:100] = ["not json", '{"unique_id": 5, "ds": 1, "y": 2}', "[]"]
    (tmp_path / "in.jsonl").write_text("\n".join(lines) + "\n")
    found = polls(tmp_path / "in.jsonl", 10_000)
    rejected = {polled.place(row): polled.values[row] for polled in found for row in _rejected(polled)}
    assert rejected == {"line 101": b"not json", "line 103": b"[]"}
    assert sorted(values(found)) == sorted(line.encode() for line in lines)


def _rejected(polled: Polled) -> list[int]:
    return [rejection.row for rejection in ObservationDecoder().decode(polled)[1]]


def test_turns_of_streams_of_different_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interleaved, "_WINDOW", 2)
    found = turns(["a", "a", "a", "b", None, None, "c"])
    assert found is not None
    assert found.tolist() == [0, 3, 4, 6, 1, 5, 2]
    assert turns(["a", "b", "c"]) is None
    assert turns(["a"] * 10) is None, "one stream has one order"
