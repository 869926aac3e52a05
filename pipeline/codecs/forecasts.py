"""Forecast records: columns to bytes.

Owns: the JSON form of a forecast. Does not know: where the bytes go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import orjson

from pipeline.arrays import FloatArray, IntArray, StatusArray
from pipeline.bundle import BundleMetadata, Status


@dataclass(frozen=True, slots=True)
class ForecastColumns:
    """Forecasts to be encoded; row `i` of each column belongs to one record.

    Attributes:
        unique_ids: stream ids.
        ds: `(n,)` int64, event time in milliseconds since the epoch: the origin of the forecast.
        status: `(n,)` int8, `Status`.
        forecast: `(n, H, Q)` float32.
        anomaly: `(n,)` float32, NaN = unknown; None where the bundle has no such output.
        partitions: `(n,)` int64, of the event in the source.
        offsets: `(n,)` int64, of the event in the source.
    """

    unique_ids: Sequence[str]
    ds: IntArray
    status: StatusArray
    forecast: FloatArray
    anomaly: FloatArray | None
    partitions: IntArray
    offsets: IntArray


class ForecastEncoder:
    """Columns to JSON forecast records, keyed by stream id.

    The whole batch's numbers are printed by one call on the float32 array (the shortest digits that read back to
    the same float32) and the text is then cut into rows, which is several times faster than encoding lists.
    """

    def __init__(self, metadata: BundleMetadata) -> None:
        levels = b",".join(b'"%g":[%%b]' % q for q in metadata.quantiles)
        constant = b'"freq":%b,"model":%b' % (
            orjson.dumps(metadata.freq),
            orjson.dumps(f"{metadata.name}@{metadata.model_id}"),
        )
        self._template = (
            b'{"unique_id":%b,"ds":"%bZ",' + constant.replace(b"%", b"%%") + b',"status":"%b","quantiles":{'
            + levels + b'},"anomaly":%b,"source":{"partition":%d,"offset":%d}}'
        )  # fmt: skip
        self._status = [status.name.lower().encode() for status in Status]

    def encode(self, columns: ForecastColumns) -> tuple[list[bytes], list[bytes]]:
        """Return keys and values, one of each per row."""
        n = len(columns.unique_ids)
        if n == 0:
            return [], []
        by_level = np.ascontiguousarray(columns.forecast.transpose(0, 2, 1))
        text = orjson.dumps(by_level, option=orjson.OPT_SERIALIZE_NUMPY)
        rows = text[3:-3].split(b"]],[[")
        anomaly = columns.anomaly if columns.anomaly is not None else np.full(n, np.nan, np.float32)
        anomalies = orjson.dumps(anomaly, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",")
        times = np.datetime_as_string(columns.ds.astype("datetime64[ms]")).astype("S").tolist()
        names = self._status
        values = [
            self._template % (orjson.dumps(unique_id), ds, names[status], *row.split(b"],["), odd, partition, offset)
            for unique_id, ds, status, row, odd, partition, offset in zip(
                columns.unique_ids,
                times,
                columns.status.tolist(),
                rows,
                anomalies,
                columns.partitions.tolist(),
                columns.offsets.tolist(),
                strict=True,
            )
        ]
        return [unique_id.encode() for unique_id in columns.unique_ids], values
