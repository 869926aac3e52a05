from __future__ import annotations

import json

import pytest

from rillcast.bundle.bundle import Bundle
from rillcast.codecs.observations.rejections import Reason
from rillcast.errors import DeliveryError, RecoveryError
from rillcast.settings import WorkerSettings
from rillcast.transports.base import Channel, Headers
from tests.support import workers
from tests.support.hostile import HOSTILE
from tests.support.memory import Log, MemorySource, broken_flush
from tests.support.toy import HOUR_MS, unroll
from tests.support.workers import forecasts_by_stream, observation


def headers_of(headers: Headers) -> dict[str, str]:
    return {name: (value or b"").decode() for name, value in headers}


def test_bad_records_become_dead_letters_and_good_ones_are_forecast() -> None:
    log = Log({0: []})
    for number, (value, _) in enumerate(HOSTILE):
        log.append(0, observation("a", number + 1))
        log.append(0, value, key=b"the-key")
    harness = workers.build(log, per_poll=lambda: 7)
    harness.worker.run()
    assert forecasts_by_stream(log) == {"a": unroll(range(1, len(HOSTILE) + 1))}
    letters = log.published[Channel.DEAD_LETTERS]
    assert [headers_of(h)["rillcast-reason"] for _, _, h in letters] == [reason.value for _, reason in HOSTILE]
    for number, ((value, _), (key, kept, headers)) in enumerate(zip(HOSTILE, letters, strict=True)):
        named = headers_of(headers)
        assert key == b"the-key"
        assert kept == (value and value[:1000])
        assert named["rillcast-source"] == "memory"
        assert (named["rillcast-partition"], named["rillcast-offset"]) == ("0", str(2 * number + 1))
        assert named["rillcast-detail"]
        assert named.get("rillcast-original-bytes", str(len(kept or b""))) == str(len(value or b""))
    assert log.committed == {0: 2 * len(HOSTILE)}
    for reason in Reason:
        expected = sum(r is reason for _, r in HOSTILE)
        assert harness.metric("rillcast_dead_letters_total", reason=reason.value) == expected


def test_nothing_is_committed_when_the_flush_fails() -> None:
    log = Log({0: [(None, observation("a", 1))]})
    harness = workers.build(log)
    harness.sink.fail_flush = broken_flush
    with pytest.raises(DeliveryError):
        harness.worker.run()
    assert log.committed == {}
    assert (harness.source.closed, harness.sink.closed) == (1, 1)
    assert harness.metric("rillcast_commit_failures_total") == 1


def test_restart_replays_what_was_committed_and_publishes_only_what_is_new() -> None:
    log = Log({0: []})
    for y in (5, 6, 7):
        log.append(0, observation("a", y))
    workers.build(log).worker.run()
    log.published[Channel.FORECASTS].clear()
    log.append(0, observation("a", 8))
    log.append(0, b"rubbish")
    harness = workers.build(log, per_poll=lambda: 2)
    harness.worker.run()
    assert forecasts_by_stream(log) == {"a": unroll([5, 6, 7, 8])[-1:]}
    assert harness.metric("rillcast_replayed_events_total") == 3
    assert harness.metric("rillcast_events_total", status="ok") == 1
    assert len(log.published[Channel.DEAD_LETTERS]) == 1


def test_replay_does_not_repeat_dead_letters() -> None:
    log = Log({0: [(None, b"rubbish")]})
    workers.build(log).worker.run()
    workers.build(log).worker.run()
    assert len(log.published[Channel.DEAD_LETTERS]) == 1


def test_cold_recovery_starts_new_streams_at_the_committed_offset() -> None:
    log = Log({0: [(None, observation("a", 5)), (None, observation("a", 6))]}, committed={0: 1})
    workers.build(log, settings=WorkerSettings(recovery="cold")).worker.run()
    assert forecasts_by_stream(log) == {"a": unroll([6])}


def test_committed_offset_outside_the_topic_is_a_loud_error() -> None:
    log = Log({0: [(None, observation("a", 5))]}, committed={0: 9})
    with pytest.raises(RecoveryError, match=r"memory\[0\].* 9 .*\[0, 1\]"):
        workers.build(log).worker.run()
    assert log.published[Channel.FORECASTS] == []


def test_readiness_follows_the_replay() -> None:
    log = Log({0: [(None, observation("a", y)) for y in (1, 2, 3, 4)]}, committed={0: 4})
    harness = workers.build(log, per_poll=lambda: 1)
    seen = []
    harness.source.before_poll.extend([lambda _source: seen.append(harness.health.ready)] * 4)
    harness.worker.run()
    assert seen == [False, False, False, True]
    assert not harness.health.ready, "a closed worker is not ready"


def test_commits_wait_for_their_interval() -> None:
    log = Log({0: [(None, observation("a", y)) for y in range(1, 7)]})
    harness = workers.build(log, per_poll=lambda: 1, settings=WorkerSettings(commit_interval_s=2))
    committed = []

    def tick(_source: object) -> None:
        harness.clock.now += 1
        committed.append(log.committed.get(0, 0))

    harness.source.before_poll.extend([tick] * 5)
    harness.worker.run()
    assert committed == [0, 0, 3, 3, 5]
    assert log.committed == {0: 6}


