"""Copies keyed by stream: each once, in order, through crashes, rebalances and transactions that fail."""

from __future__ import annotations

import json
import random
from collections import defaultdict

import pytest

from rillcast.codecs.observations.decoder import ObservationDecoder
from rillcast.codecs.observations.expansion import Expansion
from rillcast.codecs.observations.fields import Fields
from rillcast.errors import DeliveryError, TransactionAborted
from rillcast.publishing.dead_letters import DeadLetter, DeadLetters
from rillcast.service.rekeyer import Rekeyer, RekeyParts
from rillcast.settings import WorkerSettings
from rillcast.transports.base import Channel
from tests.support.memory import Clock, Crash, Log, MemorySink, MemorySource, MemoryTransactionalSink, broken_flush

PARTITIONS, RECORDS = 4, 50


def filled(rng: random.Random) -> Log:
    """Return partitions of records of ten streams, none keyed by them; every seventh is bad."""
    log = Log()
    for number in range(PARTITIONS * RECORDS):
        record = {"host": f"h{rng.randrange(10)}", "ds": number, "y": 1.5, "number": number}
        value = b"rubbish" if number % 7 == 3 else json.dumps(record).encode()
        log.append(number % PARTITIONS, value, b"coarse-%d" % number)
    return log


def rekeyer(log: Log, source: MemorySource, sink: MemorySink, clock: Clock) -> Rekeyer:
    decoder = ObservationDecoder(fields=Fields(unique_id="host"))
    parts = RekeyParts(source, sink, decoder, DeadLetters("memory", 1_000))
    return Rekeyer(parts, WorkerSettings(commit_interval_s=3.0, max_poll_records=9), clock=clock)


def test_a_copy_has_its_stream_as_key_and_a_bad_record_its_own() -> None:
    log = Log()
    log.append(0, json.dumps({"host": "a", "ds": 1, "y": 2}).encode(), b"old")
    log.append(0, b"rubbish", b"old")
    rekeyer(log, MemorySource(log), MemorySink(log), Clock()).run()
    assert log.published[Channel.FORECASTS] == [(b"a", log.partitions[0][0][1], ())]
    ((key, value, headers),) = log.published[Channel.DEAD_LETTERS]
    letter = DeadLetter.read(key, value, headers)
    assert (key, value, letter.reason, letter.offset) == (b"old", b"rubbish", "not_json", 1)
    assert log.committed == {0: 2}


def test_a_copy_that_its_topic_does_not_take_is_a_dead_letter() -> None:
    log = Log()
    for y in (1, 2):
        log.append(0, json.dumps({"host": "a", "ds": 1, "y": y, "more": "m" * 500 * y}).encode())
    sink = MemorySink(log)
    sink.largest[Channel.FORECASTS] = 1_000
    rekeyer(log, MemorySource(log), sink, Clock()).run()
    assert len(log.published[Channel.FORECASTS]) == 1
    (letter,) = (DeadLetter.read(*record) for record in log.published[Channel.DEAD_LETTERS])
    assert (letter.reason, letter.offset) == ("too_large", 1)
    assert "max.message.bytes" in letter.detail


def test_a_record_of_several_streams_is_copied_once_with_what_their_ids_have_in_common() -> None:
    log = Log()
    records = [
        {"host": "a/b", "r": [{"ds": 1, "id": "x", "cpu": 1, "mem": "bad"}]},  # of one entity, and of half its events
        {"host": "c", "r": []},  # nothing
        {"host": "d", "r": [{"ds": 1, "id": "x", "cpu": 1}, {"ds": 1, "id": "y", "cpu": 1}]},  # of two entities
        {"host": "e", "r": [{}]},  # nothing that can be read
    ]
    for record in records:
        log.append(0, json.dumps(record).encode())
    decoder = ObservationDecoder(expansion=Expansion("host,r[].id", "r[].ds", "r[].cpu,r[].mem"))
    parts = RekeyParts(MemorySource(log), MemorySink(log), decoder, DeadLetters("memory", 1_000))
    Rekeyer(parts, WorkerSettings(commit_interval_s=3.0), clock=Clock()).run()
    assert log.published[Channel.FORECASTS] == [(rb"a\/b/x", json.dumps(records[0]).encode(), ())]
    letters = [DeadLetter.read(*record) for record in log.published[Channel.DEAD_LETTERS]]
    assert [(letter.offset, letter.reason) for letter in letters] == [(2, "bad_id"), (3, "missing_field")]
    assert "2 entities ('d/x', 'd/y', ...)" in letters[0].detail


