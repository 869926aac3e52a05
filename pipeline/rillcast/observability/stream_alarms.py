"""The alarms of streams that are open now, and those that closed last, for people and for Prometheus.

Owns: a bounded table of alarms, safe to read from any thread, and the series that Prometheus scrapes of it. Does not
know: how a model finds an alarm, HTTP, the topic of alarms.

Invariants: at most `_MOST_OPEN` open and `_MOST_CLOSED` closed alarms are kept, however many come. A stream's id is a
label of `rillcast_stream_alarm` only, for at most `labelled` streams. An alarm is part of the stream's state, and each
event of the stream says whether it is open; so the table is right again after a restart when each stream has had an
event. A silence is known from where it is decided; one that opened before a restart is not. An event of a stream
without an alarm costs one look-up, and nothing while no alarm is open; the words for readers are made when they ask.
"""

from __future__ import annotations

import datetime as dt
import threading
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import attrgetter
from typing import Any, Final, NamedTuple

import numpy as np
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from rillcast.arrays import FloatArray
from rillcast.bundle.alarms import ALARM_COLUMNS, CLOSES, described
from rillcast.bundle.bundle import BundleMetadata, Status
from rillcast.codecs.forecasts.columns import model_name
from rillcast.engine.late import AlarmChange
from rillcast.engine.overdue import OverdueChange
from rillcast.observability import silences
from rillcast.observability.metric_table import COLLECTED
from rillcast.observability.observer import Observer, Published

_MOST_OPEN: Final = 10_000
_MOST_CLOSED: Final = 1_000
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_NO_ALARM: Final = np.zeros(len(ALARM_COLUMNS), np.float32)
SEVERITIES: Final = ("critical", "warning")


@dataclass(frozen=True, slots=True)
class StreamAlarm:
    """An alarm as of the newest event that had it; times are in milliseconds since the epoch.

    Attributes:
        unique_id: The stream.
        kind: See `rillcast.bundle.alarms.KINDS`.
        direction: `up` or `down`; None where the kind has none.
        severity: One of `SEVERITIES`.
        strength: Return period of the strongest evidence, in periods of the bundle.
        first: Start of the period in which it opened.
        last: Start of the period of the last evidence.
        closed: Time of the event at which it was over; None = it is open.
        expected: Middle quantile that was forecast where the evidence was strongest; None = the stream was silent.
        observed: The observation of the same period; None = the stream was silent.
        model: Name and id of the bundle.
    """

    unique_id: str
    kind: str
    direction: str | None
    severity: str
    strength: float
    first: int
    last: int
    closed: int | None
    expected: float | None
    observed: float | None
    model: str


class _Seen(NamedTuple):
    """What the newest event of a stream with an alarm said of it; `closed` as in `StreamAlarm`."""

    unique_id: str
    partition: int
    row: FloatArray
    ds: int
    metadata: BundleMetadata
    closed: int | None = None

    def described(self) -> StreamAlarm:
        return _alarm(self, described(self.row, self.ds, self.metadata.frequency))


class _Silence(NamedTuple):
    """A silence of a stream, as of its opening or its end; `closed` as in `StreamAlarm`."""

    unique_id: str
    partition: int
    change: OverdueChange
    metadata: BundleMetadata
    closed: int | None = None

    def described(self) -> StreamAlarm:
        return _alarm(self, silences.described(self.change))


def _alarm(seen: _Seen | _Silence, said: dict[str, Any]) -> StreamAlarm:
    first, last = (_milliseconds(said.pop(name)) for name in ("first", "last"))
    model = model_name(seen.metadata)
    return StreamAlarm(unique_id=seen.unique_id, first=first, last=last, closed=seen.closed, model=model, **said)


