"""A state store in a compacted Kafka topic: no further infrastructure, and part of the worker's own commits.

    key    <model id>/page/<number>  or  <model id>/mark  or  serving       partition: that of the input
    value  the stored form; none (a tombstone) for a page without streams

Owns: the keys, and what a restore makes of the records of a partition. Does not know: either client library (a
`TopicReader` reads, the worker's `Sink` writes), or when commits are due.

Writing is publishing: `stage` hands the records to the worker's sink, so under exactly_once they are in the transaction
that its `commit` ends, and are visible with the forecasts and offsets or never. `commit` and `discard` have nothing
to do.

Under at_least_once there is nothing to take pages back with: they are visible as soon as the sink has flushed them, so
the checkpoint stages them after their offsets are committed, and a crash in between shows some pages newer than the
mark. That is allowed, for a page's own offset says which events are in it, and a restore never applies one twice. A
mark follows its pages in the same partition, and the sinks keep the order of what they send, also where they have to
send it again: where there is a mark, all of its pages are before it.

A restore reads a partition from its beginning to the high watermark of the moment it began, and only what is committed.
It is complete when the reading position is there, whether the last offsets hold records, transaction markers or
nothing any more. The last stable offset would not do as the end: somebody else's open transaction may hold it below a
snapshot that was committed long ago. So a restore waits for such a transaction, at most until it times out.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from rillcast.engine.pages import Page
from rillcast.stores.base import Claim, Mark, Restored, Superseded
from rillcast.stores.format.framing import damaged
from rillcast.stores.format.pages import PageCodec, decode_claim
from rillcast.transports.base import Channel, Records, Sink

log = logging.getLogger(__name__)

_PATIENCE_S: Final = 10.0
_ERASE_POLL_S: Final = 0.5
_MARK: Final = b"mark"
_PAGE: Final = b"page/"
SERVING: Final = b"serving"  # which model serves the partition: one key for all models


class StoredRecord(NamedTuple):
    """A committed record of the state topic."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None


class Read(NamedTuple):
    """What a reader's poll brought: records in offset order by partition, and partitions that are now at their end."""

    records: Sequence[StoredRecord]
    complete: Sequence[int]


class TopicReader(Protocol):
    """Reads committed records of partitions of the state topic, outside of any group."""

    def begin(self, partition: int) -> None:
        """Read from the beginning to the high watermark of now, or soon after; anew, if it is being read already."""
        ...

    def cancel(self, partition: int) -> None:
        """Hand out nothing more of a partition."""
        ...

    def poll(self, timeout_s: float) -> Read:
        """Return what came, waiting at most `timeout_s` for a first record; a complete partition is not read on.

        Raises:
            TransportError: the cluster refuses.
        """
        ...

    def position(self, partition: int) -> str:
        """Say where the reading of a partition stands, for a message."""
        ...

    def close(self) -> None:
        """Release resources; may be called twice."""
        ...


@dataclass(slots=True)
class _Loading:
    """A partition being restored: the newest record of each key; then, when all are read, what decodes them."""

    moved_s: float
    newest: dict[bytes, StoredRecord] = field(default_factory=dict)
    others: dict[str, int] = field(default_factory=dict)  # above the numbers of the pages of other models
    steps: Iterator[Restored | None] | None = None


