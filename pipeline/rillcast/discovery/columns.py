"""Records taken apart: every member, key, header and attribute as a column of values.

Owns: the columns, the names by which settings call them, and what kind of values each has. Does not know: which of them
is the stream, the time or the observation (`rillcast.discovery.fields`).
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from typing import Any, Final

import numpy as np

from rillcast.arrays import FloatArray
from rillcast.reading.paths import escaped
from rillcast.reading.refusals import RefusedValueError
from rillcast.reading.times import PER_MS, UNITS, Unit, read_time
from rillcast.reading.values import MISSING, read_id, read_number
from rillcast.transports.base import Polled

_MOST_COLUMNS: Final = 400
_MOST_DEPTH: Final = 8
_LIKELY_MS: Final = (631_152_000_000, 4_102_444_800_000)
"""1990 to 2100: the range by which a number tells its unit."""
_OWN_HEADERS: Final = ("content-type", "traceparent", "tracestate", "baggage")


class _Absent:
    """The value of a member that a record does not have."""


ABSENT: Final = _Absent()


@dataclass(frozen=True)
class Column:
    """A member, key, header or attribute in some records.

    Attributes:
        source: Its name, as `input.fields` has it.
        name: The last part of it, by which people call it.
        values: A value for each record; `ABSENT` where the record has none.
    """

    source: str
    name: str
    values: Sequence[Any] = field(repr=False)

    @cached_property
    def present(self) -> list[Any]:
        """The values that are not missing."""
        return [
            value
            for value in self.values
            if value is not ABSENT
            and value is not None
            and not (isinstance(value, str) and value.strip().lower() in MISSING)
        ]

    @property
    def share_present(self) -> float:
        """The share of records with a value."""
        return len(self.present) / max(1, len(self.values))

    @cached_property
    def numbers(self) -> FloatArray:
        """The values as numbers, NaN where one is none."""
        return np.array([_number(value) for value in self.present], np.float64)

    @property
    def is_numeric(self) -> bool:
        """Whether nearly all values are numbers."""
        return bool(self.present) and float(np.mean(~np.isnan(self.numbers))) >= 0.95

    @cached_property
    def is_whole(self) -> bool:
        """Whether all numbers are whole."""
        return self.is_numeric and bool(np.all(np.nan_to_num(self.numbers) % 1 == 0))

    @property
    def is_text(self) -> bool:
        """Whether most values are text."""
        texts = sum(isinstance(value, str | uuid.UUID) for value in self.present)
        return 2 * texts > len(self.present)

    @cached_property
    def ids(self) -> list[str | None]:
        """Each record's value as the id of a stream, None where it is none."""
        return [_id(value) for value in self.values]

    @cached_property
    def distinct(self) -> int:
        """The number of different ids."""
        return len(set(self.ids) - {None})

    @cached_property
    def time_unit(self) -> Unit | None:
        """The unit in which the numbers are times since 1990; `ms` for dates and times in text; None = no times."""
        if not self.present or any(isinstance(value, bool) for value in self.present):
            return None
        if any(isinstance(value, dt.date) for value in self.present):
            return "ms"
        if self.is_numeric:
            middle = float(np.nanmedian(self.numbers))
            for unit in UNITS:
                times, per = PER_MS[unit]
                if _LIKELY_MS[0] <= middle * times / per <= _LIKELY_MS[1] and self._share_of_times(unit) >= 0.95:
                    return unit
            return None
        return "ms" if self.is_text and self._share_of_times("ms") >= 0.95 else None

    def times(self, unit: Unit) -> list[int | None]:
        """Return each record's value in milliseconds since the epoch, None where it is no time."""
        return [_time(value, unit) for value in self.values]

    def _share_of_times(self, unit: Unit) -> float:
        some = self.present[:: max(1, len(self.present) // 500)]
        return float(np.mean([_time(value, unit) is not None for value in some]))


def of_members(records: Sequence[Any]) -> list[Column]:
    """Return a column for each member, also of objects within the record; one that is no object has no members."""
    found: dict[tuple[str, ...], list[Any]] = {}
    for row, record in enumerate(records):
        for path, value in _leaves(record):
            column = found.get(path)
            if column is None:
                if len(found) >= _MOST_COLUMNS:
                    continue
                column = found[path] = [ABSENT] * len(records)
            column[row] = value
    return [Column(_path(path), path[-1], values) for path, values in found.items()]


def of_context(polled: Polled, attributes: Sequence[Mapping[str, str]] | None) -> list[Column]:
    """Return a column for the key, the timestamp, each header, and each CloudEvents attribute.

    Args:
        polled: The records.
        attributes: Attributes of each record, if they are CloudEvents.
    """
    n = len(polled)
    columns = [Column("$key", "key", [ABSENT if key is None else key for key in polled.keys])]
    columns.append(Column("$timestamp", "timestamp", [t if t >= 0 else ABSENT for t in polled.timestamps_ms.tolist()]))
    headers: dict[str, list[Any]] = {}
    for row in range(n):
        for name, value in polled.headers(row):
            if value is not None and name.lower() not in _OWN_HEADERS and not name.startswith("ce_"):
                headers.setdefault(name, [ABSENT] * n)[row] = value
    columns += [Column(f"$header.{name}", name, values) for name, values in headers.items()]
    if attributes is not None:
        names = sorted({name for each in attributes for name in each} - {"id", "specversion", "datacontenttype"})
        for name in names:
            columns.append(Column(f"$ce.{name}", name, [each.get(name, ABSENT) for each in attributes]))
    for column in columns[:1] + columns[2:]:
        column.values[:] = [_decoded(value) for value in column.values]  # type: ignore[index]  # a list
    return columns


class InArray(str):
    """The step of a path to each element of an array: `readings[]`, or `[]` where the record is the array."""

    __slots__ = ()


def exploded(records: Sequence[Any]) -> tuple[list[Any], list[int]] | None:
    """Return a record for each element of the array of objects that most records have, and its row among the records.

    The element stands in its record as the member `name[]`. None = most records have no such array.
    """
    found = Counter(path for record in records for path in _arrays(record))
    if not found or found.most_common(1)[0][1] < 0.5 * len(records):
        return None
    path = found.most_common(1)[0][0]
    rows, numbers = list[Any](), list[int]()
    for number, record in enumerate(records):
        for element in _elements(record, path):
            rows.append(_with_element(record, path, element))
            numbers.append(number)
    return rows, numbers


def _arrays(record: Any, before: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if isinstance(record, list):
        return [before] if record and isinstance(record[0], Mapping) else []
    if not isinstance(record, Mapping) or len(before) >= _MOST_DEPTH:
        return []
    return [path for name, value in record.items() for path in _arrays(value, (*before, str(name)))]


def _elements(record: Any, path: tuple[str, ...]) -> list[Any]:
    for step in path:
        record = record.get(step) if isinstance(record, Mapping) else None
    return record if isinstance(record, list) else []


def _with_element(record: Any, path: tuple[str, ...], element: Any) -> dict[str, Any]:
    if not path:
        return {InArray("[]"): element}
    name, *rest = path
    own = {each: value for each, value in record.items() if each != name}
    if rest:
        return own | {name: _with_element(record[name], tuple(rest), element)}
    return own | {InArray(f"{escaped(name)}[]"): element}


def _leaves(record: Any, before: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    if not isinstance(record, Mapping):
        return []
    found: list[tuple[tuple[str, ...], Any]] = []
    for name, value in record.items():
        path = (*before, name if isinstance(name, InArray) else str(name))
        if isinstance(value, Mapping) and len(path) < _MOST_DEPTH:
            found += _leaves(value, path)
        elif not isinstance(value, list | Mapping):
            found.append((path, value))
    return found


def _path(path: Sequence[str]) -> str:
    return ".".join(step if isinstance(step, InArray) else escaped(step) for step in path)


def _decoded(value: Any) -> Any:
    """Return bytes as text; those that are none become absent."""
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode() or ABSENT
    except UnicodeDecodeError:
        return ABSENT


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal | str):
        return np.nan
    try:
        found = read_number(value)
    except RefusedValueError:
        return np.nan
    return np.nan if found is None else found


def _id(value: Any) -> str | None:
    if value is ABSENT or value is None:
        return None
    try:
        return read_id(value)
    except RefusedValueError:
        return None


def _time(value: Any, unit: Unit) -> int | None:
    if value is ABSENT or value is None or isinstance(value, bool):
        return None
    try:
        return read_time(value, unit)
    except RefusedValueError:
        return None
