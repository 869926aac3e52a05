"""Forecast records as JSON; `docs/records.md` describes the members.

One call on a float32 array prints the numbers of a whole batch, with the shortest digits that read back to the same
float32. The text is then cut into lists. Measured: lists of Python floats take three times as long and twice the bytes;
a cut at one character takes half the time of a cut at three; rounded numbers are shorter and take as long. All other
members are printed for the whole batch too, so that a row costs one `bytes.join`.

Owns: the text of a record.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from typing import Final

import numpy as np
import orjson

from rillcast.arrays import AnyArray, IntArray
from rillcast.bundle.bundle import BundleMetadata
from rillcast.codecs.forecasts.columns import STATUS_NAMES, ForecastColumns, OneRecord, level_name, model_name
from rillcast.codecs.forecasts.rounding import Decimals, rounded

_NUMPY: Final = orjson.OPT_SERIALIZE_NUMPY


class JsonEncoder(OneRecord):
    """Encodes columns as JSON records, keyed by stream id."""

    def __init__(
        self, metadata: BundleMetadata, decimals: Decimals = "full", steps: Sequence[int] | None = None
    ) -> None:
        """Prepare the encoder; `steps` are named in records where they are not simply the first ones."""
        constant = b'Z","freq":%b,"model":%b,"status":"' % (
            orjson.dumps(metadata.freq),
            orjson.dumps(model_name(metadata)),
        )
        levels = [b'"%b":[' % level_name(quantile).encode() for quantile in metadata.quantiles]
        named = b"" if steps is None else b'"steps":%b,' % orjson.dumps(list(steps))
        self._levels = [b'",' + named + b'"quantiles":{' + levels[0], *levels[1:]]
        self._constant = constant
        self._decimals, self._quantiles = decimals, metadata.quantiles
        self._status = [name.encode() for name in STATUS_NAMES]

    def encode(self, columns: ForecastColumns) -> tuple[list[bytes], list[bytes]]:
        """Return keys and values, one of each per row."""
        n = len(columns)
        if n == 0:
            return [], []
        _, horizon, quantiles = columns.forecast.shape
        forecast = rounded(columns.forecast, self._quantiles, self._decimals)
        lists = np.ascontiguousarray(forecast.transpose(0, 2, 1)).reshape(-1, horizon)
        cut = orjson.dumps(lists, option=_NUMPY).split(b"[")[2:]  # each list with `],` behind it, the last with `]]`
        parts = [repeat(b'{"unique_id":"'), texts(list(columns.unique_ids)), repeat(b'","ds":"'), times(columns.ds)]
        parts += [repeat(self._constant), [self._status[status] for status in columns.status.tolist()]]
        for number, name in enumerate(self._levels):
            parts += [repeat(name), cut[number::quantiles]]
        parts[-1] = [last[:-2] for last in parts[-1]]
        anomaly = columns.anomaly if columns.anomaly is not None else np.full(n, np.nan, np.float32)
        parts += [
            *(repeat(b']},"anomaly":'), numbers(anomaly)),
            *(repeat(b',"source":{"partition":'), numbers(columns.partitions)),
            *(repeat(b',"offset":'), numbers(columns.offsets)),
        ]
        if columns.revision is not None:
            parts += [repeat(b'},"revision":'), numbers(columns.revision), repeat(b"}")]
        else:
            parts += [repeat(b"}}")]
        values = list(map(b"".join, zip(*parts, strict=False)))  # constants repeat without end
        return [unique_id.encode() for unique_id in columns.unique_ids], values


def texts(texts: list[str]) -> list[bytes]:
    """Return texts as JSON writes them between quotes. Quotes inside are escaped, so `","` separates two texts."""
    return orjson.dumps(texts)[2:-2].split(b'","')


def numbers(array: AnyArray) -> list[bytes]:
    """Return numbers of one dimension as JSON writes them; NaN is null."""
    return orjson.dumps(array, option=_NUMPY)[1:-1].split(b",")


def times(ds: IntArray) -> list[bytes]:
    """Return times in RFC 3339 without the `Z`. The events of a poll mostly share a few times, each printed once."""
    each = ds.tolist()
    different = list(dict.fromkeys(each))
    texts = np.datetime_as_string(np.array(different, "datetime64[ms]")).astype("S").tolist()
    return list(map(dict(zip(different, texts, strict=True)).__getitem__, each))
