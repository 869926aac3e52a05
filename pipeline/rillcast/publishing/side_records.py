"""Publishes records about events, such as anomalies and alarms, to a topic of their own.

Owns: what happens to a record that its topic does not take. Does not know: the content of the records.
"""

from __future__ import annotations

from collections.abc import Mapping
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


def publish_fitting(sink: Sink, channel: Channel, records: Records, rows: IntArray, published: Published) -> IntArray:
    """Publish the records that their topic takes; the others become rejections of their events.

    Args:
        sink: Takes the records.
        channel: Anomalies or alarms.
        records: One for each of `rows`.
        rows: `(k,)`, rows of the events.
        published: The events; gets the rejections.

    Returns:
        The rows whose records were published.

    Raises:
        TransportError: The sink is broken.
    """
    events, too_large = published.events, dict[int, int]()
    if (limit := sink.largest_record(channel)) is not None:
        records, too_large = records.within(limit)
    one, many, reason = _OF[channel]
    for index, size in too_large.items():
        row = int(rows[index])
        detail = (
            f"its {one} takes {size} bytes, and the topic of {many} at most {limit} (max.message.bytes, "
            f"kafka.max_message_bytes); the state of stream {events.unique_ids[row]!r} has the event"
        )
        published.rejections.append(Rejection(int(events.rows[row]), reason, detail))
    if len(records):
        sink.publish(channel, records)
    return np.delete(rows, list(too_large))
