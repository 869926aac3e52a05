"""Usual seasons and horizons by frequency.

Owns: which cycles a stream of some frequency is likely to have, in periods, and how far ahead is usual. Does not know:
experts.
"""

from __future__ import annotations

from typing import Final

from rillcast.bundle.frequency import Frequency, parse

_MINUTE: Final = 60_000
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR
_WEEK: Final = 7 * _DAY
_YEAR: Final = 31_556_952_000  # the mean Gregorian year, in milliseconds
_MONTHS: Final = 12


def default_seasons(freq: str) -> tuple[int, ...]:
    """Return one or two seasons in periods, rounded: the hour, the day, the week or the year, by frequency."""
    frequency = parse(freq)
    periods = sorted({max(1, round(cycle / frequency.step)) for cycle in _cycles(frequency)})
    longer_than_a_slot = tuple(length for length in periods if length > 1)
    return longer_than_a_slot or (1,)


def default_horizon(freq: str) -> int:
    """Return the usual number of periods ahead: 60 below a minute, 48 below a day, 30 days, 13 weeks, 18 months, ..."""
    frequency = parse(freq)
    if frequency.in_months:
        return 18 if frequency.step == 1 else 8 if frequency.step <= 3 else 6
    limits = ((_MINUTE, 60), (_DAY, 48), (_WEEK, 30))
    return next((horizon for limit, horizon in limits if frequency.step < limit), 13)


def _cycles(frequency: Frequency) -> tuple[int, ...]:
    step = frequency.step
    if frequency.in_months:
        return (_MONTHS,)
    if step < _MINUTE:
        return (_HOUR,)
    if step < 5 * _MINUTE:
        return (_HOUR, _DAY)
    if step < _DAY:
        return (_DAY, _WEEK)
    return (_WEEK, _YEAR) if step < _WEEK else (_YEAR,)
