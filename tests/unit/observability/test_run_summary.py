"""What the log says of records without a forecast."""

from __future__ import annotations

import logging

import pytest

from rillcast.bundle.bundle import Status
from rillcast.codecs.observations.rejections import Reason, Rejection
from rillcast.errors import NoForecastError, TransactionAborted
from rillcast.events import EventBatch
from rillcast.observability.run_summary import RunSummary
from rillcast.publishing.filters import Policy
from rillcast.settings import WorkerSettings
from tests.support import workers
from tests.support.hostile import polled
from tests.support.live_views import START_MS, published, stepped
from tests.support.memory import Log, MemoryTransactionalSink
from tests.support.workers import observation

LOG = "rillcast.service.worker"


def summary_of(records: int) -> RunSummary:
    summary = RunSummary("observations", "topic dead")
    summary.polled(records)
    return summary


def test_dead_letters_are_told_by_reason_with_the_first_of_the_commonest() -> None:
    summary = summary_of(9)
    assert summary.report(always=True) == []
    poll, long = polled([b"x"] * 9), "a\x1b\n" * 999
    summary.dead_lettered(poll, [Rejection(7, Reason.WRONG_TYPE, "b"), Rejection(4, Reason.WRONG_TYPE, long)])
    summary.dead_lettered(poll, [Rejection(8, Reason.NOT_JSON, "c")])
    (line,) = summary.report()
    assert line.startswith(
        "3 of 9 records became dead letters (2 wrong_type, 1 not_json), in topic dead; "
        "the first wrong_type at observations[0]@4: a\\x1b\\na"
    )
    assert len(line) < 1_000
    assert line.isprintable()
    assert summary.report() == [], "nothing new"
    assert summary.report(always=True) == [line]


def test_repeated_and_late_events_are_told_once_also_after_a_reset() -> None:
    summary = summary_of(4)
    events = EventBatch.of(["a", "b\n", "a", "b\n"], [START_MS] * 4, [1.0] * 4, partition=2, first_offset=10)
    result = stepped(4, status=[Status.OK, Status.DUPLICATE, Status.LATE, Status.DUPLICATE])
    for _ in range(2):
        summary.observe(published(events, result))
    repeated, late = summary.report()
    assert repeated == (
        "2 of 4 records repeated the period of an earlier event and were ignored, the first at observations[2]@11: "
        "stream 'b\\n' at 2024-05-01T00:00:00.000Z"
    )
    assert late == (
        "1 of 4 records were late and left the state unchanged, the first at observations[2]@12: "
        "stream 'a' at 2024-05-01T00:00:00.000Z"
    )


def test_a_late_event_that_is_a_dead_letter_is_told_once() -> None:
    summary = summary_of(1)
    events = EventBatch.of(["a"], [START_MS], [1.0])
    summary.observe(published(events, stepped(1, status=[Status.LATE])))
    summary.dead_lettered(polled([b""]), [Rejection(0, Reason.LATE, "late")])
    (line,) = summary.report()
    assert line.startswith("1 of 1 records became dead letters (1 late)")


def test_the_log_says_them_while_the_service_runs_and_at_its_end(caplog: pytest.LogCaptureFixture) -> None:
    log = Log({0: []})
    for value in (observation("a", 1), b"{", observation("a", 2), b"{", observation("a", 3)):
        log.append(0, value)
    harness = workers.build(log, per_poll=lambda: 1)

    def half_a_minute(_source: object) -> None:
        harness.clock.now += 31

    harness.source.before_poll.extend([half_a_minute] * 5)
    with caplog.at_level(logging.WARNING, LOG):
        harness.worker.run()
    assert [record.message.partition(" became")[0] for record in caplog.records] == [
        "1 of 2 records",
        "2 of 4 records",
        "2 of 5 records",
    ]


def test_a_dead_letter_is_counted_once_also_after_a_reset(caplog: pytest.LogCaptureFixture) -> None:
    log = Log({0: [(None, observation("a", 1)), (None, b"{")]})
    harness = workers.build(log, settings=WorkerSettings(delivery="exactly_once", commit_interval_s=1e-9))
    assert isinstance(harness.sink, MemoryTransactionalSink)
    failures = [TransactionAborted("a test said so")]

    def fail() -> None:
        if failures:
            raise failures.pop()

    harness.sink.before_end = fail
    with caplog.at_level(logging.WARNING, LOG):
        harness.worker.run()
    assert not failures
    counts = {record.message.split(" ")[0] for record in caplog.records if "dead letters" in record.message}
    assert counts == {"1"}


def test_forecasts_that_were_kept_back_are_named_where_there_is_none() -> None:
    log = Log({0: [(None, observation("a", 1, ds=1))]})
    harness = workers.build(log, policy=Policy(every=2), needs_forecast=True)
    with pytest.raises(NoForecastError, match=r"memory: no forecast; 1 forecasts were kept back \(publish"):
        harness.worker.run()


def test_streams_in_two_partitions_are_named_until_they_have_left_one(caplog: pytest.LogCaptureFixture) -> None:
    log = Log({0: [], 1: []})
    for unique_id, partition in (("a", 0), ("b", 1), ("a", 1), ("b\n", 0), ("a", 0)):
        log.append(partition, observation(unique_id, 1, ds=len(log.partitions[partition])))
    harness = workers.build(log)
    with caplog.at_level(logging.WARNING, LOG):
        harness.worker.run()
    (line,) = [record.message for record in caplog.records if "partition" in record.message]
    assert line.startswith("1 stream has events in more than one partition of memory, such as 'a'.")
    assert "rillcast rekey" in line
    assert harness.metric("rillcast_split_streams") == 1
