"""The Kafka store without a broker: it restores records piece by piece, in bounded time."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from rillcast.engine.pages import Page
from rillcast.errors import StateError
from rillcast.stores.base import Claim, Superseded
from rillcast.stores.format.pages import PageCodec
from rillcast.stores.kafka import KafkaStore, StoredRecord
from rillcast.transports.base import Channel, Polled, Records
from tests.support.memory import Clock
from tests.support.stores import SPECS, assert_same_pages, make_page, marks_over, tombstone

MODEL = "0123456789abcdef"
CODEC = PageCodec(MODEL, SPECS)


@dataclass
class Read:
    """The result of one poll, and the partitions that it ended."""

    records: Sequence[StoredRecord]
    ended: Sequence[int]


@dataclass
class ScriptedReader:
    """Returns the reads of a test, one per poll; a poll without one takes all of its time."""

    clock: Clock
    reads: deque[Read] = field(default_factory=deque)
    begun: list[int] = field(default_factory=list)
    stopped: list[int] = field(default_factory=list)
    closed: int = 0
    _ended: Sequence[int] = ()

    def extent(self, partition: int) -> tuple[int, int]:
        raise AssertionError("a restore always reads from the beginning")

    def offset_at(self, partition: int, timestamp_ms: int) -> int | None:
        raise AssertionError("a restore asks for no time")

    def follow(self, partition: int, position: int) -> None:
        raise AssertionError("a restore ends")

    def read_to_end(self, partition: int) -> None:
        self.begun.append(partition)

    def stop(self, partition: int) -> None:
        self.stopped.append(partition)

    def poll(self, max_records: int, timeout_s: float) -> Polled:
        read = self.reads.popleft() if self.reads else None
        if read is None:
            self.clock.now += timeout_s
            return Polled.empty()
        self._ended = read.ended
        return Polled(
            np.array([record.partition for record in read.records], np.int64),
            np.array([record.offset for record in read.records], np.int64),
            np.full(len(read.records), -1, np.int64),
            [record.key for record in read.records],
            [record.value for record in read.records],
        )

    def ended(self) -> Sequence[int]:
        ended, self._ended = self._ended, ()
        return ended

    def positions(self) -> Mapping[int, int]:
        return {0: 3}

    def end(self, partition: int) -> int | None:
        return 7

    def close(self) -> None:
        self.closed += 1


@dataclass
class RecordingSink:
    """Remembers published records."""

    published: list[tuple[Channel, bytes | None, bytes | None, int | None]] = field(default_factory=list)

    def publish(self, channel: Channel, records: Records, partition: int | None = None) -> None:
        self.published += [
            (channel, key, value, partition) for key, value in zip(records.keys, records.values, strict=True)
        ]

    def largest_record(self, channel: Channel) -> int | None:
        return None

    def flush(self, timeout_s: float) -> None:
        raise AssertionError("flushing is the checkpoint's")

    def close(self) -> None:
        raise AssertionError("the sink is the worker's")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def reader(clock: Clock) -> ScriptedReader:
    return ScriptedReader(clock)


@pytest.fixture
def store(clock: Clock, reader: ScriptedReader) -> KafkaStore:
    return KafkaStore("state", CODEC, RecordingSink(), lambda: reader, clock)


def records(*pages: Page, partition: int = 0) -> list[StoredRecord]:
    """Return pages and a mark over them as records."""
    forms = [(f"{MODEL}/page/{page.number}", CODEC.encode(page)) for page in pages]
    forms.append((f"{MODEL}/mark", CODEC.encode_mark(marks_over(pages)[0])))
    return [StoredRecord(partition, offset, key.encode(), value) for offset, (key, value) in enumerate(forms)]


def test_pages_come_before_their_mark_in_their_own_partition(clock: Clock, reader: ScriptedReader) -> None:
    sink = RecordingSink()
    store = KafkaStore("state", CODEC, sink, lambda: reader, clock)
    pages = [make_page(3, 1), tombstone(3, 2)]
    store.stage(pages, marks_over(pages))
    assert [(channel, key, partition) for channel, key, _, partition in sink.published] == [
        (Channel.STATE, f"{MODEL}/page/1".encode(), 3),
        (Channel.STATE, f"{MODEL}/page/2".encode(), 3),
        (Channel.STATE, f"{MODEL}/mark".encode(), 3),
    ]
    assert [value is None for _, _, value, _ in sink.published] == [False, True, False]
    assert store.bytes_staged == sum(len(value or b"") for _, _, value, _ in sink.published)


@pytest.mark.parametrize(("route", "prefix"), [("", ""), ("hours", "hours:"), ("days", "days:")])
def test_a_table_of_models_sees_its_own_keys_only(
    clock: Clock, reader: ScriptedReader, route: str, prefix: str
) -> None:
    """The keys of a service with one model are those of before there were tables."""
    pages = {"": make_page(0, 0, seed=1), "hours:": make_page(0, 0, seed=2), "days:": make_page(0, 0, seed=3)}
    claims = {each: Claim(MODEL, since_ms) for since_ms, each in enumerate(pages, start=1)}
    stored = [
        (each + key, value)
        for each, page in pages.items()
        for key, value in (
            (f"{MODEL}/page/0", CODEC.encode(page)),
            (f"{MODEL}/mark", CODEC.encode_mark(marks_over([page])[0])),
            ("serving", CODEC.encode_claim(0, claims[each])),
            ("fedcba9876543210/page/6", b"another model's"),
        )
    ]
    reader.reads.append(Read([StoredRecord(0, at, key.encode(), value) for at, (key, value) in enumerate(stored)], [0]))
    sink = RecordingSink()
    store = KafkaStore("state", CODEC, sink, lambda: reader, clock, route=route)
    store.begin_restore(0)
    restored = [found for _ in range(3) for found in store.poll_restore(1.0)]
    (found,) = restored
    assert_same_pages(found.pages, [pages[prefix]])
    assert found.claim == claims[prefix]
    assert found.others == {"fedcba9876543210": 7}
    store.stage([], marks_over([pages[prefix]]))
    store.claim({0: claims[prefix]})
    store.retire(0, "fedcba9876543210", Superseded(0, 1))
    assert [key for _, key, _, _ in sink.published] == [
        f"{prefix}{key}".encode()
        for key in (f"{MODEL}/mark", "serving", "fedcba9876543210/mark", "fedcba9876543210/page/0")
    ]


def test_no_reader_is_connected_before_a_restore_needs_one(clock: Clock) -> None:
    def refuse() -> ScriptedReader:
        raise AssertionError("not needed")

    store = KafkaStore("state", CODEC, RecordingSink(), refuse, clock)
    store.stage([make_page()], [])
    store.commit()
    assert list(store.poll_restore(1.0)) == []
    store.close()


def test_pages_are_decoded_one_at_a_time_within_the_budget(store: KafkaStore, reader: ScriptedReader) -> None:
    pages = [make_page(number=number) for number in range(5)]
    store.begin_restore(0)
    reader.reads.append(Read(records(*pages), [0]))
    polls = 0
    while not (done := store.poll_restore(0.0)):
        polls += 1
        assert polls < 20
    assert polls == 1 + len(pages), "a poll without time reads once, or decodes one page"
    assert_same_pages(done[0].pages, pages)


def test_a_partition_cancelled_while_it_is_decoded_never_comes_and_begins_afresh(
    store: KafkaStore, reader: ScriptedReader
) -> None:
    store.begin_restore(0)
    reader.reads.append(Read(records(make_page(), make_page(number=1)), [0]))
    for _ in range(2):
        assert not store.poll_restore(0.0)
    store.cancel_restore(0)
    assert reader.stopped == [0]
    assert list(store.poll_restore(1.0)) == []
    store.begin_restore(0)
    newer = [make_page(offset=300)]
    reader.reads.append(Read(records(*newer), [0]))
    assert_same_pages(store.poll_restore(1.0)[0].pages, newer)


def test_a_partition_that_is_complete_does_not_wait_for_another(
    store: KafkaStore, reader: ScriptedReader, clock: Clock
) -> None:
    store.begin_restore(0)
    store.begin_restore(1)
    reader.reads.append(Read(records(make_page()), [0]))
    assert [restored.partition for restored in store.poll_restore(60.0)] == [0]
    assert clock.now == 0.0


def test_a_damaged_page_ends_its_restore_only(store: KafkaStore, reader: ScriptedReader) -> None:
    spoilt = records(make_page())
    spoilt[0] = spoilt[0]._replace(value=b"rubbish")
    store.begin_restore(0)
    store.begin_restore(1)
    reader.reads.append(Read(spoilt, [0]))
    with pytest.raises(StateError, match=rf"state\[0\]@0, key {MODEL}/page/0"):
        store.poll_restore(1.0)
    reader.reads.append(Read(records(make_page(1), partition=1), [1]))
    assert [restored.partition for restored in store.poll_restore(1.0)] == [1]


def test_a_restore_that_does_not_move_says_so_every_ten_seconds(
    store: KafkaStore, reader: ScriptedReader, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    store.begin_restore(0)
    with caplog.at_level(logging.WARNING):
        for _ in range(250):
            store.poll_restore(0.1)
    assert clock.now == pytest.approx(25.0)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert "state[0]: no record for 10 s, at offset 3 of 7" in messages[0]


def test_close_closes_the_reader_and_not_the_sink(store: KafkaStore, reader: ScriptedReader) -> None:
    store.begin_restore(0)
    store.close()
    store.close()
    assert reader.closed == 1
