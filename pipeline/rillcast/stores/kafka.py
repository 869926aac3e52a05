"""A state store in a compacted Kafka topic: no further infrastructure, and part of the worker's own commits.

    key    <model id>/page/<number>  or  <model id>/mark  or  serving       partition: that of the input
            all of them after `<table>:` where a table of `[[models]]` names the models
    value  the stored form; none (a tombstone) for a page without streams

Owns: the keys, and the state that the records of a partition add up to. Does not know: either client library (a
`PartitionReader` reads, the worker's `Sink` writes), or when commits are due.

Writing is publishing: `stage` hands the records to the worker's sink. Under exactly_once they belong to the transaction
that the sink's `commit` ends, and become visible with the forecasts and offsets or never. `commit` and `discard` have
nothing to do.

Under at_least_once nothing takes pages back: they are visible as soon as the sink has flushed them. So the checkpoint
stages them after their offsets are committed, and a crash in between leaves some pages newer than the mark. That is
allowed: a page's own offset says which events are in it, and a restore never applies one twice. A mark follows its
pages in the same partition, and the sinks keep the order of records even when they send them again. So all pages of a
mark are before it.

A restore reads the committed records of a partition from its beginning to the high watermark of the moment it began
(`rillcast.transports.kafka.common.partition_reader`). If another producer's transaction is open below that, the restore
waits for it, at most until it times out.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from rillcast.engine.pages import Page
from rillcast.stores.base import Claim, Mark, Restored, Superseded
from rillcast.stores.format.framing import damaged
from rillcast.stores.format.pages import PageCodec, decode_claim
from rillcast.transports.base import Channel, Polled, Records, Sink
from rillcast.transports.kafka.common.partition_reader import PartitionReader

log = logging.getLogger(__name__)

_PATIENCE_S: Final = 10.0
_POLL_RECORDS: Final = 64
_ERASE_POLL_S: Final = 0.5
_MARK: Final = b"mark"
_PAGE: Final = b"page/"
SERVING: Final = b"serving"  # which model serves the partition: one key for all models of a route
ROUTE_END: Final = ":"  # after the name of a table of models, which all keys of its route begin with


class StoredRecord(NamedTuple):
    """A committed record of the state topic."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None


def stored_records(polled: Polled) -> Iterator[StoredRecord]:
    """Return the records of a poll one by one."""
    columns = (polled.partitions.tolist(), polled.offsets.tolist(), polled.keys, polled.values)
    return map(StoredRecord, *columns)


@dataclass(slots=True)
class _Loading:
    """A partition that is being restored.

    Attributes:
        moved_s: Time of the last record, in seconds of the store's clock.
        newest: Newest record of each key.
        others: By the id of another model, a number above those of its pages.
        steps: Decodes the records, once all are read.
    """

    moved_s: float
    newest: dict[bytes, StoredRecord] = field(default_factory=dict)
    others: dict[str, int] = field(default_factory=dict)
    steps: Iterator[Restored | None] | None = None


