"""Backlogs of a service: observations, topics that hold them, and settings to read them from the beginning."""

from __future__ import annotations

import uuid
from typing import Final

import msgspec

from rillcast.benchmarks.load import START_MS
from rillcast.benchmarks.process import Topics
from rillcast.bundle.frequency import Frequency
from rillcast.settings import Settings

_PART_EVENTS: Final = 100_000
_encode = msgspec.json.Encoder().encode


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


def for_one_run(settings: Settings, client: str, codec: str) -> Settings:
    """Return settings under which the backlog is read from its beginning."""
    return settings.model_copy(
        update={
            "kafka": settings.kafka.model_copy(update={"group_id": f"bench-{uuid.uuid4().hex[:8]}", "client": client}),
            "output": settings.output.model_copy(update={"codec": codec}),
            "http": settings.http.model_copy(update={"port": 0}),
        }
    )
