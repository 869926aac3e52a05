"""Publishes records about events, such as anomalies and alarms, to a topic of their own.

Owns: what happens to a record that its topic does not take. Does not know: the content of the records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from rillcast.arrays import IntArray
from rillcast.codecs.observations.rejections import Reason, Rejection
from rillcast.observability.observer import Published
from rillcast.transports.base import Channel, Records, Sink

_OF: Final[Mapping[Channel, tuple[str, str, Reason]]] = {
    Channel.ANOMALIES: ("anomaly", "anomalies", Reason.ANOMALY_TOO_LARGE),
    Channel.ALARMS: ("alarm", "alarms", Reason.ALARM_TOO_LARGE),
}


def publish_fitting(
    sink: Sink, channel: Channel, records: Records, causes: Sequence[tuple[int, str]], published: Published
) -> IntArray:
    """Publish the records that their topic takes; the others become rejections of their causes.

    Args:
        sink: Takes the records.
        channel: Anomalies or alarms.
        records: One for each of `causes`.
        causes: The `k` records of the poll that caused them, each with the stream.
        published: Gets the rejections.

    Returns:
        Which of the records were published: indices in increasing order.

    Raises:
        TransportError: The sink is broken.
    """
    too_large = dict[int, int]()
    if (limit := sink.largest_record(channel)) is not None:
        records, too_large = records.within(limit)
    one, many, reason = _OF[channel]
    for index, size in too_large.items():
        row, unique_id = causes[index]
        detail = (
            f"its {one} takes {size} bytes, and the topic of {many} at most {limit} (max.message.bytes, "
            f"kafka.max_message_bytes); the state of stream {unique_id!r} has the event"
        )
        published.rejections.append(Rejection(row, reason, detail))
    if len(records):
        sink.publish(channel, records)
    return np.delete(np.arange(len(causes), dtype=np.int64), list(too_large))
