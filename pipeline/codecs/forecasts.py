"""Forecast records: what is in one, and which codecs write it.

Owns: the columns that every codec takes, and the choice among them. Does not know: a codec's bytes
(`forecasts_json`, `forecasts_msgpack`, `forecasts_float32`, `forecasts_avro`), nor where they go.
`pipeline.codecs.reader` reads them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from pipeline.arrays import FloatArray, IntArray, StatusArray
from pipeline.bundle import BundleMetadata, Status

Codec: TypeAlias = Literal["json", "msgpack", "float32", "avro"]
CODECS: Final[tuple[Codec, ...]] = get_args(Codec)
STATUS_NAMES: Final = tuple(status.name.lower() for status in Status)


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
        offsets: `(n,)` int64, of the event in the source; of a revision, of the event that caused it.
        revision: `(n,)` int32, how often the forecast of this stream and slot was revised; None where none can be, and
            then records do not speak of it.
    """

    unique_ids: Sequence[str]
    ds: IntArray
    status: StatusArray
    forecast: FloatArray
    anomaly: FloatArray | None
    partitions: IntArray
    offsets: IntArray
    revision: npt.NDArray[np.int32] | None = None

    def __len__(self) -> int:
        return len(self.unique_ids)

    def take(self, chosen: IntArray) -> ForecastColumns:
        """Return some of the rows, in the order of `chosen`."""
        return ForecastColumns(
            [self.unique_ids[row] for row in chosen.tolist()],
            self.ds[chosen],
            self.status[chosen],
            self.forecast[chosen],
            None if self.anomaly is None else self.anomaly[chosen],
            self.partitions[chosen],
            self.offsets[chosen],
            None if self.revision is None else self.revision[chosen],
        )

    def parts(self, rows: int) -> Iterator[ForecastColumns]:
        """Yield the same in parts of at most `rows` rows; the columns are views."""
        for first in range(0, len(self), rows):
            at = slice(first, first + rows)
            yield ForecastColumns(
                self.unique_ids[at],
                self.ds[at],
                self.status[at],
                self.forecast[at],
                None if self.anomaly is None else self.anomaly[at],
                self.partitions[at],
                self.offsets[at],
                None if self.revision is None else self.revision[at],
            )


class ForecastEncoder(Protocol):
    """Columns to records, keyed by stream id."""

    def encode(self, columns: ForecastColumns) -> tuple[list[bytes], list[bytes]]:
        """Return keys and values, one of each per row."""
        ...


def make_encoder(
    codec: Codec,
    metadata: BundleMetadata,
    decimals: int | None = None,
    schema_id: Callable[[], int] | None = None,
) -> ForecastEncoder:
    """Return the encoder of a codec.

    Args:
        codec: its name.
        metadata: of the model whose forecasts it writes.
        decimals: places after the point that are kept of each number, for the codecs that write text; None = all.
        schema_id: asks a registry for the id of the schema; Avro alone needs it.
    """
    from pipeline.codecs.forecasts_avro import AvroEncoder
    from pipeline.codecs.forecasts_float32 import Float32Encoder
    from pipeline.codecs.forecasts_json import JsonEncoder
    from pipeline.codecs.forecasts_msgpack import MsgpackEncoder

    if codec == "json":
        return JsonEncoder(metadata, decimals)
    if codec == "avro":
        if schema_id is None:
            raise ValueError("Avro records name their schema: schema_id has to be given")
        return AvroEncoder(metadata, schema_id)
    return MsgpackEncoder(metadata) if codec == "msgpack" else Float32Encoder(metadata)


def model_name(metadata: BundleMetadata) -> str:
    """Return what a record says of the model that made it."""
    return f"{metadata.name}@{metadata.model_id}"


def level_name(quantile: float) -> str:
    """Return how a record names a quantile: `0.1`."""
    return f"{quantile:g}"
