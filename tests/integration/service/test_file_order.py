"""The order in which a file is read changes the order of its streams in the output, and no forecast."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any, Literal

from rillcast.service.build import build
from rillcast.settings import Settings
from tests.support.toy import HOUR_MS, write_toy

STREAMS, LENGTH = 60, 220


def forecasts(folder: Path, order: Literal["auto", "file"], **state: int) -> list[dict[str, Any]]:
    settings = {
        "model": str(write_toy(folder / "toy.onnx")),
        "input": {"path": str(folder / "in.csv"), "order": order},
        "output": {"path": str(folder / "out.jsonl")},
        "dead_letters": {"path": str(folder / "dead.jsonl")},
        "http": {"enabled": False},
        "state": state,
    }
    build(Settings.model_validate(settings)).run()
    return [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]


def by_stream(found: list[dict[str, Any]]) -> dict[str, list[tuple[int, dict[str, list[float]]]]]:
    streams = defaultdict(list)
    for one in found:
        streams[one["unique_id"]].append((one["ds"], one["quantiles"]))
    return dict(streams)


def test_streams_of_a_sorted_file_are_taken_in_turns(tmp_path: Path) -> None:
    rows = [(f"s{stream}", hour) for stream in range(STREAMS) for hour in range(LENGTH)]
    lines = [f"{name},{(470_000 + hour) * HOUR_MS},{hour % 24}" for name, hour in rows]
    (tmp_path / "in.csv").write_text("\n".join(["unique_id,ds,y", *lines]) + "\n")
    in_turns, as_it_stands = forecasts(tmp_path, "auto"), forecasts(tmp_path, "file")
    assert [one["unique_id"] for one in as_it_stands] == [name for name, _ in rows]
    assert [one["unique_id"] for one in in_turns[:STREAMS]] == [f"s{n}" for n in range(STREAMS)]
    assert by_stream(in_turns) == by_stream(as_it_stands)
    limited = forecasts(tmp_path, "auto", max_streams_per_partition=5)
    assert [one["unique_id"] for one in limited] == [name for name, _ in rows[: 5 * LENGTH]]
