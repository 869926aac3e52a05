"""Anomalous observations as records of their own, for those who need no other.

Owns: which observations are anomalous, and the form of their records, written and read. Does not know: where they go,
commits. They are handed to the sink with the forecasts of their poll, so they are part of the same commit.

The model gives each observation an anomaly from 0 to 1: the share of the forecast's distribution that lies nearer to
its middle. What is left is the tail probability: how often an observation is at least so far out, if the forecast is
right.
"""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import orjson

from rillcast.arrays import FloatArray, IntArray
from rillcast.bundle.bundle import BundleMetadata
from rillcast.codecs.forecasts.columns import STATUS_NAMES, model_name
from rillcast.codecs.forecasts.reader import decode_forecast
from rillcast.engine.step_engine import StepResult
from rillcast.errors import DataError
from rillcast.events import EventBatch
from rillcast.transports.base import Channel, Headers, Records, Sink

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MILLISECOND: Final = dt.timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class Anomaly:
    """One observation with its anomaly, read back.

    Attributes:
        unique_id: the stream.
        ds: the event's time, milliseconds since the epoch.
        y: the observation; NaN = not told (a forecast record has none).
        anomaly: 0 to 1; NaN = unknown.
        model: name and id of the bundle.
        partition: of the event in the source.
        offset: of the event in the source. A repeat has the same partition and offset.
    """

    unique_id: str
    ds: int
    y: float
    anomaly: float
    model: str
    partition: int
    offset: int

    @property
    def tail_probability(self) -> float:
        """How often an observation is at least so far out; NaN = unknown."""
        return 1 - self.anomaly

    @classmethod
    def read(cls, value: bytes, key: bytes | None = None) -> Anomaly:
        """Take an anomaly record apart, or a forecast record of any codec.

        Raises:
            DataError: it is neither.
        """
        if value[:1] == b"{" and b'"quantiles":' not in value:
            return cls._from_own(value)
        forecast = decode_forecast(value, key)
        where = forecast.partition, forecast.offset
        return cls(forecast.unique_id, forecast.ds, math.nan, forecast.anomaly, forecast.model, *where)

    @classmethod
    def _from_own(cls, value: bytes) -> Anomaly:
        try:
            members = orjson.loads(value)
            return cls(
                unique_id=str(members["unique_id"]),
                ds=(dt.datetime.fromisoformat(members["ds"]) - _EPOCH) // _MILLISECOND,
                y=float(members["y"]),
                anomaly=float(members["anomaly"]),
                model=str(members["model"]),
                partition=int(members["source"]["partition"]),
                offset=int(members["source"]["offset"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"neither an anomaly nor a forecast record: {error!r}") from error


def anomalous(anomaly: FloatArray, tail_probability: float) -> npt.NDArray[np.bool_]:
    """Return for each observation whether its tail probability is below; unknown ones are not anomalous."""
    found: npt.NDArray[np.bool_] = anomaly > np.float32(1 - tail_probability)
    return found


class AnomalyPublisher:
    """Hands anomalous observations of one model to the sink."""

    def __init__(self, sink: Sink, metadata: BundleMetadata, tail_probability: float) -> None:
        """Begin with nothing published.

        Args:
            sink: where they go, as `Channel.ANOMALIES`.
            metadata: of the model that rates them.
            tail_probability: an observation whose own is below is anomalous.
        """
        self._sink = sink
        self._constant = {"freq": metadata.freq, "model": model_name(metadata)}
        self._tail_probability = tail_probability

    def choose(self, result: StepResult, eligible: npt.NDArray[np.bool_]) -> IntArray:
        """Return the rows of the anomalous events among the eligible ones."""
        if result.anomaly is None:
            return np.empty(0, np.int64)
        return np.flatnonzero(eligible & anomalous(result.anomaly, self._tail_probability)).astype(np.int64)

    def publish(self, events: EventBatch, result: StepResult, rows: IntArray, headers: list[Headers] | None) -> None:
        """Hand one record for each row to the sink, in the order of the poll.

        Raises:
            TransportError: the sink is broken.
        """
        assert result.anomaly is not None, "rows are of `choose`"
        keys = [events.unique_ids[row].encode() for row in rows.tolist()]
        values = [self._record(events, result, result.anomaly, row) for row in rows.tolist()]
        self._sink.publish(Channel.ANOMALIES, Records(keys, values, headers))

    def _record(self, events: EventBatch, result: StepResult, anomaly: FloatArray, row: int) -> bytes:
        rated = _shortest(anomaly[row])
        moment = _EPOCH + int(events.ds[row]) * _MILLISECOND
        members = {
            "unique_id": events.unique_ids[row],
            "ds": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "y": _shortest(events.y[row]),
            "anomaly": rated,
            "tail_probability": _shortest(np.float32(1 - rated)),
            "status": STATUS_NAMES[result.status[row]],
            **self._constant,
            "source": {"partition": int(events.partitions[row]), "offset": int(events.offsets[row])},
        }
        return orjson.dumps(members)


def _shortest(number: np.float32) -> float:
    """Return the float whose shortest text is that of a float32: 0.1 and not 0.10000000149011612."""
    return float(str(number))
