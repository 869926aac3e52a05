"""The kafka-python source's dealings with its helper thread, without a broker."""

from __future__ import annotations

import time
from concurrent.futures import Future
from typing import Any

from pipeline.settings import KafkaSettings
from pipeline.transports.kafka_python.rebalance import Question
from pipeline.transports.kafka_python.source import KafkaPythonSource


def test_a_late_notice_of_an_earlier_fetch_does_not_end_the_wait_for_this_one() -> None:
    """It did: then the source waited for the fetch, and the fetch for the source to answer its rebalance."""
    source = KafkaPythonSource(KafkaSettings(), "observations")
    earlier: Future[Any] = Future()
    fetch: Future[Any] = Future()
    question = object.__new__(Question)
    for item in (earlier, question):
        source._inbox.put(item)
    asked: list[Question] = []
    assert not source._wait_for(fetch, asked.append, time.monotonic() + 0.05)
    assert asked == [question]
    source._inbox.put(fetch)
    assert source._wait_for(fetch, asked.append, time.monotonic() + 5)
