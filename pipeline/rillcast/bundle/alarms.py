"""What a bundle says of alarms, and how many are wanted.

Owns: the names of the graph's input and output, the meaning of the output's columns, and the conversion of a budget.
Does not know: how a graph finds an alarm, or who reads its records.
"""

from __future__ import annotations

import datetime as dt
from typing import Final

import numpy as np

from rillcast.arrays import FloatArray
from rillcast.bundle.frequency import DAY_MS, Frequency
from rillcast.rate import NEVER, days_between

ALARM: Final = "alarm"
ALARM_INTERVAL: Final = "alarm_interval"
ALARM_COLUMNS: Final = ("phase", "kind", "strength", "age", "calm", "expected", "observed", "level")
"""Columns of the output `alarm`; all are 0 where the stream has no alarm.

`phase` is 1 where an alarm opens, 2 while it is open, 3 where it closes. `kind` is a number of `KINDS`, negative where
the direction is down. `strength` and `level` are return periods in periods of the bundle. `age` counts the periods
since the alarm opened, and `calm` those since the last evidence."""
KINDS: Final = {1: "spike", 2: "level shift", 3: "drift", 4: "variance", 5: "flat line", 6: "silence"}
OPENS: Final = 1
CLOSES: Final = 3
CHANGES: Final = {OPENS: "opened", CLOSES: "closed"}
"""By `phase`, the changes of an alarm."""
ONE_A_WEEK: Final = "1/week"
LONGEST_SILENCE: Final = 1_000_000
LEAST_SLOTS: Final = 50
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MILLISECOND: Final = dt.timedelta(milliseconds=1)
_CRITICAL: Final = 10  # times the level
_LASTING: Final = 10  # periods
_SIDED: Final = ("spike", "level shift", "drift")


def slots_per_alarm(rate: str, frequency: Frequency) -> float:
    """Return the periods in which one alarm a stream is wanted.

    It is at least `LEAST_SLOTS`: a stream of weeks cannot have a well-founded alarm each week. 0 = no alarm is wanted.

    Args:
        rate: As `1/week` or `0.5/day`, or one of `NEVER`.
        frequency: Length of a period.

    Raises:
        ValueError: `rate` is no such text.
    """
    if rate.strip() in NEVER:
        return 0.0
    return max(LEAST_SLOTS, days_between(rate) * DAY_MS / frequency.nominal_ms)


def described(alarm: FloatArray, ds: int, frequency: Frequency) -> dict[str, object]:
    """Return what one row of the output `alarm` says of the alarm, as members of its record.

    Args:
        alarm: `[8]`, of an event at which the stream has an alarm.
        ds: Time of the event in milliseconds since the epoch.
        frequency: The bundle's.
    """
    figures = dict(zip(ALARM_COLUMNS, alarm, strict=True))
    period, age, calm = frequency.period_of(ds), round(float(figures["age"])), round(float(figures["calm"]))
    kind = KINDS[abs(round(float(figures["kind"])))]
    if kind == "spike" and age - calm >= _LASTING:
        kind = "level shift"  # the value has not come back
    direction = ("down" if figures["kind"] < 0 else "up") if kind in _SIDED else None
    return {
        "kind": kind,
        "direction": direction,
        "severity": "critical" if figures["strength"] >= _CRITICAL * figures["level"] else "warning",
        "strength": _shortest(figures["strength"]),
        "first": time_text(frequency.start_of(period - age)),
        "last": time_text(frequency.start_of(period - calm)),
        "expected": _shortest(figures["expected"]),
        "observed": _shortest(figures["observed"]),
    }


def time_text(ds: int) -> str:
    """Return a time in milliseconds since the epoch as RFC 3339 text."""
    return (_EPOCH + ds * _MILLISECOND).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _shortest(number: np.float32) -> float:
    """Return the float whose shortest text is that of a float32: 0.1 and not 0.10000000149011612."""
    return float(str(number))
