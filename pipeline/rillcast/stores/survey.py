"""What is stored, of whatever models: read for people, without a bundle and without a lock.

Owns: the summary of a store's partitions. Does not know: rows. Every form is read whole, so a damaged one is found.
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
from rillcast.stores.kafka import SERVING, StoredRecord, TopicReader
from rillcast.stores.local import LOCK
from rillcast.stores.manifest import MANIFEST, Manifest, page_file

_POLL_S: Final = 0.5
_ATTEMPTS: Final = 5


@dataclass(slots=True)
class Summary:
    """What is stored of one model in one partition.

    Attributes:
        model_id: whose state it is.
        partition: of the input.
        mark: as of which offset; None while the first snapshot is not complete.
        pages: that have streams.
        streams: in them.
        stored_bytes: of the pages and, in Kafka, the mark.
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
            StateError: it is damaged.
        """
        header, _ = unseal(data, PageHeader, where)
        self.pages += 1
        self.streams += header.streams
        self.stored_bytes += len(data)


class _Key(NamedTuple):
    model_id: str
    page: int | None  # None: the mark


def survey_directory(path: Path) -> list[Summary]:
    """Return what is in a local store's directory, which another process may be using.

    Raises:
        StateError: a file is damaged or missing.
        TransportError: the directory is not there or cannot be read.
    """
    try:
        folders = sorted(
            (model.name, int(folder.name))
            for model in path.iterdir()
            if os.access(model / LOCK, os.F_OK)  # not so in a volume's lost+found
            for folder in model.iterdir()
            if folder.name.isdigit() and (folder / MANIFEST).is_file()
        )
    except OSError as error:
        raise TransportError(f"state store {path}: {error.strerror or error}") from error
    return [_survey_folder(path / model_id / str(partition), model_id, partition) for model_id, partition in folders]


def survey_topic(topic: str, reader: TopicReader, partitions: Iterable[int]) -> list[Summary]:
    """Return what is in a state topic.

    Raises:
        StateError: a record is damaged, or its key is none of a state store's.
        TransportError: the topic cannot be read.
    """
    newest: dict[tuple[int, bytes], StoredRecord] = {}
    for record in _records(reader, partitions):
        newest[record.partition, record.key or b""] = record
    found: dict[tuple[str, int], Summary] = {}
    for record in newest.values():
        where = f"{topic}[{record.partition}]@{record.offset}"
        if record.key == SERVING:
            continue  # no model's own
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


def _survey_folder(folder: Path, model_id: str, partition: int) -> Summary:
    """Read a folder whose manifest may be replaced meanwhile: a page that has gone since is looked for anew."""
    for attempt in range(_ATTEMPTS):
        manifest = Manifest.read(folder, model_id, partition)
        summary = Summary(model_id, partition, manifest.mark)
        try:
            for number, generation in sorted(manifest.pages.items()):
                path = folder / page_file(number, generation)
                summary.add_page(path.read_bytes(), str(path))
        except FileNotFoundError as error:
            if attempt + 1 == _ATTEMPTS or Manifest.read(folder, model_id, partition) == manifest:
                raise damaged(str(error.filename), "the manifest names this file, which is not there") from error
        except OSError as error:
            raise TransportError(f"state store {folder}: {error.strerror or error}") from error
        else:
            return summary
    raise AssertionError("unreachable")


def _records(reader: TopicReader, partitions: Iterable[int]) -> Iterator[StoredRecord]:
    remaining = set(partitions)
    for partition in remaining:
        reader.begin(partition)
    while remaining:
        read = reader.poll(_POLL_S)
        yield from read.records
        remaining -= set(read.complete)


def _parse_key(key: bytes, where: str) -> _Key:
    parts = key.decode(errors="replace").split("/")
    if len(parts) == 2 and parts[1] == "mark":
        return _Key(parts[0], None)
    if len(parts) == 3 and parts[1] == "page" and parts[2].isdigit():
        return _Key(parts[0], int(parts[2]))
    raise damaged(where, f"key {key!r} is none of a state store's")
