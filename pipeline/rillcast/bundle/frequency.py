"""Frequencies: which slot of time an event falls into, and when a slot begins.

A bundle forecasts at one frequency. Slots are counted from the epoch (UTC): by a step of fixed length, so that slot `k`
covers `[k * step, (k + 1) * step)` milliseconds, or by calendar months, so that slot `k` is the months from `k * step`
on since January 1970.

Owns: the spellings of a frequency and the arithmetic of its slots, once: the same lines run on Python's integers, on
arrays, and on the tensors of the graph, which brings its own division. Whole numbers from end to end: a float cannot
hold the time of an event. Does not know: seasons, the calendar's features, tensors.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, TypeVar

Whole = TypeVar("Whole")
"""Whole numbers: an `int`, an int64 array or an int64 tensor."""
Divide = Callable[[Any, int], Any]

DAY_MS: Final = 86_400_000
MONTH_MS: Final = 2_629_746_000
"""The mean month of the Gregorian calendar, in milliseconds."""
_UNIT_MS: Final = {"ms": 1, "s": 1_000, "min": 60_000, "h": 3_600_000, "d": DAY_MS, "w": 7 * DAY_MS}
_UNIT_MONTHS: Final = {"mo": 1, "q": 3, "y": 12}
_PANDAS: Final = {"MS": "mo", "ME": "mo", "QS": "q", "QE": "q", "YS": "y", "YE": "y"}  # in capitals: "ms" is another
_PATTERN: Final = re.compile(r"(\d{0,9})([A-Za-z]+)")
_ERA_DAYS: Final = 146_097  # 400 years
_ERA_MONTHS: Final = 4_800
_ERAS: Final = 1_000_000  # as many as make every day of an int64 time in milliseconds a number that is not negative
_EPOCH_DAY: Final = 719_468  # 1970-01-01, counted from 0000-03-01
_EPOCH_MONTH: Final = 23_638  # January 1970, counted from March of year 0


@dataclass(frozen=True, slots=True)
class Frequency:
    """The length of a slot.

    Attributes:
        step: milliseconds, or calendar months; at least 1.
        in_months: which of the two.
    """

    step: int
    in_months: bool = False

    @property
    def nominal_ms(self) -> int:
        """Length of a slot in milliseconds; of calendar months the mean one, for estimates alone."""
        return self.step * MONTH_MS if self.in_months else self.step

    def slot_of(self, time: Whole, floor: Divide = operator.floordiv, whole: Divide = operator.floordiv) -> Whole:
        """Return the slot that a time lies in.

        Args:
            time: milliseconds since the epoch, any that an int64 holds.
            floor: division that rounds down.
            whole: the same, of numbers that are not negative: a graph has a cheaper one for these.
        """
        slot: Whole
        if self.in_months:
            month = _month_of(floor(time, DAY_MS), whole)
            slot = month if self.step == 1 else floor(month, self.step)
        else:
            slot = floor(time, self.step)
        return slot

    def start_of(self, slot: Whole) -> Whole:
        """Return when a slot, an `int` or an array, begins: milliseconds since the epoch."""
        count: Any = slot
        started: Whole = _first_day(count * self.step) * DAY_MS if self.in_months else count * self.step
        return started

    def ahead(self, time: Any, slots: Any) -> Any:
        """Return when the slots begin that lie `slots` after those of `time`; either may be an array."""
        return self.start_of(self.slot_of(time) + slots)


@cache
def parse(freq: str) -> Frequency:
    """Return the frequency of a text, such as `1h`, `30min`, `1d` or `1mo`.

    Raises:
        ValueError: it is none; see `canonical`.
    """
    count, unit = _parts(freq)
    if unit in _UNIT_MONTHS:
        return Frequency(count * _UNIT_MONTHS[unit], in_months=True)
    return Frequency(count * _UNIT_MS[unit])


def canonical(freq: str) -> str:
    """Return the one spelling in which bundles and records name a frequency.

    That is a whole number and `ms`, `s`, `min`, `h`, `d`, `w` or `mo`. Understood are also a unit without a number,
    capitals, `q` and `y` (quarters and years, as polars has them), and pandas' `MS`, `ME`, `QS`, `QE`, `YS` and `YE`.

    Raises:
        ValueError: `freq` is not a positive whole number followed by a unit.
    """
    count, unit = _parts(freq)
    return f"{count * _UNIT_MONTHS[unit]}mo" if unit in _UNIT_MONTHS else f"{count}{unit}"


def _parts(freq: str) -> tuple[int, str]:
    match = _PATTERN.fullmatch(freq.strip())
    count, unit = (int(match[1] or 1), _PANDAS.get(match[2], match[2].lower())) if match else (0, "")
    if count <= 0 or (unit not in _UNIT_MS and unit not in _UNIT_MONTHS):
        raise ValueError(
            f"frequency {freq!r} is not a positive whole number and a unit (ms, s, min, h, d, w, mo), as in '30min', "
            "or '1mo' for calendar months"
        )
    return count, unit


def _month_of(day: Any, whole: Divide) -> Any:
    """Return the calendar month of a day, both counted from 1970.

    Howard Hinnant's `civil_from_days` (http://howardhinnant.github.io/date_algorithms.html), whose years begin in March
    so that the leap day comes last. Counted from a March long ago, no number but the day as it is given is negative.
    """
    day = day + (_ERAS * _ERA_DAYS + _EPOCH_DAY)
    era = whole(day, _ERA_DAYS)
    day = day - era * _ERA_DAYS  # of the era, 0 to 146,096
    year = whole(day - whole(day, 1_460) + whole(day, 36_524) - whole(day, 146_096), 365)  # of the era, 0 to 399
    day = day - (365 * year + whole(year, 4) - whole(year, 100))  # of the year, 0 to 365
    month = whole(5 * day + 2, 153)  # of the year, 0 = March
    return era * _ERA_MONTHS + year * 12 + month - (_ERAS * _ERA_MONTHS + _EPOCH_MONTH)


def _first_day(month: Any) -> Any:
    """Return the first day of a calendar month, both counted from 1970: Hinnant's `days_from_civil`."""
    month = month + _EPOCH_MONTH
    year = month // 12
    day = (153 * (month - 12 * year) + 2) // 5  # of the year
    return 365 * year + year // 4 - year // 100 + year // 400 + day - _EPOCH_DAY