class KafkaStore:
    """One model's state in a topic. See `rillcast.stores.base.StateStore` for the contract.

    Args:
        topic: Name of the topic, for messages.
        codec: Codec of the model's pages.
        sink: The worker's sink, which writes `Channel.STATE` to the topic; None if nothing is written.
        open_reader: Connects a reader, when a restore first needs one.
        clock: Monotonic time in seconds.
        require_partition: Makes sure that the topic has a partition, before it is restored.
        route: Name of the table of models, which all keys begin with; empty for the only one.
    """

    def __init__(
        self,
        topic: str,
        codec: PageCodec,
        sink: Sink | None,
        open_reader: Callable[[], PartitionReader],
        clock: Callable[[], float] = time.monotonic,
        require_partition: Callable[[int], None] = lambda _partition: None,
        route: str = "",
    ) -> None:
        self._topic = topic
        self._codec = codec
        self._route = f"{route}{ROUTE_END}".encode() if route else b""
        self._prefix = self._route + f"{codec.model_id}/".encode()
        self._serving = self._route + SERVING
        self._sink = sink
        self._open_reader = open_reader
        self._require_partition = require_partition
        self._clock = clock
        self._reader: PartitionReader | None = None
        self._loading: dict[int, _Loading] = {}
        self._bytes = 0

    def begin_restore(self, partition: int) -> None:
        """Start loading a partition.

        Raises:
            SettingsError: The topic lacks it and cannot be grown.
        """
        self._require_partition(partition)
        self._opened().read_to_end(partition)
        self._loading[partition] = _Loading(self._clock())

    def poll_restore(self, timeout_s: float) -> Sequence[Restored]:
        """Read and decode for about `timeout_s`, and return the partitions that became complete.

        Raises:
            StateError: A record under one of the model's keys is damaged or foreign.
            TransportError: The topic cannot be read.
        """
        deadline = self._clock() + timeout_s
        done: list[Restored] = []
        while self._loading:
            decoding = next((p for p, loading in self._loading.items() if loading.steps is not None), None)
            if decoding is None:
                self._read(0.0 if done else max(0.0, deadline - self._clock()))
            elif (restored := self._decode_one(decoding)) is not None:
                done.append(restored)
            if self._clock() >= deadline or (done and decoding is None):
                break
        return done

    def cancel_restore(self, partition: int) -> None:
        """Stop loading a partition."""
        if self._loading.pop(partition, None) is not None and self._reader is not None:
            self._reader.stop(partition)

    def stage(self, pages: Sequence[Page], marks: Sequence[Mark]) -> None:
        """Publish the pages, then the marks, to the worker's sink.

        Raises:
            TransportError: The sink cannot take them.
        """
        for page in pages:
            self._publish(page.partition, self._key(_PAGE + str(page.number).encode()), self._codec.encode(page))
        for mark in marks:
            self._publish(mark.partition, self._key(_MARK), self._codec.encode_mark(mark))

    def claim(self, claims: Mapping[int, Claim]) -> None:
        """Publish the model's claims to the worker's sink; they follow their pages and marks.

        Raises:
            TransportError: The sink cannot take them.
        """
        for partition, claim in claims.items():
            self._publish(partition, self._serving, self._codec.encode_claim(partition, claim))

    def retire(self, partition: int, model_id: str, before: Superseded) -> None:
        """Publish tombstones for all keys that another model may have stored of a partition, without reading it.

        Raises:
            TransportError: The sink cannot take them.
        """
        prefix = self._route + f"{model_id}/".encode()
        # The mark is first: pages without a mark belong to no snapshot.
        for name in (_MARK, *(_PAGE + str(number).encode() for number in range(before.pages))):
            self._publish(partition, prefix + name, None)

    def erase(self, partition: int) -> None:
        """Read the partition, and publish a tombstone for every key of the model.

        Raises:
            TransportError: The topic cannot be read, or the sink cannot take them.
        """
        assert not self._loading, "nothing is restored meanwhile"
        reader = self._opened()
        keys: dict[bytes, None] = {}
        reader.read_to_end(partition)
        complete = False
        while not complete:
            for record in stored_records(reader.poll(_POLL_RECORDS, _ERASE_POLL_S)):
                if record.key is not None and record.key.startswith(self._prefix):
                    keys.pop(record.key, None)
                    if record.value is not None:
                        keys[record.key] = None
            complete = partition in reader.ended()
        # The mark is first: pages without a mark belong to no snapshot.
        for key in sorted(keys, key=lambda key: key != self._prefix + _MARK):
            self._publish(partition, key, None)

    def commit(self) -> None:
        """Do nothing: the sink's commit made the records visible."""

    def discard(self) -> None:
        """Do nothing: the sink's abort dropped the records, or they are harmless; see the module's docstring."""

    @property
    def bytes_staged(self) -> int:
        """Bytes of values published so far, before the client's own compression."""
        return self._bytes

    def close(self) -> None:
        """Close the reader; the sink is the worker's."""
        reader, self._reader = self._reader, None
        self._loading.clear()
        if reader is not None:
            reader.close()

    def _opened(self) -> PartitionReader:
        if self._reader is None:
            self._reader = self._open_reader()
        return self._reader

    def _key(self, name: bytes) -> bytes:
        return self._prefix + name

    def _publish(self, partition: int, key: bytes, value: bytes | None) -> None:
        assert self._sink is not None  # a store that is written was opened with a sink
        self._sink.publish(Channel.STATE, Records([key], [value]), partition=partition)
        self._bytes += len(value or b"")

    def _read(self, timeout_s: float) -> None:
        reader = self._opened()
        polled = reader.poll(_POLL_RECORDS, timeout_s)
        now = self._clock()
        for record in stored_records(polled):
            loading = self._loading[record.partition]
            loading.moved_s = now
            if record.key is None:
                continue  # it belongs to no store
            if not record.key.startswith(self._prefix) and record.key != self._serving:
                _note_other(loading.others, record.key, record.value, self._route)
                continue  # another model's; it stays for a rollback
            if record.value is None:
                loading.newest.pop(record.key, None)
            else:
                loading.newest[record.key] = record
        for partition in reader.ended():
            loading = self._loading[partition]
            loading.steps = self._decode(partition, loading.newest, loading.others)
        for partition, loading in self._loading.items():
            if now - loading.moved_s > _PATIENCE_S and loading.steps is None:
                loading.moved_s = now
                log.warning(
                    "restoring state %s[%d]: no record for %g s, at offset %d of %s; the brokers are away, or another "
                    "producer's transaction is open (it ends at its time-out)",
                    self._topic,
                    partition,
                    _PATIENCE_S,
                    reader.positions().get(partition, 0),
                    "an unknown end" if (end := reader.end(partition)) is None else end,
                )

    def _decode_one(self, partition: int) -> Restored | None:
        """Decode one more page of a partition that is read to its end; a step that fails ends the restore."""
        loading = self._loading.pop(partition)
        assert loading.steps is not None  # the caller chose the partition for it
        restored = next(loading.steps)
        if restored is None:
            self._loading[partition] = loading
        return restored

    def _decode(
        self, partition: int, newest: dict[bytes, StoredRecord], others: Mapping[str, int]
    ) -> Iterator[Restored | None]:
        """Yield None after each page, then the whole partition."""
        mark: Mark | None = None
        claim: Claim | None = None
        pages: list[Page] = []
        for key, record in newest.items():
            name = key.removeprefix(self._prefix)
            where = f"{self._topic}[{partition}]@{record.offset}, key {key.decode(errors='replace')}"
            assert record.value is not None  # tombstones are not kept
            if key == self._serving:
                claim = decode_claim(record.value, partition, where)
            elif name == _MARK:
                mark = self._codec.decode_mark(record.value, partition, where)
            elif (number := name.removeprefix(_PAGE)).isdigit() and name.startswith(_PAGE):
                pages.append(self._codec.decode(record.value, partition, int(number), where))
                yield None
            else:
                raise damaged(where, "the key names neither a page nor a mark")
        pages.sort(key=lambda page: page.number)
        yield Restored(partition, mark, pages if mark is not None else [], claim, others)


def _note_other(others: dict[str, int], key: bytes, value: bytes | None, route: bytes) -> None:
    """Note the number of a page of another model of the same route."""
    model_id, _, name = key.removeprefix(route).partition(b"/")
    number = name.removeprefix(_PAGE)
    own = key.startswith(route) and ROUTE_END.encode() not in model_id
    if own and value is not None and name.startswith(_PAGE) and number.isdigit():
        model = model_id.decode(errors="replace")
        others[model] = max(others.get(model, 0), int(number) + 1)
