"""Some records of a topic or a file, read without a trace on the broker.

Owns: which records are taken: the newest of each partition of a topic, the first of a file. Does not know: what is in
them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from rillcast.arrays import IntArray
from rillcast.errors import DataError
from rillcast.settings import Settings
from rillcast.transports.base import Assignment, Headers, Polled
from rillcast.transports.connect import open_partition_reader, open_source, partitions_of
from rillcast.transports.kafka.common.partition_reader import PartitionReader

_POLL_RECORDS = 5_000
_FETCH_WAIT_MS = 100
_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Sample:
    """Records, in the order of each partition.

    Attributes:
        source: Name of the topic or path of the file.
        polled: The records.
        partitions: Number of partitions of the topic; 1 for a file.
        retained: Number of records of the topic, or of the file if the sample has all of it; None = unknown.
        oldest_ms: Timestamp of the oldest record that the topic retains in milliseconds; -1 = unknown.
    """

    source: str
    polled: Polled
    partitions: int
    retained: int | None
    oldest_ms: int = -1

    def __len__(self) -> int:
        return len(self.polled)


def of_topic(settings: Settings, *, seconds: float, records: int) -> Sample:
    """Return the newest records of `input.topic`.

    Args:
        settings: Settings with the connection and the topic.
        seconds: Longest time to read, also to wait for a first record.
        records: Most records to take.

    Raises:
        TransportError: No broker answers, the topic does not exist, or it may not be read.
        DataError: No record came.
    """
    topic = settings.input.topic
    partitions = partitions_of(settings.kafka, topic)
    deadline = time.monotonic() + seconds
    with closing(open_partition_reader(settings.kafka, topic, _FETCH_WAIT_MS)) as reader:
        extents = {partition: reader.extent(partition) for partition in range(partitions)}
        oldest_ms = _oldest(reader, extents, deadline)
        filled = [partition for partition, (beginning, end) in extents.items() if end > beginning]
        each = max(1, records // max(1, len(filled)))
        for partition, (beginning, end) in extents.items():
            reader.follow(partition, max(beginning, end - each))
        parts = list(_read(reader, {p: extents[p][1] for p in filled}, deadline, records))
    if not parts:
        raise DataError(
            f"topic {topic}: no record came within {seconds:g} s ({partitions} partitions); start the producers, or "
            f"look for longer with --seconds"
        )
    retained = sum(end - beginning for beginning, end in extents.values())
    return Sample(topic, joined(parts), partitions, retained, oldest_ms)


def of_file(settings: Settings, *, records: int) -> Sample:
    """Return the first records of `input.path`, as the service reads them.

    Raises:
        SettingsError: The format is unknown, or its reader is not installed.
        DataError: The file does not exist, lacks a column, or is empty.
    """
    source, parts, count = open_source(settings), list[Polled](), 0
    with closing(source):
        source.open(_Reader())
        while not source.exhausted and count < records:
            parts.append(source.poll(min(_POLL_RECORDS, records - count), _POLL_S))
            count += len(parts[-1])
        whole = source.exhausted
    if not count:
        raise DataError(f"{source.name} has no records")
    return Sample(source.name, joined(parts), 1, count if whole else None)


class _Reader:
    """Reads every partition from its beginning."""

    def on_assigned(self, assignments: Sequence[Assignment]) -> dict[int, int | None]:
        return {assignment.partition: assignment.beginning for assignment in assignments}

    def on_revoked(self, partitions: Sequence[int]) -> None:
        """Do nothing; the partition of a file never moves."""

    def on_lost(self, partitions: Sequence[int]) -> None:
        """Do nothing; the partition of a file never moves."""


def joined(parts: Sequence[Polled]) -> Polled:
    """Return several polls as one, with the records of a partition together and in order."""
    firsts = np.cumsum([0, *(len(part) for part in parts)])
    partitions = np.concatenate([part.partitions for part in parts])
    offsets = np.concatenate([part.offsets for part in parts])

    def headers(index: int) -> Headers:
        number = int(np.searchsorted(firsts, index, side="right")) - 1
        return parts[number].headers(index - int(firsts[number]))

    def place(index: int) -> str:
        number = int(np.searchsorted(firsts, index, side="right")) - 1
        return parts[number].place(index - int(firsts[number]))

    every = Polled(
        partitions,
        offsets,
        np.concatenate([part.timestamps_ms for part in parts]),
        [key for part in parts for key in part.keys],
        [value for part in parts for value in part.values],
        headers,
        place,
        {
            int(first) + row: fault
            for first, part in zip(firsts, parts, strict=False)
            for row, fault in part.faults.items()
        },
    )
    order: IntArray = np.lexsort((offsets, partitions))
    return every if np.array_equal(order, np.arange(len(order))) else every.take(order)


def _oldest(reader: PartitionReader, extents: dict[int, tuple[int, int]], deadline: float) -> int:
    """Return the timestamp of the oldest record that the partitions retain."""
    asked = [partition for partition, (beginning, end) in extents.items() if end > beginning]
    found: dict[int, int] = {}
    for partition in asked:
        reader.follow(partition, extents[partition][0])
    while len(found) < len(asked) and time.monotonic() < deadline:
        polled = reader.poll(_POLL_RECORDS, _POLL_S)
        for partition, timestamp in zip(polled.partitions.tolist(), polled.timestamps_ms.tolist(), strict=True):
            found.setdefault(partition, timestamp)
        for partition in found:
            reader.stop(partition)
    return min((timestamp for timestamp in found.values() if timestamp >= 0), default=-1)


def _read(reader: PartitionReader, ends: dict[int, int], deadline: float, records: int) -> Iterator[Polled]:
    """Yield polls until the ends are reached; without any record so far, until the deadline."""
    count = 0
    while count < records and time.monotonic() < deadline:
        polled = reader.poll(min(_POLL_RECORDS, records - count), _POLL_S)
        if len(polled):
            count += len(polled)
            yield polled
        positions = reader.positions()
        if count and all(positions.get(partition, -1) >= end for partition, end in ends.items()):
            return