class StreamAlarms(Observer):
    """One thread writes, once per batch; any number read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # By stream and whether it is a silence, which is a trouble of its own; the alarm that opened first is first.
        self._open: dict[tuple[str, bool], _Seen | _Silence] = {}
        self._closed: deque[_Seen | _Silence] = deque(maxlen=_MOST_CLOSED)

    def observe(self, published: Published) -> None:
        """Take in what the events of a batch say of alarms; of a late one, what it changes of the present."""
        events, result = published.events, published.result
        present = published.stepped & (result.status != Status.LATE) & (result.status != Status.DUPLICATE)
        if result.late is not None:
            present &= ~result.late
        alarm = result.alarm
        alarmed = np.empty(0, np.int64) if alarm is None else np.flatnonzero(present & (alarm[:, 0] > 0))
        corrected = [each for each in result.corrected_alarms if published.stepped[each.row]]
        overdue = published.overdue
        if not self._open and not alarmed.size and not overdue and not corrected:
            return
        with self._lock:
            for change in overdue:
                self._take_silence(change, published.metadata)
            # A stream whose alarm is open and that has none at this event: its state is another model's, or a new one.
            known = {
                row
                for row, unique_id in enumerate(events.unique_ids)
                if (unique_id, False) in self._open and present[row]
            }
            said = [
                AlarmChange(row, int(events.ds[row]), _NO_ALARM if alarm is None else alarm[row])
                for row in known.union(alarmed.tolist())
            ]
            for each in sorted(corrected + said, key=attrgetter("row")):
                self._take(published, each)

    def forget(self, partition: int) -> None:
        """Drop the alarms of a partition: another member may serve its streams by now."""
        with self._lock:
            for key in [one for one, seen in self._open.items() if seen.partition == partition]:
                del self._open[key]
            self._closed = deque((seen for seen in self._closed if seen.partition != partition), _MOST_CLOSED)

    def open(self, most: int | None = None) -> list[StreamAlarm]:
        """Return the alarms that are open, the one that opened first being first.

        Args:
            most: Largest number of them; None = all.
        """
        with self._lock:
            found = list(islice(self._open.values(), most))
        return [seen.described() for seen in found]

    def closed(self, most: int | None = None) -> list[StreamAlarm]:
        """Return alarms that are over, the one that closed last being first.

        Args:
            most: Largest number of them; None = all that are kept.
        """
        with self._lock:
            found = list(islice(reversed(self._closed), most))
        return [seen.described() for seen in found]

    def of(self, unique_ids: Iterable[str]) -> dict[str, list[StreamAlarm]]:
        """Return the alarms of some streams by stream, the oldest first."""
        wanted = set(unique_ids)
        with self._lock:
            found = [seen for seen in self._closed if seen.unique_id in wanted]
            found += [self._open[key] for one in wanted for key in ((one, False), (one, True)) if key in self._open]
        by_stream: dict[str, list[StreamAlarm]] = {}
        for seen in found:
            by_stream.setdefault(seen.unique_id, []).append(seen.described())
        return by_stream

    def severities(self) -> Counter[str]:
        """Return how many alarms are open by severity."""
        return Counter(alarm.severity for alarm in self.open())

    def _take(self, published: Published, said: AlarmChange) -> None:
        events, (row, ds, alarm) = published.events, said
        unique_id = events.unique_ids[row]
        key = unique_id, False
        before = self._open.get(key)
        if not alarm[0]:
            if before is not None:
                self._closed.append(self._open.pop(key)._replace(closed=ds))
            return
        seen = _Seen(unique_id, int(events.partitions[row]), alarm.copy(), ds, published.metadata)
        if alarm[0] == CLOSES:
            self._open.pop(key, None)
            self._closed.append(seen._replace(closed=int(events.ds[row])))
        elif before is not None or len(self._open) < _MOST_OPEN:
            self._open[key] = seen

    def _take_silence(self, change: OverdueChange, metadata: BundleMetadata) -> None:
        key, seen = (change.unique_id, True), _Silence(change.unique_id, change.partition, change, metadata)
        if change.over:
            self._open.pop(key, None)
            self._closed.append(seen._replace(closed=change.ds))
        elif len(self._open) < _MOST_OPEN:
            self._open[key] = seen


class AlarmCollector(Collector):
    """The series of open alarms, made when Prometheus asks."""

    def __init__(self, alarms: StreamAlarms, labelled: int, registry: CollectorRegistry) -> None:
        """Register.

        Args:
            alarms: The alarms.
            labelled: Largest number of streams that have a series of their own.
            registry: Where the series are exposed.
        """
        self._alarms = alarms
        self._labelled = labelled
        registry.register(self)

    def describe(self) -> Sequence[GaugeMetricFamily]:
        """Return the series without their values."""
        return [GaugeMetricFamily(row.name, row.help, labels=row.labels) for row in COLLECTED]

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Yield the series."""
        count, by_stream = self.describe()
        found = self._alarms.open()
        by_severity = Counter(alarm.severity for alarm in found)
        for severity in SEVERITIES:
            count.add_metric([severity], by_severity[severity])
        for alarm in found[: self._labelled]:
            by_stream.add_metric([alarm.unique_id, alarm.kind, alarm.direction or "", alarm.severity], 1)
        yield from (count, by_stream)


def _milliseconds(text: str) -> int:
    return (dt.datetime.fromisoformat(text) - _EPOCH) // dt.timedelta(milliseconds=1)
