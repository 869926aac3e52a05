"""The poller answers questions while it waits for the helper thread, without a broker."""

from __future__ import annotations

import time
from concurrent.futures import Future
from typing import Any

from rillcast.transports.kafka.kafka_python.poller import Poller
from rillcast.transports.kafka.kafka_python.rebalance import Question


def test_a_late_notice_of_an_earlier_fetch_does_not_end_the_wait_for_this_one() -> None:
    """It did: then the source waited for the fetch, and the fetch for the source to answer its rebalance."""
    poller = Poller()
    earlier: Future[Any] = Future()
    fetch: Future[Any] = Future()
    question = object.__new__(Question)
    for item in (earlier, question):
        poller._inbox.put(item)
    asked: list[Question] = []
    assert not poller.wait_for(fetch, asked.append, time.monotonic() + 0.05)
    assert asked == [question]
    poller._inbox.put(fetch)
    assert poller.wait_for(fetch, asked.append, time.monotonic() + 5)