def test_revoked_partition_is_committed_first_and_its_streams_are_forgotten() -> None:
    log = Log({0: [(None, observation("a", 1))], 1: [(None, observation("b", 2))]})
    harness = workers.build(log)
    harness.source.before_poll.append(lambda source: source.revoke([0]))
    harness.worker.run()
    assert log.committed == {0: 1, 1: 1}
    assert harness.metric("rillcast_partitions") == 1


def test_lost_partition_is_not_committed() -> None:
    log = Log({0: [(None, observation("a", 1))], 1: [(None, observation("b", 2))]})
    harness = workers.build(log)

    def lose(source: object) -> None:
        harness.worker.on_lost([0])
        del harness.source._positions[0]

    harness.source.before_poll.append(lose)
    harness.worker.run()
    assert log.committed == {1: 1}


def test_stop_commits_what_was_published() -> None:
    log = Log({0: [(None, observation("a", y)) for y in (1, 2, 3)]})
    harness = workers.build(log, per_poll=lambda: 1)
    harness.source.before_poll.append(lambda _source: harness.worker.stop())
    harness.worker.run()
    assert log.committed == {0: 2}
    assert len(log.published[Channel.FORECASTS]) == 2


def test_metrics_account_for_every_event(late_bundle: Bundle) -> None:
    hours = [0, 1, 1, 3, 2, 4]
    log = Log({0: [(None, observation("a", 1, ds=hour * 3_600_000)) for hour in hours]})
    harness = workers.build(log, bundle=late_bundle)
    harness.worker.run()
    by_status = {s: harness.metric("rillcast_events_total", status=s) for s in ("ok", "duplicate", "late")}
    assert by_status == {"ok": 4, "duplicate": 1, "late": 1}
    assert harness.metric("rillcast_forecasts_total") == 4
    assert harness.metric("rillcast_dead_letters_total", reason="late") == 1
    (letter,) = log.published[Channel.DEAD_LETTERS]
    assert headers_of(letter[2])["rillcast-offset"] == "4"
    records = [json.loads(value) for _, value, _ in log.published[Channel.FORECASTS]]
    assert [record["source"]["offset"] for record in records] == [0, 1, 3, 5]


@pytest.fixture
def late_bundle() -> Bundle:
    """A toy that says `late` and `duplicate`: its state is the last hour seen, plus one."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    from rillcast.bundle.bundle import Status
    from tests.support.toy import ToyGraph

    toy = ToyGraph()
    node = helper.make_node
    constants = {"hour_ms": 3_600_000, "one": 1, "late": int(Status.LATE), "duplicate": int(Status.DUPLICATE)}
    toy.initializers += [numpy_helper.from_array(np.array([v], np.int64), k) for k, v in constants.items()]
    toy.nodes = [
        node("Gather", ["state.sum", "slots"], ["row"], axis=0),
        node("Div", ["ds", "hour_ms"], ["hour"]),
        node("Add", ["hour", "one"], ["seen"]),
        node("Unsqueeze", ["seen", "last_axis"], ["seen_column"]),
        node("Max", ["row", "seen_column"], ["next_row"]),
        node("Unsqueeze", ["slots", "last_axis"], ["rows"]),
        node("ScatterND", ["state.sum", "rows", "next_row"], ["state.sum.next"]),
        node("Cast", ["next_row"], ["as_float"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["as_float", "last_axis"], ["as_block"]),
        node("Mul", ["as_block", "block"], ["forecast"]),
        node("Squeeze", ["row", "last_axis"], ["before"]),
        node("Less", ["seen", "before"], ["is_late"]),
        node("Equal", ["seen", "before"], ["is_same"]),
        node("Cast", ["y"], ["y_int"], to=TensorProto.INT64),
        node("Mul", ["y_int", "zero"], ["ok"]),
        node("Where", ["is_same", "duplicate", "ok"], ["same_or_ok"]),
        node("Where", ["is_late", "late", "same_or_ok"], ["status_int"]),
        node("Cast", ["status_int"], ["status"], to=TensorProto.INT8),
    ]
    return Bundle.from_bytes(toy.build())


def test_streams_without_events_are_counted_now_and_then() -> None:
    log = Log({0: []})
    for unique_id, hour in (("a", 0), ("b", 0), ("b", 5)):
        log.append(0, observation(unique_id, 1, hour * HOUR_MS))
    harness = workers.build(log, overdue_periods=3)

    def pass_time(_source: MemorySource) -> None:
        harness.clock.now += 31

    harness.source.before_poll.extend([pass_time, pass_time])
    harness.worker.run()
    assert harness.metric("rillcast_overdue_streams") == 1
    assert harness.metric("rillcast_sleeping_streams") == 0
