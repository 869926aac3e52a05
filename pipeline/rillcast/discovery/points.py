"""How much a column looks like the stream, the time or the observation of a record.

A column gets points for its name (`rillcast.discovery.words`) and for its values.

Owns: the points, and what speaks for them in words. Does not know: which column is chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from rillcast.arrays import IntArray
from rillcast.discovery.columns import Column
from rillcast.discovery.words import (
    ID_NAMES,
    ID_WORDS,
    NO_ID_WORDS,
    NO_VALUE_WORDS,
    OTHER_TIME_WORDS,
    TIME_NAMES,
    TIME_WORDS,
    VALUE_NAMES,
    VALUE_WORDS,
    bare,
)
from rillcast.discovery.words import words as words_of

_FEW: Final = 20
"""Records below which it says little that a value comes once only."""


class Scored(NamedTuple):
    """A column, its points, and what speaks for it."""

    column: Column
    points: float
    reasons: tuple[str, ...]


def as_time(column: Column, stamps: Column | None, partitions: IntArray) -> Scored | None:
    """Return the points of a column as the time of the event; None = it cannot be.

    Args:
        column: The column.
        stamps: The records' own timestamps.
        partitions: `(n,)` the partition of each record.
    """
    unit = column.time_unit
    if unit is None or column.source == "$key" or column.share_present < 0.9:
        return None
    name, words = bare(column.name), words_of(column.name)
    if column.source == "$timestamp":
        return Scored(column, 1.0, ("the record's own timestamp, since no member looks like a time",))
    points, reasons = 0.0, []
    if name in TIME_NAMES:
        points += 3 - 0.05 * TIME_NAMES.index(name)
        reasons.append("its name")
    elif words & TIME_WORDS:
        points += 2.2
        reasons.append("its name")
    if words & OTHER_TIME_WORDS:
        points -= 1.0
    if not column.is_numeric:
        points += 2.0
        reasons.append("it is a date and time in text")
    else:
        reasons.append(f"its numbers are times in {unit}")
        points += 0.5 if unit != "s" else 0.0  # other numbers seldom have 13 digits or more, and begin like a time
    times = column.times(unit)
    if column.is_numeric and stamps is not None and _near(times, stamps):
        points += 1.5
        reasons.append("they lie near the records' timestamps")
    if len(set(times)) <= 1 and len(times) >= _FEW:
        points -= 2.0
    if _share_rising(times, partitions) >= 0.9:
        points += 0.7
        reasons.append("it rises")
    if column.source.startswith("$"):
        points -= 0.5
    return Scored(column, points, tuple(reasons))


def as_id(column: Column, key: Column | None, columns: Sequence[Column]) -> Scored | None:
    """Return the points of a column as the id of the stream; None = it cannot be.

    Args:
        column: The column.
        key: The records' keys.
        columns: All columns; of two with the same points, the first is more likely.
    """
    known = [unique_id for unique_id in column.ids if unique_id is not None]
    words, name = words_of(column.name), bare(column.name)
    named = name in ID_NAMES or bool(words & ID_WORDS)
    if not known or len(known) < 0.9 * len(column.ids) or not _may_be_id(column, named=named):
        return None
    points, reasons = 0.0, list[str]()
    if name in ID_NAMES:
        points += 3 - 0.05 * ID_NAMES.index(name)
    elif named:
        points += 1.5 if words & NO_ID_WORDS else 2.0
    elif words & NO_ID_WORDS:
        points -= 1.5
    if named:
        reasons.append("its name")
    if column.source == "$key":
        points, reasons = 1.2, ["the records are keyed by it"]
    elif column.source.startswith("$header"):
        points -= 0.7
    elif key is not None and key.present and _share_equal(column, key) >= 0.99:
        points += 3.0
        reasons.append("it is the key of the records")
    repeats, reason = _repeats(len(known), column.distinct)
    if float(np.mean([len(unique_id) for unique_id in known[:200]])) > 64:
        points -= 2.0
    position = next((at for at, each in enumerate(columns) if each is column), 0)
    return Scored(column, points + repeats - 0.001 * position, (*reasons, *reason) or ("it is text",))


def _may_be_id(column: Column, *, named: bool) -> bool:
    if column.time_unit is not None and not named:
        return False
    if column.is_numeric:
        named = named and not words_of(column.name) & VALUE_WORDS
        return column.is_whole and (named or column.source == "$key")
    return True


def _repeats(n: int, distinct: int) -> tuple[float, tuple[str, ...]]:
    """Return points for how often an id comes again: one that never does is that of an event."""
    if n >= _FEW and distinct == n:
        return -6.0, ()
    if n >= _FEW and distinct > 0.9 * n:
        return -2.0, ()
    if distinct > 1:
        return 0.5, (f"{distinct:,} different ones in {n:,} records",)
    return -0.8, ()


def as_value(column: Column, partitions: IntArray) -> Scored | None:
    """Return the points of a column as the observation; None = it cannot be.

    Args:
        column: The column.
        partitions: `(n,)` the partition of each record.
    """
    if not column.is_numeric or column.share_present < 0.05:
        return None
    name, words = bare(column.name), words_of(column.name)
    points, reasons = 0.0, list[str]()
    if name in VALUE_NAMES:
        points += 3 - 0.05 * VALUE_NAMES.index(name)
        reasons.append("its name")
    elif words & VALUE_WORDS and not words & NO_VALUE_WORDS:
        points += 1.5
        reasons.append("its name")
    if words & NO_VALUE_WORDS:
        points -= 2.5
    if column.time_unit is not None:
        points -= 2.0
    if not column.is_whole:
        points += 1.0
        reasons.append("it has fractions")
    if column.share_present < 0.5:
        points -= 1.0
    numbers = column.numbers
    if numbers.size >= _FEW and np.nanmax(numbers) == np.nanmin(numbers):
        points -= 1.5
    elif _is_sequence(column, partitions):
        points -= 3.0
    return Scored(column, points, tuple(reasons) or ("it is a number that changes",))


def _near(times: Sequence[int | None], stamps: Column) -> bool:
    apart = [
        abs(time - stamp)
        for time, stamp in zip(times, stamps.values, strict=True)
        if time is not None and isinstance(stamp, int)
    ]
    return bool(apart) and float(np.median(apart)) < 30 * 86_400_000


def _share_rising(times: Sequence[int | None], partitions: IntArray) -> float:
    known = np.array([0 if time is None else time for time in times], np.int64)
    same = np.diff(partitions) == 0
    return float(np.mean(np.diff(known)[same] >= 0)) if same.any() else 0.0


def _share_equal(column: Column, other: Column) -> float:
    return float(np.mean([a is not None and a == b for a, b in zip(column.ids, other.ids, strict=True)]))


def _is_sequence(column: Column, partitions: IntArray) -> bool:
    """Whether the numbers count the records: each is greater than the one before by one step."""
    numbers = np.array([np.nan if value is None else float(value) for value in map(_whole, column.values)])
    steps = np.diff(numbers)[np.diff(partitions) == 0]
    steps = steps[~np.isnan(steps)]
    return steps.size >= _FEW and bool(np.all(steps == steps[0])) and float(steps[0]) > 0


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
