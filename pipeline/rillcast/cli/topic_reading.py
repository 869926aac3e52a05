"""Reading of a topic or a file by commands, from outside the service: all records, or new ones.

Owns: a consumer group of one member, which commits nothing. Does not know: the content of the records.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rillcast.cli.signals import raise_if_interrupted
from rillcast.errors import TransportError
from rillcast.settings import Settings
from rillcast.transports.base import Assignment

if TYPE_CHECKING:
    from rillcast.transports.base import Polled, Source

_POLL_RECORDS: Final = 2_000
_JOIN_TIMEOUT_S: Final = 60.0


class _Reader:
    """Reads every partition from its beginning, or from `last` records before its end at the start."""

    def __init__(self, last: int | None) -> None:
        self.ends: dict[int, int] = {}
        self._last = last

    def on_assigned(self, assignments: Sequence[Assignment]) -> Mapping[int, int | None]:
        """Return the positions to begin at."""
        self.ends |= {each.partition: each.end for each in assignments}
        return {each.partition: self._first(each) for each in assignments}

    def _first(self, assignment: Assignment) -> int:
        beginning, end = assignment.beginning, assignment.end
        return beginning if self._last is None else max(beginning, end - self._last)

    def on_revoked(self, partitions: Sequence[int]) -> None:
        """Do nothing; the only member keeps its partitions."""

    def on_lost(self, partitions: Sequence[int]) -> None:
        """Do nothing; the only member keeps its partitions."""


def polls(
    settings: Settings,
    purpose: str,
    *,
    topic: str,
    file: Path | None = None,
    follow: bool = False,
    last: int | None = None,
) -> Iterator[Polled]:
    """Yield the records of a topic in the order of each partition, or those of a file.

    Args:
        settings: Settings with the connection to the brokers.
        purpose: Word in the name of the group.
        topic: Topic to read, unless a file is given.
        file: File to read to its end, instead of the topic.
        follow: Whether to yield new records, without an end, instead of existing ones.
        last: Number of records to begin before the end of each partition; None = at its beginning.

    Raises:
        SettingsError: The file's name has no known format.
        TransportError: The topic cannot be read.
    """
    from rillcast.transports.connect import open_source

    given = settings.input.model_copy(
        update={"path": None, "topic": topic} if file is None else {"path": str(file), "format": "json", "rate": 0.0}
    )
    group = settings.kafka.model_copy(
        update={"group_id": f"{settings.kafka.group_id}-{purpose}-{uuid.uuid4().hex[:8]}", "group_instance_id": None}
    )
    source = open_source(settings.model_copy(update={"input": given, "kafka": group}))
    with closing(source):
        yield from _read(source, follow=follow, last=0 if follow else last)


def _read(source: Source, *, follow: bool, last: int | None) -> Iterator[Polled]:
    reader = _Reader(last)
    source.open(reader)
    deadline = time.monotonic() + _JOIN_TIMEOUT_S
    while not source.exhausted:
        polled = source.poll(_POLL_RECORDS, 0.2)
        raise_if_interrupted()
        if len(polled):
            yield polled
        if not reader.ends:
            if time.monotonic() > deadline:
                raise TransportError(f"{source.name}: no partition was assigned within {_JOIN_TIMEOUT_S:g} s")
        elif source.group() is not None and not follow:  # a file reports its own end
            positions = source.positions()
            if all(positions.get(partition, -1) >= end for partition, end in reader.ends.items()):
                return


def moment(text: str) -> int:
    """Return the time of a flag (RFC 3339, UTC if it has no zone) as milliseconds since the epoch."""
    found = datetime.fromisoformat(text)
    return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000)


def time_text(timestamp_ms: int) -> str:
    """Return a time as RFC 3339; below 0 it is unknown."""
    if timestamp_ms < 0:
        return "unknown"
    try:
        found = datetime.fromtimestamp(timestamp_ms / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return f"{timestamp_ms} ms"
    return found.isoformat(timespec="milliseconds").replace("+00:00", "Z")
