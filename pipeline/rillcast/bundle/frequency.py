"""Frequencies: in which period an event lies, and when a period begins.

A bundle forecasts at one frequency. Periods are numbered from the epoch (UTC). With a step of fixed length, period `k`
covers `[k * step, (k + 1) * step)` milliseconds. With calendar months, period `k` begins `k * step` months after
January 1970.

Owns: the spellings of a frequency and the arithmetic of its periods. The same lines run on Python integers, on arrays
and on tensors of the graph, which passes its own division. All numbers are whole: a float cannot hold an event's time.
Does not know: seasons, the calendar's features, tensors.
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
"""Length of the mean Gregorian month in milliseconds."""
_UNIT_MS: Final = {"ms": 1, "s": 1_000, "min": 60_000, "h": 3_600_000, "d": DAY_MS, "w": 7 * DAY_MS}
_UNIT_MONTHS: Final = {"mo": 1, "q": 3, "y": 12}
_PANDAS: Final = {
    "MS": "mo",
    "ME": "mo",
    "QS": "q",
    "QE": "q",
    "YS": "y",
    "YE": "y",
}  # in capitals: "ms" means milliseconds
_PATTERN: Final = re.compile(r"(\d{0,9})([A-Za-z]+)")
_ERA_DAYS: Final = 146_097  # 400 years
_ERA_MONTHS: Final = 4_800
_ERAS: Final = 1_000_000  # enough to make every day of an int64 time in milliseconds non-negative
_EPOCH_DAY: Final = 719_468  # 1970-01-01, counted from 0000-03-01
_EPOCH_MONTH: Final = 23_638  # January 1970, counted from March of year 0


@dataclass(frozen=True, slots=True)
class Frequency:
    """The length of a period.

    Attributes:
        step: Length in milliseconds or calendar months, at least 1.
        in_months: Whether `step` counts calendar months.
    """

    step: int
    in_months: bool = False

    @property
    def nominal_ms(self) -> int:
        """Length of a period in milliseconds. For calendar months it is the mean length, fit for estimates only."""
        return self.step * MONTH_MS if self.in_months else self.step

    def period_of(self, time: Whole, floor: Divide = operator.floordiv, whole: Divide = operator.floordiv) -> Whole:
        """Return the number of the period in which a time lies.

        Args:
            time: Milliseconds since the epoch, any value of an int64.
            floor: Division that rounds down.
            whole: Division of numbers that are not negative; a graph has a cheaper operator for these.
        """
        period: Whole
        if self.in_months:
            month = _month_of(floor(time, DAY_MS), whole)
            period = month if self.step == 1 else floor(month, self.step)
        else:
            period = floor(time, self.step)
        return period

    def start_of(self, period: Whole) -> Whole:
        """Return when a period, an `int` or an array, begins: milliseconds since the epoch."""
        count: Any = period
        started: Whole = _first_day(count * self.step) * DAY_MS if self.in_months else count * self.step
        return started

    def ahead(self, time: Any, periods: Any) -> Any:
        """Return when the period begins that lies `periods` after that of `time`; either may be an array."""
        return self.start_of(self.period_of(time) + periods)


@cache
def parse(freq: str) -> Frequency:
    """Return the frequency that a text such as `1h`, `30min`, `1d` or `1mo` names.

    Raises:
        ValueError: The text names no frequency; see `canonical`.
    """
    count, unit = _parts(freq)
    if unit in _UNIT_MONTHS:
        return Frequency(count * _UNIT_MONTHS[unit], in_months=True)
    return Frequency(count * _UNIT_MS[unit])


def canonical(freq: str) -> str:
    """Return the one spelling that bundles and records use for a frequency.

    It is a whole number and `ms`, `s`, `min`, `h`, `d`, `w` or `mo`. The function also reads a unit without a number,
    capitals, `q` and `y` (quarters and years, as in polars), and pandas' `MS`, `ME`, `QS`, `QE`, `YS` and `YE`.

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

    Source: Howard Hinnant's `civil_from_days` (http://howardhinnant.github.io/date_algorithms.html). Its years begin in
    March, so that the leap day comes last. The count starts at a March long ago, so only the given day can be negative.
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
