"""Backlogs of a service: observations, topics and files that hold them, and settings to read these from the start."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec

from rillcast.benchmarks.load import START_MS
from rillcast.benchmarks.process import Topics
from rillcast.bundle.frequency import Frequency
from rillcast.settings import Settings

_PART_EVENTS: Final = 100_000
_encode = msgspec.json.Encoder().encode
Order = Literal["interleaved", "sorted"]
ORDERS: Final[tuple[Order, ...]] = ("interleaved", "sorted")
"""Orders of a file: by time, so that streams take turns; and by stream, as most tables are."""


def observations(frequency: Frequency, streams: int, first: int, rounds: int) -> tuple[list[bytes], list[bytes]]:
    """Return keys and values of `rounds` events for each of `streams`, period by period from `first` on."""
    keys, values = [], []
    for period in range(first, first + rounds):
        ds = frequency.ahead(START_MS, period)
        for number in range(streams):
            unique_id = f"stream-{number}"
            y = 100 + 10 * ((period + number) % 24) + number % 7
            keys.append(unique_id.encode())
            values.append(_encode({"unique_id": unique_id, "ds": ds, "y": y}))
    return keys, values


def fill_backlog(
    settings: Settings, partitions: int, frequency: Frequency, events: int, streams: int
) -> tuple[Topics, int]:
    """Make topics with a backlog of about `events` events, period by period; return them with the exact number."""
    rounds = max(1, events // streams)
    topics = Topics(settings, partitions)
    # In parts, so that a backlog of any size fits in memory.
    part = max(1, _PART_EVENTS // streams)
    for first in range(0, rounds, part):
        topics.fill(*observations(frequency, streams, first, min(part, rounds - first)))
    return topics, rounds * streams


def write_file(path: Path, values: Sequence[bytes], streams: int, order: Order) -> None:
    """Write observations of `observations`, which are in the order of time, as CSV or JSON Lines by the path's name."""
    if order == "sorted":
        values = [value for number in range(streams) for value in values[number::streams]]
    if path.suffix == ".csv":
        events = map(msgspec.json.decode, values)
        lines = [f"{event['unique_id']},{event['ds']},{event['y']}\n" for event in events]
        path.write_text("unique_id,ds,y\n" + "".join(lines))
    else:
        path.write_bytes(b"\n".join(values) + b"\n")


def for_a_file(settings: Settings, path: Path) -> Settings:
    """Return settings under which the file is read, and forecasts are written next to it as JSON Lines."""
    return settings.model_copy(
        update={
            "input": settings.input.model_copy(update={"path": str(path)}),
            "output": settings.output.model_copy(
                update={"path": str(path.with_name("forecasts.jsonl")), "codec": "json"}
            ),
            "dead_letters": settings.dead_letters.model_copy(update={"path": str(path.with_name("dead.jsonl"))}),
            "http": settings.http.model_copy(update={"port": 0}),
        }
    )


def for_one_run(settings: Settings, client: str, codec: str) -> Settings:
    """Return settings under which the backlog is read from its beginning."""
    return settings.model_copy(
        update={
            "kafka": settings.kafka.model_copy(update={"group_id": f"bench-{uuid.uuid4().hex[:8]}", "client": client}),
            "output": settings.output.model_copy(update={"codec": codec}),
            "http": settings.http.model_copy(update={"port": 0}),
        }
    )
