"""Pages: the state of some streams as rows, exported from the engine or loaded into it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from rillcast.arrays import AnyArray, IntArray
from rillcast.bundle.bundle import StateSpec


@dataclass(frozen=True, slots=True)
class Page:
    """The state of some streams of one partition.

    Attributes:
        partition: Partition of the input.
        number: Number of the page within its partition, from 0.
        offset: Input position up to which the page is current: it contains all events below.
        unique_ids: `n` stream ids in slot order, at most `PAGE_SLOTS`; "" = the slot is free.
        last_ds: `(n,)` int64, time of each stream's newest event in milliseconds.
        rows: By name of the state, `(n, *row_shape)`.
    """

    partition: int
    number: int
    offset: int
    unique_ids: tuple[str, ...]
    last_ds: IntArray
    rows: Mapping[str, AnyArray]


class Arrivals(NamedTuple):
    """New streams of a partition in the last second that brought any, by the records' timestamps.

    Attributes:
        second: The second, counted from the epoch.
        streams: Number of new streams in it.
    """

    second: int = 0
    streams: int = 0


class Silence(NamedTuple):
    """The decision that a partition's time goes on although it is silent (`input.idle_s`).

    It was taken by the wall clock once; whoever steps the partition again takes it from here.

    Attributes:
        position: Input position at which it was taken: behind all events below it, and before the others.
        watermark_ms: The event time that the partition has reached by it, in milliseconds since the epoch.
    """

    position: int
    watermark_ms: int


def page_column(name: str, dtype: str, row_shape: tuple[int, ...]) -> StateSpec:
    """Return the type of a column that a page has in addition, under a name that no bundle's state can have.

    Raises:
        ValueError: No state could have this type or shape.
    """
    return StateSpec(name="column", dtype=dtype, row_shape=row_shape).model_copy(update={"name": name})


def is_additional(name: str) -> bool:
    """Return whether a column of a page is none of the bundle's states: only those have names without a dot."""
    return "." in name
