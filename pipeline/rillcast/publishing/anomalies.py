"""Anomalous observations as records of their own, for readers that need no other.

Owns: which observations are anomalous, and the form of their records, written and read. Does not know: where they go,
commits. They are handed to the sink with the forecasts of their poll, so they are part of the same commit.

The model gives each observation an anomaly from 0 to 1: the share of the forecast's distribution that lies nearer to
its middle. The rest is the tail probability: how often an observation lies at least that far out, if the forecast is
right.

A stream that falls silent has a record too, with the period that failed to come and without figures.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import orjson

from rillcast.arrays import FloatArray
from rillcast.bundle.alarms import time_text
from rillcast.bundle.bundle import Status
from rillcast.codecs.forecasts.columns import STATUS_NAMES, model_name
from rillcast.codecs.forecasts.reader import decode_forecast, read_avro
from rillcast.engine.overdue import OverdueChange
from rillcast.errors import DataError
from rillcast.observability.observer import Observer, Published
from rillcast.publishing.side_records import publish_fitting
from rillcast.publishing.trace_context import carried
from rillcast.transports.base import Channel, Records, Sink

SILENCE: Final = "silence"
"""Status of a record of a period that failed to come."""
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MILLISECOND: Final = dt.timedelta(milliseconds=1)
_OF_FORECASTS: Final = (b'"quantiles":', b'"origin":')
"""Members that only forecasts have, whole or as rows; within a text their quotes would be escaped."""


@dataclass(frozen=True, slots=True)
class Anomaly:
    """One observation with its anomaly, read back.

    Attributes:
        unique_id: The stream.
        ds: The event's time, milliseconds since the epoch; of a silence, when the first period without an event began.
        y: The observation; NaN = unknown (a forecast record, or a silence, has none).
        anomaly: 0 to 1; NaN = unknown.
        model: Name and id of the bundle.
        partition: Partition of the event in the source.
        offset: Offset of the event in the source. A repeat has the same partition and offset.
        status: Result of the event, see `docs/records.md`; `SILENCE` where the stream had no event.
    """

    unique_id: str
    ds: int
    y: float
    anomaly: float
    model: str
    partition: int
    offset: int
    status: str

    @property
    def tail_probability(self) -> float:
        """How often an observation lies at least that far out; NaN = unknown."""
        return 1 - self.anomaly

    @classmethod
    def read(cls, value: bytes, key: bytes | None = None) -> Anomaly:
        """Read an anomaly record, or a forecast record of any codec and shape.

        Of a forecast that is published as rows, only the first row has the anomaly; it is unknown in the others.

        Raises:
            DataError: The record is neither.
        """
        if value[:1] == b"{" and not any(member in value for member in _OF_FORECASTS):
            return cls._from_own(value)
        if value[:1] == b"\0" and "origin" in (row := read_avro(value)):
            rated = math.nan if row["anomaly"] is None else float(row["anomaly"])
            where = row["source_partition"], row["source_offset"]
            return cls(row["unique_id"], row["origin"], math.nan, rated, row["model"], *where, row["status"])
        forecast = decode_forecast(value, key)
        where = forecast.partition, forecast.offset
        return cls(forecast.unique_id, forecast.ds, math.nan, forecast.anomaly, forecast.model, *where, forecast.status)

    @classmethod
    def _from_own(cls, value: bytes) -> Anomaly:
        try:
            members = orjson.loads(value)
            return cls(
                unique_id=str(members["unique_id"]),
                ds=(dt.datetime.fromisoformat(members["ds"]) - _EPOCH) // _MILLISECOND,
                y=_known(members["y"]),
                anomaly=_known(members["anomaly"]),
                model=str(members["model"]),
                partition=int(members["source"]["partition"]),
                offset=int(members["source"]["offset"]),
                status=str(members["status"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"neither an anomaly nor a forecast record: {error!r}") from error


def anomalous(anomaly: FloatArray, tail_probability: float) -> npt.NDArray[np.bool_]:
    """Return for each observation whether its tail probability is below; an unknown one is not anomalous."""
    found: npt.NDArray[np.bool_] = anomaly > np.float32(1 - tail_probability)
    return found


class AnomalyPublisher(Observer):
    """Hands anomalous observations to the sink."""

    def __init__(
        self,
        sink: Sink,
        tail_probability: float,
        *,
        warming_up: bool = True,
        trace_context: bool = False,
        count: Callable[[int], None] = lambda _published: None,
    ) -> None:
        """Begin with nothing published.

        Args:
            sink: Takes the records, as `Channel.ANOMALIES`.
            tail_probability: An observation is anomalous whose own is below.
            warming_up: Whether streams count that know fewer periods than the model's context.
            trace_context: Whether a record gets the trace headers of its observation.
            count: Is called with the number of records that were handed over.
        """
        self._sink = sink
        self._tail_probability = tail_probability
        self._eligible = np.array([status.advanced for status in Status])
        self._eligible[Status.WARMING_UP] &= warming_up
        self._trace_context = trace_context
        self._count = count

    def observe(self, published: Published) -> None:
        """Hand one record for each anomalous event to the sink, in the order of the poll, then those of silences.

        Raises:
            TransportError: The sink is broken.
        """
        self._observe_events(published)
        self._observe_silences(published)

    def _observe_events(self, published: Published) -> None:
        events, result = published.events, published.result
        if result.anomaly is None:
            return
        eligible = published.stepped & self._eligible[result.status]
        rows = np.flatnonzero(eligible & anomalous(result.anomaly, self._tail_probability))
        if not rows.size:
            return
        headers = carried(published.polled, events.rows[rows].tolist()) if self._trace_context else None
        keys = [events.unique_ids[row].encode() for row in rows.tolist()]
        values = [_record(published, result.anomaly, row) for row in rows.tolist()]
        records, causes = Records(keys, values, headers), published.causes_of(rows)
        self._count(publish_fitting(self._sink, Channel.ANOMALIES, records, causes, published).size)

    def _observe_silences(self, published: Published) -> None:
        changes = [each for each in published.overdue if not each.over]
        if not changes:
            return
        keys, values = [each.unique_id.encode() for each in changes], [_silence(published, each) for each in changes]
        causes = [(each.row, each.unique_id) for each in changes]
        self._count(publish_fitting(self._sink, Channel.ANOMALIES, Records(keys, values), causes, published).size)


def _record(published: Published, anomaly: FloatArray, row: int) -> bytes:
    events, rated = published.events, _shortest(anomaly[row])
    members = {
        "unique_id": events.unique_ids[row],
        "ds": time_text(int(events.ds[row])),
        "y": _shortest(events.y[row]),
        "anomaly": rated,
        "tail_probability": _shortest(np.float32(1 - rated)),
        "status": STATUS_NAMES[published.result.status[row]],
        "freq": published.metadata.freq,
        "model": model_name(published.metadata),
        "source": {"partition": int(events.partitions[row]), "offset": int(events.offsets[row])},
    }
    return orjson.dumps(members)


def _silence(published: Published, change: OverdueChange) -> bytes:
    members = {
        "unique_id": change.unique_id,
        "ds": time_text(change.first),
        "y": None,
        "anomaly": None,
        "tail_probability": None,
        "status": SILENCE,
        "freq": published.metadata.freq,
        "model": model_name(published.metadata),
        "source": {"partition": change.partition, "offset": change.offset},
    }
    return orjson.dumps(members)


def _known(number: float | None) -> float:
    return math.nan if number is None else float(number)


def _shortest(number: np.float32) -> float:
    """Return the float whose shortest text is that of a float32: 0.1 and not 0.10000000149011612."""
    return float(str(number))
