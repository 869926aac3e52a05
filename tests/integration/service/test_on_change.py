"""A service that publishes what has moved publishes some of what it would publish otherwise, as it would be."""

from __future__ import annotations

import json
import math
from pathlib import Path

from rillcast.service.build import build
from rillcast.service.service import Service
from rillcast.settings import Settings

STREAMS, STEPS, HOUR_MS = 5, 120, 3_600_000


def run(folder: Path, on_change: float) -> tuple[Service, list[bytes]]:
    settings = {
        "model": "universal:1h",
        "input": {"path": str(folder / "in.jsonl")},
        "output": {"path": str(folder / "out.jsonl")},
        "dead_letters": {"path": str(folder / "dead.jsonl")},
        "publish": {"on_change": on_change},
        "http": {"enabled": False},
    }
    service = build(Settings.model_validate(settings))
    service.run()
    return service, (folder / "out.jsonl").read_bytes().splitlines()


def metric(service: Service, name: str) -> float:
    value = service.views.registry.get_sample_value(name)
    assert value is not None
    return value


def test_what_has_not_moved_is_kept_back_and_everything_else_is_as_ever(tmp_path: Path) -> None:
    with (tmp_path / "in.jsonl").open("w") as file:
        for step in range(STEPS):
            for stream in range(STREAMS):
                y = 100 * stream + 5 * math.sin(math.pi * step / 12) + math.cos(step * step * (stream + 1))
                print(json.dumps({"unique_id": f"s{stream}", "ds": step * HOUR_MS, "y": y}), file=file)
    _, everything = run(tmp_path, 0.0)
    service, moved = run(tmp_path, 0.5)
    assert len(everything) == STREAMS * STEPS
    assert set(moved) < set(everything)
    assert 0 < len(moved) < 0.9 * len(everything)
    assert metric(service, "rillcast_forecasts_total") == len(moved)
    assert metric(service, "rillcast_unchanged_forecasts_total") == len(everything) - len(moved)
    assert metric(service, "rillcast_streams") == STREAMS
    first = [json.loads(line)["unique_id"] for line in moved[:STREAMS]]
    assert sorted(first) == sorted(f"s{stream}" for stream in range(STREAMS)), "the first of every stream is there"
