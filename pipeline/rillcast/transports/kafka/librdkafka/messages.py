"""Takes messages out of a consumer, and turns them into columns.

Owns: the order of the client's calls that is fastest, and the columns. Does not know: groups or partitions.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Any, Final

import numpy as np
from confluent_kafka import Consumer, Message

from rillcast.transports.base import Headers, Polled

_SECOND: Final = itemgetter(1)  # of a time stamp, which comes with its kind


def take(consumer: Consumer, max_records: int, timeout_s: float) -> list[Message]:
    """Return at most `max_records` messages, waiting at most `timeout_s` for the first.

    `consume` alone would wait for a full batch or the whole time-out; `poll` returns with the first message.
    """
    first = consumer.poll(timeout_s)
    if first is None:
        return []
    return [first, *consumer.consume(max_records - 1, 0)] if max_records > 1 else [first]


def columns(messages: Sequence[Message]) -> Polled:
    """Return messages without errors among them as a poll."""
    count = len(messages)
    if not count:
        return Polled.empty()
    return Polled(
        partitions=np.fromiter(map(Message.partition, messages), np.int64, count),
        offsets=np.fromiter(map(Message.offset, messages), np.int64, count),
        timestamps_ms=np.fromiter(map(_SECOND, map(Message.timestamp, messages)), np.int64, count),
        keys=list(map(Message.key, messages)),
        values=list(map(Message.value, messages)),
        headers=lambda index: _headers(messages[index]),
    )


def _headers(message: Message) -> Headers:
    fields: Any = message.headers()  # typed as a list or a dict for the producer's sake; a consumer returns a list
    return fields or ()
