"""The columns that every forecast codec encodes, and the names in its records.

Owns: the columns, the interface of an encoder, the names of statuses, models and levels.
Does not know: the bytes of a codec.
"""

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
    """Forecasts to encode; row `i` of each column belongs to one record.

    Attributes:
        unique_ids: The stream ids.
        ds: `(n,)` int64, event time in milliseconds since the epoch, the origin of the forecast.
        status: `(n,)` int8, `Status`.
        forecast: `(n, H, Q)` float32.
        anomaly: `(n,)` float32, NaN = unknown; None where the bundle has no such output.
        partitions: `(n,)` int64, partition of the event in the source.
        offsets: `(n,)` int64, offset of the event in the source; for a revision, of the event that caused it.
        revision: `(n,)` int32, how often the forecast of this stream and period was revised; None where forecasts are
            never revised, and records then have no such member.
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
        """Yield the rows in parts of at most `rows`; the columns are views."""
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
    """Encodes columns as records."""

    @property
    def records_per_forecast(self) -> int:
        """Number of records that each row of the columns becomes."""
        ...

    def encode(self, columns: ForecastColumns) -> tuple[list[bytes], list[bytes]]:
        """Return keys and values, `records_per_forecast` of each per row, in the order of the rows."""
        ...

    def whole(self, columns: ForecastColumns, values: list[bytes]) -> list[bytes]:
        """Return one record per row that `decode_forecast` reads; `values` are those that `encode` returned."""
        ...


class OneRecord:
    """The part of an encoder that writes one record per forecast."""

    records_per_forecast: Final = 1

    def whole(self, columns: ForecastColumns, values: list[bytes]) -> list[bytes]:  # noqa: ARG002  they have it all
        """See `ForecastEncoder.whole`."""
        return values


def model_name(metadata: BundleMetadata) -> str:
    """Return the name of a model in records: `NAME@MODEL_ID`."""
    return f"{metadata.name}@{metadata.model_id}"


def level_name(quantile: float) -> str:
    """Return the name of a quantile level in records, such as `0.1`."""
    return f"{quantile:g}"
