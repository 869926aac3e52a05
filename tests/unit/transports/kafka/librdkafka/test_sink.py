"""What the sink on librdkafka does while there is no room for records; the rest needs a broker."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest

from rillcast.settings import KafkaSettings
from rillcast.transports.base import Channel, Records
from rillcast.transports.kafka.librdkafka import sink as sinks


class Full:
    """A producer whose queue has no room for the first attempts."""

    def __init__(self, attempts: int) -> None:
        self.left = attempts
        self.produced: list[bytes] = []

    def produce(self, _topic: str, value: bytes, *_: object, **__: object) -> None:
        self.left -= 1
        if self.left >= 0:
            raise BufferError
        self.produced.append(value)

    def poll(self, _timeout_s: float) -> int:
        return 0

    def flush(self, _timeout_s: float) -> int:
        return 0

    def purge(self) -> None:
        pass

    close = purge


class Held:
    """What a caller has at hand."""


def test_a_full_queue_is_waited_for_and_leaves_nothing_for_the_garbage_collector(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    producer: Any = Full(attempts=3)
    monkeypatch.setattr(sinks, "create", lambda *_: producer)
    monkeypatch.setattr(sinks, "require_topics", lambda *_: None)
    sink = sinks.LibrdkafkaSink(KafkaSettings(), {Channel.FORECASTS: "forecasts"}, {})

    def publish() -> weakref.ref[Held]:
        held = Held()
        sink.publish(Channel.FORECASTS, Records([b"a", b"b"], [b"1", b"2"]))
        return weakref.ref(held)

    gc.disable()
    try:
        assert publish()() is None
    finally:
        gc.enable()
    assert producer.produced == [b"1", b"2"]
    sink.close()