class KafkaStore:
    """One model's state in a topic. See `rillcast.stores.base.StateStore` for the contract.

    Args:
        topic: name, for messages.
        codec: of the model.
        sink: the worker's, with `Channel.STATE` going to the topic; None where nothing is written.
        open_reader: connects a reader, when a restore first needs one.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        topic: str,
        codec: PageCodec,
        sink: Sink | None,
        open_reader: Callable[[], TopicReader],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._topic = topic
        self._codec = codec
        self._prefix = f"{codec.model_id}/".encode()
        self._sink = sink
        self._open_reader = open_reader
        self._clock = clock
        self._reader: TopicReader | None = None
        self._loading: dict[int, _Loading] = {}
        self._bytes = 0

    def begin_restore(self, partition: int) -> None:
        """Start loading a partition."""
        if self._reader is None:
            self._reader = self._open_reader()
        self._reader.begin(partition)
        self._loading[partition] = _Loading(self._clock())

    def poll_restore(self, timeout_s: float) -> Sequence[Restored]:
        """Read and decode for about `timeout_s`, and return the partitions that became complete.

        Raises:
            StateError: a record under one of the model's keys is damaged or foreign.
            TransportError: the topic cannot be read.
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
            self._reader.cancel(partition)

    def stage(self, pages: Sequence[Page], marks: Sequence[Mark]) -> None:
        """Publish the pages, then the marks, to the worker's sink.

        Raises:
            TransportError: the sink cannot take them.
        """
        for page in pages:
            self._publish(page.partition, self._key(_PAGE + str(page.number).encode()), self._codec.encode(page))
        for mark in marks:
            self._publish(mark.partition, self._key(_MARK), self._codec.encode_mark(mark))

    def claim(self, claims: Mapping[int, Claim]) -> None:
        """Publish the model's claims to the worker's sink; they stand behind their pages and marks.

        Raises:
            TransportError: the sink cannot take them.
        """
        for partition, claim in claims.items():
            self._publish(partition, SERVING, self._codec.encode_claim(partition, claim))

    def retire(self, partition: int, model_id: str, before: Superseded) -> None:
        """Publish tombstones for all that another model may have stored of a partition, without reading it.

        Raises:
            TransportError: the sink cannot take them.
        """
        prefix = f"{model_id}/".encode()
        # The mark goes first: pages without one are nobody's.
        for name in (_MARK, *(_PAGE + str(number).encode() for number in range(before.pages))):
            self._publish(partition, prefix + name, None)

    def erase(self, partition: int) -> None:
        """Publish a tombstone for every key of the model, which takes a reading of the partition.

        Raises:
            TransportError: the topic cannot be read, or the sink cannot take them.
        """
        assert not self._loading, "nothing is restored meanwhile"
        if self._reader is None:
            self._reader = self._open_reader()
        keys: dict[bytes, None] = {}
        self._reader.begin(partition)
        complete = False
        while not complete:
            read = self._reader.poll(_ERASE_POLL_S)
            for record in read.records:
                if record.key is not None and record.key.startswith(self._prefix):
                    keys.pop(record.key, None)
                    if record.value is not None:
                        keys[record.key] = None
            complete = partition in read.complete
        # The mark goes first: pages without one are nobody's.
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

    def _key(self, name: bytes) -> bytes:
        return self._prefix + name

    def _publish(self, partition: int, key: bytes, value: bytes | None) -> None:
        assert self._sink is not None  # who writes opened the store with one
        self._sink.publish(Channel.STATE, Records([key], [value]), partition=partition)
        self._bytes += len(value or b"")

    def _read(self, timeout_s: float) -> None:
        assert self._reader is not None  # there is one while anything is loading
        read = self._reader.poll(timeout_s)
        now = self._clock()
        for record in read.records:
            loading = self._loading[record.partition]
            loading.moved_s = now
            if record.key is None:
                continue  # nobody's
            if not record.key.startswith(self._prefix) and record.key != SERVING:
                _note_other(loading.others, record)
                continue  # another model's, which stays for a roll-back
            if record.value is None:
                loading.newest.pop(record.key, None)
            else:
                loading.newest[record.key] = record
        for partition in read.complete:
            loading = self._loading[partition]
            loading.steps = self._decode(partition, loading.newest, loading.others)
        for partition, loading in self._loading.items():
            if now - loading.moved_s > _PATIENCE_S and loading.steps is None:
                loading.moved_s = now
                log.warning(
                    "restoring state %s[%d]: nothing new for %g s %s; the brokers are away, or another producer's "
                    "transaction is open (it ends by itself at its time-out)",
                    self._topic,
                    partition,
                    _PATIENCE_S,
                    self._reader.position(partition),
                )

    def _decode_one(self, partition: int) -> Restored | None:
        """Decode one more page of a partition that is read; a step that fails has ended the restore."""
        loading = self._loading.pop(partition)
        assert loading.steps is not None  # the caller chose it by that
        restored = next(loading.steps)
        if restored is None:
            self._loading[partition] = loading
        return restored

    def _decode(
        self, partition: int, newest: dict[bytes, StoredRecord], others: Mapping[str, int]
    ) -> Iterator[Restored | None]:
        """Yield None after each page, then the whole."""
        mark: Mark | None = None
        claim: Claim | None = None
        pages: list[Page] = []
        for key, record in newest.items():
            name = key.removeprefix(self._prefix)
            where = f"{self._topic}[{partition}]@{record.offset}, key {key.decode(errors='replace')}"
            assert record.value is not None  # tombstones are not kept
            if key == SERVING:
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


def _note_other(others: dict[str, int], record: StoredRecord) -> None:
    """Take in the key of another model's record, if it is that of a page."""
    model_id, _, name = (record.key or b"").partition(b"/")
    number = name.removeprefix(_PAGE)
    if record.value is not None and name.startswith(_PAGE) and number.isdigit():
        model = model_id.decode(errors="replace")
        others[model] = max(others.get(model, 0), int(number) + 1)
