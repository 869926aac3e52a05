"""Listeners that remember, reading with a deadline, and one way to fill each source, for tests of transports.

A backend puts observations where its source reads them, and opens that source.
"""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import polars as pl

from rillcast.settings import KafkaSettings
from rillcast.transports.base import Assignment, Channel, Sink, Source
from rillcast.transports.connect import client_of
from rillcast.transports.file.source import FileSource
from rillcast.transports.kafka.common.client import KafkaClient
from tests.support.kafka_cluster import KafkaCluster

CLIENTS: Final = ("librdkafka", "kafka-python")
DEADLINE_S: Final = 20.0


class Row(NamedTuple):
    """One observation, and at the same time one record."""

    unique_id: str
    ds: int
    y: float | None


class Read(NamedTuple):
    """A record as a source handed it out."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None


def rows(count: int) -> list[Row]:
    """Return observations that are all different."""
    return [Row(f"s{i % 7}", 1_714_564_800_000 + i, i / 8) for i in range(count)]


def from_beginning(assignment: Assignment) -> int:
    """Start at the committed position, else at the beginning."""
    return assignment.beginning if assignment.committed is None else assignment.committed


@dataclass
class Listener:
    """Remembers its calls."""

    start: Callable[[Assignment], int | None] = from_beginning
    assigned: list[Assignment] = field(default_factory=list)
    revoked: list[int] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)

    def on_assigned(self, assignments: Sequence[Assignment]) -> Mapping[int, int | None]:
        self.assigned += assignments
        return {assignment.partition: self.start(assignment) for assignment in assignments}

    def on_revoked(self, partitions: Sequence[int]) -> None:
        self.revoked += partitions

    def on_lost(self, partitions: Sequence[int]) -> None:
        self.lost += partitions


def read(source: Source, count: int, max_records: int = 1_000) -> list[Read]:
    """Poll until `count` records have arrived."""
    taken: list[Read] = []
    deadline = time.monotonic() + DEADLINE_S
    while len(taken) < count:
        assert time.monotonic() < deadline, f"{source.name}: {len(taken)} of {count} records after {DEADLINE_S:g} s"
        polled = source.poll(max_records, 0.1)
        assert len(polled) <= max_records
        columns = (polled.partitions.tolist(), polled.offsets.tolist(), polled.keys, polled.values)
        taken += [Read(*record) for record in zip(*columns, strict=True)]
    return taken


def poll_until(source: Source, condition: Callable[[], bool], what: str, poll_s: float = 0.05) -> None:
    """Poll, expecting no record, until `condition` holds."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"{source.name}: {what} not within {DEADLINE_S:g} s"
        assert not len(source.poll(1, poll_s))


def decoded(records: Sequence[Read]) -> list[Row]:
    """Return the observations in `records`."""
    return [Row(**json.loads(record.value or b"null")) for record in records]


class Backend(Protocol):
    """A kind of source under test."""

    partitions: int

    def put(self, observations: Sequence[Row]) -> None:
        """Place `observations` where the source reads them, before it is opened."""
        ...

    def source(self) -> Source:
        """Return a source, not yet open; each is a member of the same group."""
        ...


class FileBackend:
    """One format of file."""

    partitions = 1

    def __init__(self, folder: Path, suffix: str) -> None:
        self._path = folder / f"observations.{suffix}"

    def put(self, observations: Sequence[Row]) -> None:
        if self._path.suffix == ".parquet":
            pl.DataFrame(observations, schema=list(Row._fields), orient="row").write_parquet(self._path)
        elif self._path.suffix == ".csv":
            with self._path.open("w", newline="") as file:
                csv.writer(file).writerows([Row._fields, *observations])
        else:
            self._path.write_text("".join(json.dumps(row._asdict()) + "\n" for row in observations))

    def source(self) -> FileSource:
        return FileSource(str(self._path))


class KafkaBackend:
    """One topic read by one client."""

    partitions = 2

    def __init__(self, cluster: KafkaCluster, client: str) -> None:
        self.cluster = cluster
        self.client = client
        self.topic = cluster.create_topic("observations", self.partitions)
        self.settings = cluster.settings()

    def put(self, observations: Sequence[Row]) -> None:
        values = [json.dumps(row._asdict()).encode() for row in observations]
        half = len(values) // 2
        self.cluster.produce(self.topic, values[:half], partition=0)
        self.cluster.produce(self.topic, values[half:], partition=1)

    def source(self) -> Source:
        return kafka_source(self.client, self.settings, self.topic)


def client_named(name: str) -> KafkaClient:
    """Return the parts of one of `CLIENTS`."""
    return client_of(KafkaSettings.model_validate({"client": name}))


def kafka_source(client: str, settings: KafkaSettings, topic: str) -> Source:
    """Return a source on `topic` with the named client."""
    return client_named(client).source(settings, topic)


def kafka_sink(client: str, settings: KafkaSettings, topics: Mapping[Channel, str]) -> Sink:
    """Return a sink with the named client."""
    return client_named(client).sink(settings, topics, {})


def by_partition(records: Sequence[Read]) -> dict[int, list[Read]]:
    """Return the records of each partition in the order in which they arrived."""
    grouped: dict[int, list[Read]] = {}
    for record in records:
        grouped.setdefault(record.partition, []).append(record)
    return grouped
