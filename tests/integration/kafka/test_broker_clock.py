"""The wall clock of a broker jumps by a day, forward and back, while it runs and while it is away.

Topics take the broker's time, as docs/chaos.md advises where clocks are not trusted. A transaction that is open as the
clock jumps forward is older than its time-out, and the broker aborts it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.broker_clock import BrokerClock
from tests.support.ci import cannot_run
from tests.support.kafka_cluster import restartable_cluster
from tests.support.one_stream import Stream
from tests.support.stepped_clock import DAY_S
from tests.support.transports import CLIENTS


@pytest.mark.kafka
@pytest.mark.timeout(600)
def test_members_lose_and_double_nothing_when_the_clock_of_their_broker_jumps(tmp_path: Path) -> None:
    if (missing := BrokerClock.missing_tool()) is not None:
        cannot_run(missing)
    clock = BrokerClock(tmp_path)
    with restartable_cluster(clock) as cluster:
        assert cluster.broker is not None
        streams = []
        for client in CLIENTS:  # both at once, because a broker takes seconds to start
            folder = tmp_path / client
            folder.mkdir()
            streams.append(Stream(cluster, folder, {"message_timestamp_type": "LogAppendTime"}))
            streams[-1].settings |= {"kafka.client": client, "worker.commit_interval_s": 0.5}
        serve_through(streams, lambda: clock.step(DAY_S))
        cluster.broker.kill()
        clock.step(-DAY_S)
        cluster.broker.start()
        serve_through(streams, lambda: clock.step(0))
        now = time.time()
        for stream in streams:
            stream.check()
            days = {round((each.timestamp_ms / 1000 - now) / DAY_S) for each in cluster.read_all(stream.output)}
            assert days == {-1, 0, 1}, "the broker wrote forecasts at each of its times"


def serve_through(streams: Sequence[Stream], step: Callable[[], None]) -> None:
    """Serve streams; the clock jumps while events are in flight."""
    with ExitStack() as stack:
        members = [(stream, stack.enter_context(stream.serve())) for stream in streams]
        for stream, member in members:
            stream.feed()
            stream.wait(member)
        for stream in streams:
            stream.feed()
        step()
        for stream, member in members:
            stream.feed()
            stream.wait(member)
        for _, member in members:
            assert member.stop() == 0, member.log[-4000:]
            assert "Traceback" not in member.log, member.log[-4000:]
