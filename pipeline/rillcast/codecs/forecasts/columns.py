"""The columns that every forecast codec takes, and the names that records use. Does not know a codec's bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from rillcast.arrays import FloatArray, IntArray, StatusArray
from rillcast.bundle.bundle import BundleMetadata, Status

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


def model_name(metadata: BundleMetadata) -> str:
    """Return what a record says of the model that made it."""
    return f"{metadata.name}@{metadata.model_id}"


def level_name(quantile: float) -> str:
    """Return how a record names a quantile: `0.1`."""
    return f"{quantile:g}"