@pytest.mark.parametrize("delivery", ["exactly_once", "at_least_once"])
@pytest.mark.parametrize("seed", range(25))
def test_every_record_is_copied_once_in_order_through_crashes_and_rebalances(seed: int, delivery: str) -> None:
    rng = random.Random(f"{seed}{delivery}")  # noqa: S311  a seed for a test
    log = filled(rng)
    transactional = delivery == "exactly_once"
    clock = Clock()

    def crash(chance: float, error: type[BaseException] = Crash) -> None:
        clock.now += 1
        if rng.random() < chance:
            raise error("here")

    def move(source: MemorySource) -> None:
        numbers = rng.sample(range(PARTITIONS), rng.randrange(1, PARTITIONS))
        (source.revoke if rng.random() < 0.5 else source.lose)(numbers)
        source.assign(numbers)

    for _run in range(200):
        source = MemorySource(log, per_poll=lambda: rng.randrange(1, 9))
        source.before_poll.extend(rng.choice([move, lambda _source: None]) for _ in range(6))
        sink = MemoryTransactionalSink(log) if transactional else MemorySink(log)
        if isinstance(sink, MemoryTransactionalSink):
            sink.before_end = lambda: crash(0.15, rng.choice([Crash, TransactionAborted]))
            sink.after_end = lambda: crash(0.1)
        else:
            sink.fail_flush = lambda: crash(0.15)
            source.fail_commit = lambda: crash(0.1)
        try:
            rekeyer(log, source, sink, clock).run()
        except Crash:
            continue
        if log.committed == dict.fromkeys(range(PARTITIONS), RECORDS):
            break
    assert log.committed == dict.fromkeys(range(PARTITIONS), RECORDS)

    by_partition: dict[int, list[int]] = defaultdict(list)
    for key, value, _ in log.published[Channel.FORECASTS]:
        record = json.loads(value)
        assert key == record["host"].encode()
        by_partition[record["number"] % PARTITIONS].append(record["number"])
    bad = [DeadLetter.read(*record).offset for record in log.published[Channel.DEAD_LETTERS]]
    expected = [n for n in range(PARTITIONS * RECORDS) if n % 7 != 3]
    copied = [n for numbers in by_partition.values() for n in numbers]
    assert set(copied) == set(expected)
    if transactional:
        assert sorted(copied) == expected
        assert len(bad) == PARTITIONS * RECORDS - len(expected)
        assert all(numbers == sorted(numbers) for numbers in by_partition.values())


def test_a_member_that_cannot_flush_commits_nothing_and_ends() -> None:
    log = filled(random.Random(0))  # noqa: S311  a seed for a test
    sink = MemorySink(log)
    sink.fail_flush = broken_flush
    source = MemorySource(log)
    with pytest.raises(DeliveryError):
        rekeyer(log, source, sink, Clock()).run()
    assert not log.committed
    assert source.closed == sink.closed == 1


def test_records_that_were_deleted_before_they_were_copied_are_said(caplog: pytest.LogCaptureFixture) -> None:
    log = filled(random.Random(0))  # noqa: S311  a seed for a test
    log.committed, log.beginning = {0: 3}, 10
    rekeyer(log, MemorySource(log), MemorySink(log), Clock()).run()
    assert "7 records from offset 3 on were deleted" in caplog.text
    assert log.committed[0] == RECORDS
