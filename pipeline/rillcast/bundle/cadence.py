"""The frequency of events: how far neighbours are apart, with or without jitter.

Owns: which frequency some steps have. Does not know: where events come from, which frequencies a model has.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from rillcast.arrays import IntArray
from rillcast.bundle.frequency import DAY_MS, Frequency, canonical, parse

_UNITS: Final = (("w", 7 * DAY_MS), ("d", DAY_MS), ("h", 3_600_000), ("min", 60_000), ("s", 1_000), ("ms", 1))
USUAL: Final = {
    parse(freq).nominal_ms: canonical(freq)
    for freq in (
        *("1ms", "10ms", "100ms", "1s", "2s", "5s", "10s", "15s", "20s", "30s"),
        *("1min", "2min", "5min", "10min", "15min", "20min", "30min", "1h", "2h", "3h", "4h", "6h", "8h", "12h"),
        *("1d", "1w", "1mo", "3mo", "6mo", "12mo"),
    )
}
"""Usual frequencies by their length in milliseconds."""
_REGULAR: Final = 0.5  # share of steps from which on they have no jitter
_NEAR: Final = 1.2  # ratio up to which a usual frequency is near
_MONTH: Final = Frequency(1, in_months=True)


def frequency_of(ds: IntArray, before: IntArray) -> str | None:
    """Return the step between neighbours; None where no two of them are at different times.

    It is the most frequent one: in calendar months if at least as many neighbours are that far apart as are a fixed
    step apart, else in the largest unit that divides it. Where most steps differ from it and it is no usual frequency,
    the steps have jitter: the usual frequency next to their median is taken, if there is one near.
    """
    if not (ds > before).any():
        return None
    usual = _most_frequent((ds - before)[ds > before])
    apart = _MONTH.period_of(ds) - _MONTH.period_of(before)
    if (apart > 0).any():
        months = _most_frequent(apart[apart > 0])
        in_months = Frequency(months, in_months=True)
        if share_apart(ds, before, in_months) >= share_apart(ds, before, Frequency(usual)):
            return f"{months}mo"
    if usual not in USUAL and share_apart(ds, before, Frequency(usual)) < _REGULAR:
        median = float(np.median((ds - before)[ds > before]))
        nearest = min(USUAL, key=lambda length: abs(math.log(length / median)))
        if abs(math.log(nearest / median)) < math.log(_NEAR):
            return USUAL[nearest]
    unit, length = next((unit, length) for unit, length in _UNITS if usual % length == 0)
    return f"{usual // length}{unit}"


def jitter(steps: IntArray, frequency: Frequency) -> int:
    """Return the mean deviation in milliseconds of the steps that are nearest to one period."""
    if frequency.in_months:
        return 0
    off = np.abs(steps - frequency.step)
    single = off < frequency.step / 2
    return round(float(off[single].mean())) if single.any() else 0


def _most_frequent(steps: IntArray) -> int:
    """Return the most frequent of some numbers; the smallest in a tie."""
    values, counts = np.unique(steps, return_counts=True)
    return int(values[counts.argmax()])


def share_apart(ds: IntArray, before: IntArray, frequency: Frequency) -> float:
    """Return the share of neighbours that are one step apart."""
    if not ds.size:
        return 0.0
    if not frequency.in_months:
        return float(np.mean(ds - before == frequency.step))
    month, earlier = _MONTH.period_of(ds), _MONTH.period_of(before)
    a_step = month - earlier == frequency.step
    from_start, from_end = (
        ds - _MONTH.start_of(month + end) == before - _MONTH.start_of(earlier + end) for end in (0, 1)
    )
    # The same end for all pairs: otherwise steps of 31 days would pass as months.
    return float(max(np.mean(a_step & from_start), np.mean(a_step & from_end)))
