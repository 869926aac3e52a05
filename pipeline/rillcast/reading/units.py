"""Doubts about the unit of times: seconds read as milliseconds, years, row numbers.

A wrong unit loses nothing that can be seen: all events of a stream fall into one period, and all but the first count as
repeated. So times that are unlikely are named before they are used.

Owns: which times are unlikely, and the unit that is likely. Does not know: how a caller refuses or warns.
"""

from __future__ import annotations

import datetime as dt
from typing import Final

from rillcast.reading.times import is_date_number

_MINUTE_MS: Final = 60_000
_YEAR_MS: Final = 366 * 86_400_000
_LEAST: Final = 10
_HOURS: Final = 24
_YEARS: Final = (1_900, 2_200)
_SECONDS: Final = (631_152_000, 4_102_444_800)
"""1990 to 2100 in seconds since the epoch."""
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def doubt(first_ms: int, last_ms: int, events: int, streams: int, periods: int | None, remedy: str) -> str | None:
    """Return why the times of some events are unlikely, and what helps; None if they are not.

    Args:
        first_ms: Earliest time.
        last_ms: Latest time.
        events: Number of events.
        streams: Number of streams.
        periods: Number of different pairs of stream and period; None = the length of a period is unknown.
        remedy: Option that names the unit, such as `--time-unit`.
    """
    repeated = 0 if periods is None else events - periods
    early = first_ms >= 0 and last_ms < _YEAR_MS
    if events < 2:
        return None
    if early and last_ms < _MINUTE_MS:
        why = f"all {events:,} times lie within a minute of 1970-01-01"
    elif early and 2 * repeated > events:
        why = f"all {events:,} times lie in 1970, and {repeated:,} events repeat a period of their stream"
    elif early and periods is None and _unlikely(first_ms, last_ms, events):
        why = f"all {events:,} times lie between {_text(first_ms)} and {_text(last_ms)}"
    elif events >= _LEAST and periods == streams and events >= 2 * streams:
        return (
            f"all {events:,} events of {streams:,} {'stream' if streams == 1 else 'streams'} repeat one period each "
            f"({_text(first_ms)} to {_text(last_ms)}): is the unit of the times wrong ({remedy} s, ms, us or ns), or "
            f"the frequency?"
        )
    else:
        return None
    if (unit := likely(first_ms, last_ms)) == "dates":
        return f"{why}; they may be dates and hours without separators: write them as 2024-05-31T23:00"
    if unit == "s":
        then = f"{_text(first_ms * 1_000)} and {_text(last_ms * 1_000)}"
        return f"{why}; as seconds they would lie between {then}: {remedy} s"
    if unit == "years":
        return f"{why}; they may be years: write them as dates, such as {first_ms}-01-01"
    return f"{why}: row numbers, or another unit? Give times as ISO 8601 or since the epoch ({remedy} s, ms, us or ns)"


def likely(first_ms: int, last_ms: int) -> str | None:
    """Return what numbers that were read as milliseconds probably are: `s`, `dates`, `years`, `numbers`, or None."""
    if _YEARS[0] <= first_ms and last_ms <= _YEARS[1]:
        return "years"
    if all(is_date_number(one // 100) and one % 100 < _HOURS for one in (first_ms, last_ms)):
        return "dates"
    if _SECONDS[0] <= first_ms and last_ms <= _SECONDS[1]:
        return "s"
    if first_ms >= 0 and last_ms < _MINUTE_MS:
        return "numbers"
    return None


def _unlikely(first_ms: int, last_ms: int, events: int) -> bool:
    """Whether times of 1970 are probably in another unit, where the length of a period is unknown."""
    return likely(first_ms, last_ms) == "s" or (events >= _LEAST and last_ms - first_ms < _MINUTE_MS)


def _text(milliseconds: int) -> str:
    return f"{_EPOCH + dt.timedelta(milliseconds=milliseconds):%Y-%m-%dT%H:%M:%SZ}"
