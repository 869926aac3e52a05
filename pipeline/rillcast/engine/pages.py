"""Pages: the state of some streams as rows, on its way out of the engine or back in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from rillcast.arrays import AnyArray, IntArray


@dataclass(frozen=True, slots=True)
class Page:
    """The state of some streams of one partition.

    Attributes:
        partition: of the input.
        number: of the page within its partition, from 0.
        offset: input position up to which the page is current: events below it are in it.
        unique_ids: `n` stream ids, n at most `PAGE_SLOTS`, in slot order; "" = the slot is free.
        last_ds: `(n,)` int64, event time of each stream's newest event, milliseconds.
        rows: by name of the state, `(n, *row_shape)`.
    """

    partition: int
    number: int
    offset: int
    unique_ids: tuple[str, ...]
    last_ds: IntArray
    rows: Mapping[str, AnyArray]


class Arrivals(NamedTuple):
    """How many new streams a partition took in the last second that brought any, by the records' timestamps.

    Attributes:
        second: since the epoch.
        streams: taken in it.
    """

    second: int = 0
    streams: int = 0
