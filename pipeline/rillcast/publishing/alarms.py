"""Alarms of streams as records: one where an alarm opens, one where it closes.

Owns: the form of the records, written and read. Does not know: how the model finds an alarm, where records go, commits.
An alarm is part of the stream's state, and its record follows from one event alone: of its stream, or, of a silence, of
its partition. So it is published in the commit of that event, and as often as the event's forecast: once, if the
delivery is exactly once.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
import orjson

from rillcast.bundle.alarms import described, time_text
from rillcast.codecs.forecasts.columns import model_name
from rillcast.engine.late import AlarmChange
from rillcast.engine.overdue import OverdueChange
from rillcast.errors import DataError
from rillcast.observability import silences
from rillcast.observability.observer import Observer, Published
from rillcast.publishing.side_records import publish_fitting
from rillcast.publishing.trace_context import carried
from rillcast.transports.base import Channel, Records, Sink

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MILLISECOND: Final = dt.timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class Alarm:
    """An alarm where it opened or closed, as its record says.

    Attributes:
        unique_id: The stream.
        change: `opened` or `closed`.
        ds: Time of the event that opened or closed it, in milliseconds since the epoch, which lies before `last` if a
            late event corrected the past; of a silence that opens, the event time that its partition had reached.
        kind: `spike`, `level shift`, `drift`, `variance`, `flat line` or `silence`.
        direction: `up` or `down`; None where the kind has none.
        severity: `warning` or `critical`.
        strength: Return period of the strongest evidence, in periods of the bundle.
        first: Start of the period in which it opened, in milliseconds since the epoch.
        last: Start of the period of the last evidence, in milliseconds since the epoch.
        expected: Middle quantile that was forecast where the evidence was strongest; None = the stream was silent.
        observed: The observation of the same period; None = the stream was silent.
        model: Name and id of the bundle.
        partition: Partition of the event in the source.
        offset: Offset of the event in the source. A repeat has the same partition and offset.
    """

    unique_id: str
    change: str
    ds: int
    kind: str
    direction: str | None
    severity: str
    strength: float
    first: int
    last: int
    expected: float | None
    observed: float | None
    model: str
    partition: int
    offset: int

    @classmethod
    def read(cls, value: bytes) -> Alarm:
        """Read an alarm record.

        Raises:
            DataError: It is none.
        """
        try:
            members = orjson.loads(value)
            return cls(
                unique_id=str(members["unique_id"]),
                change=str(members["change"]),
                ds=_milliseconds(members["ds"]),
                kind=str(members["kind"]),
                direction=members["direction"],
                severity=str(members["severity"]),
                strength=float(members["strength"]),
                first=_milliseconds(members["first"]),
                last=_milliseconds(members["last"]),
                expected=_optional(members["expected"]),
                observed=_optional(members["observed"]),
                model=str(members["model"]),
                partition=int(members["source"]["partition"]),
                offset=int(members["source"]["offset"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"no alarm record: {error!r}") from error


class AlarmPublisher(Observer):
    """Hands alarms to the sink where they open and close."""

    def __init__(
        self,
        sink: Sink,
        *,
        trace_context: bool = False,
        count: Callable[[str, int], None] = lambda _change, _number: None,
    ) -> None:
        """Begin with nothing published.

        Args:
            sink: Takes the records, as `Channel.ALARMS`.
            trace_context: Whether a record gets the trace headers of its observation.
            count: Is called with a change, `opened` or `closed`, and the number of its records that were handed over.
        """
        self._sink = sink
        self._trace_context = trace_context
        self._count = count

    def observe(self, published: Published) -> None:
        """Hand a record for each alarm that opens or closes to the sink, in the order of the poll.

        Raises:
            TransportError: The sink is broken.
        """
        self._observe_events(published)
        self._observe_silences(published)

    def _observe_events(self, published: Published) -> None:
        changes = published.alarm_changes
        if not changes:
            return
        rows = np.array([each.row for each in changes])
        headers = carried(published.polled, published.events.rows[rows].tolist()) if self._trace_context else None
        causes = published.causes_of(rows)
        records = Records([key.encode() for _, key in causes], [_record(published, each) for each in changes], headers)
        kept = publish_fitting(self._sink, Channel.ALARMS, records, causes, published)
        self._count_all(changes[index].change for index in kept.tolist())

    def _observe_silences(self, published: Published) -> None:
        changes = published.overdue
        if not changes:
            return
        keys, values = [each.unique_id.encode() for each in changes], [_silence(published, each) for each in changes]
        causes = [(each.row, each.unique_id) for each in changes]
        kept = publish_fitting(self._sink, Channel.ALARMS, Records(keys, values), causes, published)
        self._count_all(_change_of(changes[index]) for index in kept.tolist())

    def _count_all(self, changes: Iterable[str]) -> None:
        for change, number in Counter(changes).items():
            self._count(change, number)


def _record(published: Published, change: AlarmChange) -> bytes:
    events, metadata, row = published.events, published.metadata, change.row
    members = {
        "unique_id": events.unique_ids[row],
        "ds": time_text(int(events.ds[row])),
        "change": change.change,
        **described(change.alarm, change.ds, metadata.frequency),
        "freq": metadata.freq,
        "model": model_name(metadata),
        "source": {"partition": int(events.partitions[row]), "offset": int(events.offsets[row])},
    }
    return orjson.dumps(members)


def _silence(published: Published, change: OverdueChange) -> bytes:
    members = {
        "unique_id": change.unique_id,
        "ds": time_text(change.ds),
        "change": _change_of(change),
        **silences.described(change),
        "freq": published.metadata.freq,
        "model": model_name(published.metadata),
        "source": {"partition": change.partition, "offset": change.offset},
    }
    return orjson.dumps(members)


def _change_of(change: OverdueChange) -> str:
    return "closed" if change.over else "opened"


def _optional(number: float | None) -> float | None:
    return None if number is None else float(number)


def _milliseconds(text: str) -> int:
    return (dt.datetime.fromisoformat(text) - _EPOCH) // _MILLISECOND
