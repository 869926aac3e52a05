"""A summary of stored state of all models, for people: it needs neither a bundle nor a lock.

Owns: the summary of a store's partitions. Does not know: rows. Every form is read whole, so that damage is found.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from rillcast.engine.pages import Arrivals
from rillcast.errors import TransportError
from rillcast.stores.base import Mark
from rillcast.stores.format.framing import damaged, unseal
from rillcast.stores.format.pages import MarkHeader, PageHeader
from rillcast.stores.kafka import ROUTE_END, SERVING, StoredRecord, stored_records
from rillcast.stores.local import LOCK, ROUTE
from rillcast.stores.manifest import MANIFEST, Manifest, page_file
from rillcast.transports.kafka.common.partition_reader import PartitionReader

_POLL_RECORDS: Final = 64
_POLL_S: Final = 0.5
_ATTEMPTS: Final = 5


@dataclass(slots=True)
class Summary:
    """The stored state of one model in one partition.

    Attributes:
        model_id: Id of the model; of a table of models `TABLE:ID`.
        partition: Partition of the input.
        mark: Offset of the snapshot, and more; None while the first snapshot is incomplete.
        pages: Number of pages that have streams.
        streams: Number of streams in them.
        stored_bytes: Bytes of the pages and, in Kafka, of the mark.
    """

    model_id: str
    partition: int
    mark: Mark | None = None
    pages: int = 0
    streams: int = 0
    stored_bytes: int = 0

    def add_page(self, data: bytes, where: str) -> None:
        """Count a page.

        Raises:
            StateError: The page is damaged.
        """
        header, _ = unseal(data, PageHeader, where)
        self.pages += 1
        self.streams += header.streams
        self.stored_bytes += len(data)


class _Key(NamedTuple):
    model_id: str
    page: int | None  # None: the mark


def survey_directory(path: Path) -> list[Summary]:
    """Return the state in a local store's directory; another process may be using it.

    Raises:
        StateError: A file is damaged or missing.
        TransportError: The directory does not exist or cannot be read.
    """
    try:
        roots = [(path, ""), *((each, each.name.removeprefix(ROUTE) + ROUTE_END) for each in path.glob(f"{ROUTE}*"))]
        folders = sorted(
            (root, route, model.name, int(folder.name))
            for root, route in roots
            for model in root.iterdir()
            if os.access(model / LOCK, os.F_OK)  # excludes a volume's lost+found
            for folder in model.iterdir()
            if folder.name.isdigit() and (folder / MANIFEST).is_file()
        )
    except OSError as error:
        raise TransportError(f"state store {path}: {error.strerror or error}") from error
    return [
        _survey_folder(root / model_id / str(partition), model_id, partition, route)
        for root, route, model_id, partition in folders
    ]


def survey_topic(topic: str, reader: PartitionReader, partitions: Iterable[int]) -> list[Summary]:
    """Return the state in a state topic.

    Raises:
        StateError: A record is damaged, or its key is not one of a state store.
        TransportError: The topic cannot be read.
    """
    newest: dict[tuple[int, bytes], StoredRecord] = {}
    for record in _records(reader, partitions):
        newest[record.partition, record.key or b""] = record
    found: dict[tuple[str, int], Summary] = {}
    for record in newest.values():
        where = f"{topic}[{record.partition}]@{record.offset}"
        if (record.key or b"").rpartition(ROUTE_END.encode())[2] == SERVING:
            continue  # it belongs to no single model
        key = _parse_key(record.key or b"", where)
        if record.value is None:
            continue
        summary = found.setdefault((key.model_id, record.partition), Summary(key.model_id, record.partition))
        if key.page is None:
            header, _ = unseal(record.value, MarkHeader, where)
            summary.mark = Mark(
                header.partition, header.offset, header.watermark_ms, header.pages, Arrivals(*header.arrivals)
            )
            summary.stored_bytes += len(record.value)
        else:
            summary.add_page(record.value, where)
    return [found[key] for key in sorted(found)]


def _survey_folder(folder: Path, model_id: str, partition: int, route: str) -> Summary:
    """Read a folder whose manifest may be replaced meanwhile; a page that disappears is looked up again."""
    for attempt in range(_ATTEMPTS):
        manifest = Manifest.read(folder, model_id, partition)
        summary = Summary(route + model_id, partition, manifest.mark)
        try:
            for number, generation in sorted(manifest.pages.items()):
                path = folder / page_file(number, generation)
                summary.add_page(path.read_bytes(), str(path))
        except FileNotFoundError as error:
            if attempt + 1 == _ATTEMPTS or Manifest.read(folder, model_id, partition) == manifest:
                raise damaged(str(error.filename), "the manifest names this file, which does not exist") from error
        except OSError as error:
            raise TransportError(f"state store {folder}: {error.strerror or error}") from error
        else:
            return summary
    raise AssertionError("unreachable")


def _records(reader: PartitionReader, partitions: Iterable[int]) -> Iterator[StoredRecord]:
    remaining = set(partitions)
    for partition in remaining:
        reader.read_to_end(partition)
    while remaining:
        yield from stored_records(reader.poll(_POLL_RECORDS, _POLL_S))
        remaining -= set(reader.ended())


def _parse_key(key: bytes, where: str) -> _Key:
    parts = key.decode(errors="replace").split("/")
    if len(parts) == 2 and parts[1] == "mark":
        return _Key(parts[0], None)
    if len(parts) == 3 and parts[1] == "page" and parts[2].isdigit():
        return _Key(parts[0], int(parts[2]))
    raise damaged(where, f"key {key!r} is not one of a state store")
