"""The figures of some events: streams, cadence, lateness, repeats, gaps, zeros, partitions, rate.

Owns: the figures. Does not know: settings, models, how events were read.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from rillcast.arrays import FloatArray, IntArray
from rillcast.bundle.cadence import frequency_of, share_apart
from rillcast.bundle.frequency import parse
from rillcast.events import EventBatch

_STEPS: Final = 2
"""Steps between neighbours from which on a stream has a cadence of its own."""
_ALMOST_ALL: Final = 0.999


@dataclass(frozen=True, slots=True)
class Profile:
    """Figures of a sample; times in milliseconds.

    Attributes:
        events: Number of events.
        streams: Number of different ids.
        first_ms: Earliest event time.
        last_ms: Latest event time.
        frequency: Frequency of most streams that have one; None = no stream has two events at different times.
        frequencies: Share of the streams with a cadence, by their frequency, largest first.
        regular: Share of neighbours that are exactly one step of `frequency` apart, within streams of that frequency.
        step_ms: Median step between neighbours within a stream; 0 = unknown.
        repeated: Share of events with the same stream and time as an earlier one.
        late: Share of events older than the newest of their stream.
        lateness_ms: By how much all but one in a thousand of the late events are older.
        disorder_ms: By how much all but one in a thousand events are older than the newest of their partition.
        missing: Share of events without a value.
        zeros: Share of values that are 0.
        whole: Whether all values are whole numbers.
        negative: Whether some value is below 0.
        constant: The only value that there is; None = they differ.
        partitions: Number of partitions with events.
        streams_per_partition: Least and most streams of a partition.
        split: Number of streams with events in more than one partition.
        split_example: One of them; empty = none.
        events_per_s: Events per second by the records' timestamps, over all partitions; 0 = unknown.
    """

    events: int
    streams: int
    first_ms: int
    last_ms: int
    frequency: str | None
    frequencies: dict[str, float]
    regular: float
    step_ms: int
    repeated: float
    late: float
    lateness_ms: int
    disorder_ms: int
    missing: float
    zeros: float
    whole: bool
    negative: bool
    constant: float | None
    partitions: int
    streams_per_partition: tuple[int, int]
    split: int
    split_example: str
    events_per_s: float


def profile(events: EventBatch) -> Profile:
    """Return the figures of at least one event, given in the order of each partition."""
    names, codes = np.unique(np.array(events.unique_ids, dtype=object), return_inverse=True)
    codes = codes.astype(np.int64)
    ds, y, partitions = events.ds, events.y.astype(np.float64), events.partitions
    order = np.lexsort((ds, codes))
    same = np.diff(codes[order]) == 0
    later, before, owner = ds[order][1:][same], ds[order][:-1][same], codes[order][1:][same]
    apart = later > before
    frequency, shares, steady = _frequencies(later[apart], before[apart], owner[apart])
    late = _behind(codes, ds)
    owners = np.unique(np.stack([codes, partitions]), axis=1)
    split = np.flatnonzero(np.bincount(owners[0]) > 1)
    per_partition = np.unique(owners[1], return_counts=True)[1]
    values = y[~np.isnan(y)]
    return Profile(
        events=len(events),
        streams=len(names),
        first_ms=int(ds.min()),
        last_ms=int(ds.max()),
        frequency=frequency,
        frequencies=shares,
        regular=0.0
        if frequency is None
        else share_apart(later[apart][steady], before[apart][steady], parse(frequency)),
        step_ms=int(np.median((later - before)[apart])) if apart.any() else 0,
        repeated=float(np.count_nonzero(~apart)) / len(events),
        late=float(np.mean(late > 0)),
        lateness_ms=_nearly_all(late[late > 0]),
        disorder_ms=_nearly_all(_behind(partitions, ds)),
        missing=1 - values.size / len(events),
        zeros=float(np.mean(values == 0)) if values.size else 0.0,
        whole=bool(np.all(values % 1 == 0)),
        negative=bool(np.any(values < 0)),
        constant=float(values[0]) if values.size and values.min() == values.max() else None,
        partitions=len(per_partition),
        streams_per_partition=(int(per_partition.min()), int(per_partition.max())),
        split=int(split.size),
        split_example=str(names[split[0]]) if split.size else "",
        events_per_s=_rate(partitions, events.timestamps_ms),
    )


def repeated_periods(events: EventBatch, freq: str) -> float:
    """Return the share of events whose stream has an earlier one in the same period of a frequency."""
    periods = parse(freq).period_of(events.ds)
    return 1 - len(set(zip(events.unique_ids, periods.tolist(), strict=True))) / len(events)


def _frequencies(
    later: IntArray, before: IntArray, owner: IntArray
) -> tuple[str | None, dict[str, float], npt.NDArray[np.bool_]]:
    """Return the frequency of most streams, the share of streams of each, and which pairs are of streams of the first.

    All pairs are where no frequency is that of most streams.
    """
    every = np.ones(later.size, np.bool_)
    if not later.size:
        return None, {}, every
    of_stream: dict[int, str] = {}
    counts = Counter[str]()
    starts = np.flatnonzero(np.diff(owner, prepend=-1))
    for first, end in zip(starts, [*starts[1:], owner.size], strict=True):
        if end - first >= _STEPS and (found := frequency_of(later[first:end], before[first:end])) is not None:
            counts[found] += 1
            of_stream[int(owner[first])] = found
    if not counts:
        return frequency_of(later, before), {}, every
    total = counts.total()
    shares = {freq: count / total for freq, count in counts.most_common()}
    steady = next((freq for freq in shares if shares[freq] >= 0.5), None)
    if steady is None:
        return frequency_of(later, before), shares, every
    return steady, shares, np.isin(owner, [each for each, found in of_stream.items() if found == steady])


def _behind(groups: IntArray, ds: IntArray) -> IntArray:
    """Return by how much each event is older than the newest so far of its group, in the given order."""
    behind: IntArray = np.zeros(ds.size, np.int64)
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=groups[order[0]] - 1))
    for rows in np.split(order, starts[1:]):
        behind[rows] = np.maximum.accumulate(ds[rows]) - ds[rows]
    return behind


def _nearly_all(values: IntArray) -> int:
    return int(np.quantile(values, _ALMOST_ALL, method="higher")) if values.size else 0


def _rate(partitions: IntArray, timestamps_ms: IntArray | FloatArray | None) -> float:
    """Return events per second; a partition whose records all came within a second says nothing."""
    if timestamps_ms is None:
        return 0.0
    rate = 0.0
    for partition in np.unique(partitions).tolist():
        times = timestamps_ms[(partitions == partition) & (timestamps_ms >= 0)]
        if times.size > 1 and (span := int(times.max() - times.min())) >= 1_000:
            rate += (times.size - 1) * 1_000 / span
    return rate
