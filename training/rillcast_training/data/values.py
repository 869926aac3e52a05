"""Columns of a table to ids, times, numbers, categories and lists, many at a time.

The usual forms are read by expressions of polars over a whole column. All others, and every refusal, go through
`rillcast.reading`, the one definition of the forms; `tests/property/test_readers_agree.py` holds both equal.

Owns: which cells an expression may read, and the message that names a bad cell. Does not know: files, roles of columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeVar

import polars as pl

from rillcast.errors import DataError
from rillcast.reading.refusals import Cause, RefusedValueError, shown
from rillcast.reading.times import MAX_DS_MS, MIN_DS_MS, PER_MS, read_time
from rillcast.reading.values import MAX_ABS, NUMBER, read_category, read_id, read_number, read_numbers
from rillcast_training.data.files import Column

_CLOCK: Final = r"[T ](?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?"
_OFFSET: Final = r"(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])?"
_USUAL_TIME: Final = rf"^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}(?:{_CLOCK}{_OFFSET})?$"
_FORMAT: Final = "%Y-%m-%dT%H:%M:%S%.f%z"
_DATE_NUMBERS: Final = (19_000_101, 22_001_231)
_REMEDIES: Final[Mapping[Cause, str]] = {"decimal": "use --decimal ,", "unit": "name the unit with --time-unit"}
_Value = TypeVar("_Value")


class Reader:
    """Reads the columns of one table."""

    def __init__(self, source: str, place: Callable[[int], str], unit: str, decimal: str) -> None:
        """Remember the arguments.

        Args:
            source: Name of the table, for messages.
            place: Says where a row stands.
            unit: Unit of times that are numbers.
            decimal: Decimal sign of numbers that are text.
        """
        self._source, self._place, self._unit, self._decimal = source, place, unit, decimal

    def ids(self, name: str, column: Column) -> pl.Series:
        """Return ids (String).

        Raises:
            DataError: A cell is no id.
        """
        column = _text_of_enum(column)
        if isinstance(column, pl.Series) and column.dtype.is_integer():
            column = column.cast(pl.String)
        if isinstance(column, pl.Series) and column.dtype == pl.String:
            return self._rest(name, column, column, column.is_null() | (column == ""), read_id)
        return pl.Series(name, self._each(name, column, read_id), pl.String)

    def times(self, name: str, column: Column) -> pl.Series:
        """Return milliseconds since the epoch (Int64).

        Raises:
            DataError: A cell is no time.
        """
        read = partial(read_time, unit=self._unit)
        if not isinstance(column, pl.Series) or not _has_times(column):
            return pl.Series(name, self._each(name, column, read), pl.Int64)
        if column.dtype == pl.String:
            found = column.to_frame().select(pl.coalesce(_of_numbers(column, self._unit), _of_text(column))).to_series()
        elif column.dtype.is_integer():
            found = _of_numbers(column, self._unit)
        else:
            found = column.dt.epoch("ms")
        found = found.set((found < MIN_DS_MS) | (found > MAX_DS_MS), None)
        return self._rest(name, column, found, found.is_null(), read)

    def numbers(self, name: str, column: Column, *, limited: bool = False) -> pl.Series:
        """Return numbers (Float64, NaN = missing); with `limited`, magnitudes beyond 1e15 are refused.

        Raises:
            DataError: A cell is no number.
        """
        read = partial(_limited if limited else read_number, decimal=self._decimal)
        if not isinstance(column, pl.Series) or not _has_numbers(column):
            return pl.Series(name, self._each(name, column, read), pl.Float64).fill_null(float("nan"))
        found, nothing = _floats(column, self._decimal), column.is_null()
        bad = found.is_null() & ~nothing
        bad |= (found.abs() > MAX_ABS if limited else found.is_infinite()).fill_null(False) & found.is_not_nan()
        return self._rest(name, column, found, bad, read).fill_null(float("nan"))

    def categories(self, name: str, column: Column) -> pl.Series:
        """Return categories (String, null = missing).

        Raises:
            DataError: A cell is no category.
        """
        column = _text_of_enum(column)
        if isinstance(column, pl.Series) and (column.dtype.is_integer() or column.dtype == pl.Boolean):
            return column.cast(pl.String)
        return pl.Series(name, self._each(name, column, read_category), pl.String)

    def lists(self, name: str, column: Column) -> pl.Series:
        """Return lists of numbers (List(Float64), null = none).

        Raises:
            DataError: A cell is no list of numbers.
        """
        return pl.Series(name, self._each(name, column, read_numbers), pl.List(pl.Float64))

    def _rest(
        self, name: str, column: pl.Series, found: pl.Series, rest: pl.Series, read: Callable[[Any], Any]
    ) -> pl.Series:
        """Return `found` with the rows `rest` of the column read one by one."""
        if not rest.any():
            return found.alias(name)
        rows = rest.arg_true()
        values = self._each(name, column.gather(rows), read, rows)
        return found.scatter(rows, pl.Series(values, dtype=found.dtype)).alias(name)

    def _each(
        self, name: str, column: Column, read: Callable[[Any], _Value], rows: Sequence[int] | pl.Series | None = None
    ) -> list[_Value]:
        """Read cells one by one, equal texts once; `rows` are their rows in the table."""
        known: dict[str, _Value] = {}
        found: list[_Value] = []
        for number, cell in enumerate(column.to_list() if isinstance(column, pl.Series) else column):
            try:
                if type(cell) is not str:
                    found.append(read(cell))
                    continue
                if cell not in known:
                    known[cell] = read(cell)
                found.append(known[cell])
            except RefusedValueError as error:
                place = self._place(number if rows is None else int(rows[number]))
                text = f"{self._source}: column {shown(name)}, {place}: {error.explain(_REMEDIES)}"
                raise DataError(text) from error
        return found


def _limited(value: Any, decimal: str) -> float | None:
    number = read_number(value, decimal)
    if number is not None and abs(number) > MAX_ABS:
        raise RefusedValueError(
            "y_out_of_range",
            f"found {shown(value)}, expected at most {MAX_ABS:g} in size; scale the values, or leave it empty",
        )
    return number


def _text_of_enum(column: Column) -> Column:
    if isinstance(column, pl.Series) and column.dtype in (pl.Categorical, pl.Enum):
        return column.cast(pl.String)
    return column


def _has_times(column: pl.Series) -> bool:
    return column.dtype == pl.String or column.dtype.is_integer() or isinstance(column.dtype, pl.Datetime | pl.Date)


def _has_numbers(column: pl.Series) -> bool:
    return column.dtype == pl.String or column.dtype.is_numeric() or column.dtype == pl.Null


def _of_numbers(column: pl.Series, unit: str) -> pl.Series:
    """Return the milliseconds of whole numbers; null for others, and for numbers that may be dates."""
    if column.dtype == pl.String:
        column = column.set(~column.str.contains(r"^[+-]?[0-9]{1,18}$"), None)
    whole = column.cast(pl.Int64, strict=False)
    times, per = PER_MS[unit]
    first, last = max(MIN_DS_MS * per // times, -(2**63)), min(MAX_DS_MS * per // times, 2**63 - 1)
    unclear = (whole < first) | (whole > last) | whole.is_between(*_DATE_NUMBERS)
    return whole.set(unclear, None) * times // per


def _of_text(column: pl.Series) -> pl.Series:
    """Return the milliseconds of times of the usual form; null for others."""
    text = column.set(~column.str.contains(_USUAL_TIME), None)
    days = text.str.len_bytes() == 10
    text = text.set(days, None).fill_null(text.set(~days, None) + "T00:00:00")
    text = text.str.replace(" ", "T", literal=True).str.replace("Z", "+00:00", literal=True)
    bare = ~text.str.contains(r"[+-][0-9]{2}:[0-9]{2}$")
    text = text.set(bare, None).fill_null(text.set(~bare, None) + "+00:00")
    parsed = text.str.to_datetime(_FORMAT, time_unit="us", time_zone="UTC", strict=False)
    return parsed.dt.epoch("ms")


def _floats(column: pl.Series, decimal: str) -> pl.Series:
    if column.dtype != pl.String:
        return column.cast(pl.Float64)
    pattern = NUMBER if decimal == "." else NUMBER.replace(r"\.", ",")
    text = column.set(~column.str.contains(f"^(?:{pattern})$"), None)
    return (text if decimal == "." else text.str.replace(",", ".", literal=True)).cast(pl.Float64, strict=False)
