"""Forecast records as raw float32 after a header of fixed layout: the cheapest codec to write and to read.

The stream id is the record's key and not in its value. So every record of a model has the same size, numpy lays out a
whole batch at once, and a row costs one slice.

Owns: the layout (`layout`), which `docs/records.md` repeats.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from rillcast.bundle.bundle import BundleMetadata
from rillcast.codecs.forecasts.columns import ForecastColumns, OneRecord

MAGIC: Final = b"RCF1"
# Little-endian, packed: 64 bytes, the levels, the revision where forecasts are revised or steps are named,
# the steps where they are not simply the first ones (`values_at` shows both), and the values by horizon and level.
HEADER: Final = np.dtype(
    [
        ("magic", "S4"),
        ("values_at", "<u2"),  # offset of the values; later versions may add members before them
        ("horizon", "<u2"),
        ("levels", "<u2"),
        ("status", "i1"),  # rillcast.bundle.bundle.Status
        ("reserved", "u1"),
        ("partition", "<i4"),
        ("offset", "<i8"),
        ("ds", "<i8"),  # milliseconds since the epoch
        ("model_id", "S16"),
        ("freq", "S12"),
        ("anomaly", "<f4"),  # NaN = unknown
    ]
)


def layout(horizon: int, levels: int, *, revised: bool = False, steps: bool = False) -> np.dtype[Any]:
    """Return the type of a whole record; `revised` = with the number of its revision, `steps` = with its steps."""
    members: list[Any] = [("header", HEADER), ("quantiles", "<f4", (levels,))]
    if revised or steps:
        members.append(("revision", "<u4"))
    if steps:
        members.append(("steps", "<u2", (horizon,)))
    return np.dtype([*members, ("values", "<f4", (horizon, levels))])


class Float32Encoder(OneRecord):
    """Encodes columns as raw float32 records, keyed by stream id."""

    def __init__(self, metadata: BundleMetadata, steps: Sequence[int] | None = None) -> None:
        """Prepare the encoder; `steps` are named in records where they are not simply the first ones."""
        self._plain, self._revised = (_constants(metadata, steps, revised=revised) for revised in (False, True))

    def encode(self, columns: ForecastColumns) -> tuple[list[bytes], list[bytes]]:
        """Return keys and values, one of each per row."""
        constants = self._plain if columns.revision is None else self._revised
        n, size = len(columns), constants.itemsize
        block = np.full(n, constants)
        header = block["header"]
        header["status"] = columns.status
        header["partition"] = columns.partitions
        header["offset"] = columns.offsets
        header["ds"] = columns.ds
        header["anomaly"] = np.nan if columns.anomaly is None else columns.anomaly
        block["values"] = columns.forecast
        if columns.revision is not None:
            block["revision"] = columns.revision
        data = block.tobytes()
        values = [data[first : first + size] for first in range(0, n * size, size)]
        return [unique_id.encode() for unique_id in columns.unique_ids], values


def _constants(metadata: BundleMetadata, steps: Sequence[int] | None, *, revised: bool) -> np.ndarray[Any, Any]:
    """Return a record with all values that a model's records share."""
    levels = len(metadata.quantiles)
    kind = layout(metadata.horizon, levels, revised=revised, steps=steps is not None)
    constants = np.zeros((), kind)
    header = constants["header"]
    header["magic"] = MAGIC
    assert kind.fields is not None  # it is a record
    header["values_at"] = kind.fields["values"][1]
    header["horizon"] = metadata.horizon
    header["levels"] = levels
    header["model_id"] = metadata.model_id.encode()
    header["freq"] = metadata.freq.encode()
    constants["quantiles"] = metadata.quantiles
    if steps is not None:
        constants["steps"] = steps
    return constants
