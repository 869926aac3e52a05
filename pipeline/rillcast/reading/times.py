"""Times: text, numbers and moments to milliseconds since the epoch.

| form | meaning |
| --- | --- |
| whole number, or text of one | in the unit of the settings |
| number with a fraction, or text of one | the same, rounded down to milliseconds |
| `2024-05-01`, `2024/05/01`, `2024-5-1` | midnight, UTC |
| `2024-05` | the first of the month |
| `2024-05-01T12:00[:00[.5]]`, or blanks for `T`; `20240501T1200[00]` | UTC without an offset |
| `Z`, `UTC`, `GMT`, `+02:00`, `+0200`, `+02`, after blanks or not, in any case | offset |
| `24:00` | midnight of the next day |
| `23:59:60` UTC, on the last day of June or December | a leap second: the next second, as in POSIX |

Owns: these forms, and the range of times. Does not know: which unit is likely (`rillcast.reading.units`).
"""

from __future__ import annotations

import datetime as dt
import re
from decimal import Decimal
from typing import Any, Final, Literal, TypeAlias

from rillcast.reading.refusals import RefusedValueError, shown

Unit: TypeAlias = Literal["s", "ms", "us", "ns"]
UNITS: Final[tuple[Unit, ...]] = ("s", "ms", "us", "ns")
PER_MS: Final[dict[str, tuple[int, int]]] = {"s": (1_000, 1), "ms": (1, 1), "us": (1, 1_000), "ns": (1, 1_000_000)}
"""By unit, factor and divisor that turn a whole number into milliseconds."""
MIN_DS: Final = dt.datetime(1600, 1, 1, tzinfo=dt.UTC)
MAX_DS: Final = dt.datetime(2200, 1, 1, tzinfo=dt.UTC)
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MILLISECOND: Final = dt.timedelta(milliseconds=1)
MIN_DS_MS: Final = (MIN_DS - _EPOCH) // _MILLISECOND
MAX_DS_MS: Final = (MAX_DS - _EPOCH) // _MILLISECOND
_HOUR_MS, _MINUTE_MS, _DAY_MS = 3_600_000, 60_000, 86_400_000
EXPECTED: Final = "a time: ISO 8601, or a number since the epoch"

_OFFSET: Final = r"(?:\s*(?:([Zz]|[Uu][Tt][Cc]|[Gg][Mm][Tt])|([+-])(\d\d)(?::?(\d\d))?))?"
_EXTENDED: Final = re.compile(
    r"(\d{4})(?:-(\d\d?)-(\d\d?)|/(\d\d?)/(\d\d?))(?:(?:\s*[Tt]|\s+)(\d\d?):(\d\d)(?::(\d\d)(?:[.,](\d+))?)?)?"
    + _OFFSET,
    re.ASCII,
)
_BASIC: Final = re.compile(r"(\d{4})(\d\d)(\d\d)[Tt](\d\d)(\d\d)(?:(\d\d)(?:[.,](\d+))?)?" + _OFFSET, re.ASCII)
_MONTH: Final = re.compile(r"(\d{4})-(\d\d?)", re.ASCII)
_WHOLE: Final = re.compile(r"[+-]?\d{1,25}", re.ASCII)
_FRACTION: Final = re.compile(r"[+-]?(?:\d{1,25}\.?\d{0,25}|\.\d{1,25})(?:[eE][+-]?\d{1,2})?", re.ASCII)
_MOMENT_DIGITS: Final = re.compile(r"\d{14}", re.ASCII)
_AMERICAN: Final = re.compile(r"\d\d?[./-]\d\d?[./-]\d{2,4}\b.*", re.ASCII)
_DATE_NUMBERS: Final = (19_000_101, 22_001_231)


def read_time(value: Any, unit: str = "ms") -> int:
    """Return milliseconds since the epoch.

    Args:
        value: Number, text, date or moment.
        unit: Unit of a number: `s`, `ms`, `us` or `ns`.

    Raises:
        RefusedValueError: It is no time, has two meanings, or lies outside 1600 to 2200.
    """
    kind = type(value)
    if kind is int:
        return _of_whole(value, unit, value)
    if kind is str:
        return _of_text(value, unit)
    if isinstance(value, dt.datetime):
        return _in_range(_of_moment(value), value)
    if isinstance(value, dt.date):
        return _in_range(_of_moment(dt.datetime(value.year, value.month, value.day, tzinfo=dt.UTC)), value)
    if isinstance(value, float | Decimal):
        return _of_number(Decimal(repr(value)) if isinstance(value, float) else value, unit, value)
    if value is None:
        raise RefusedValueError("wrong_type", f"found nothing, expected {EXPECTED}")
    raise RefusedValueError("wrong_type", f"found {_described(value)}, expected {EXPECTED}")


def is_date_number(value: int) -> bool:
    """Whether a whole number looks like a date without dashes, such as 20240501."""
    if not _DATE_NUMBERS[0] <= value <= _DATE_NUMBERS[1]:
        return False
    year, month, day = value // 10_000, value // 100 % 100, value % 100
    try:
        dt.date(year, month, day)
    except ValueError:
        return False
    return True


def _of_whole(value: int, unit: str, found: Any) -> int:
    if is_date_number(value):
        text = str(value)
        raise RefusedValueError(
            "ds_out_of_range",
            f"found {shown(found)}, which may be a date or {unit} since the epoch; write the date as "
            f"{text[:4]}-{text[4:6]}-{text[6:]}",
        )
    times, per = PER_MS[unit]
    return _in_range(value * times // per, found, unit)


def _of_number(value: Decimal, unit: str, found: Any) -> int:
    if not value.is_finite():
        kind: Any = "wrong_type" if value.is_nan() else "ds_out_of_range"
        raise RefusedValueError(kind, f"found {shown(found)}, expected {EXPECTED}")
    if value.adjusted() > 25:
        return _in_range(MAX_DS_MS + 1, found, unit)
    if value == value.to_integral_value():
        return _of_whole(int(value), unit, found)
    times, per = PER_MS[unit]
    scaled = value * times / per
    return _in_range(int(scaled.to_integral_value(rounding="ROUND_FLOOR")), found, unit)


def _of_text(text: str, unit: str) -> int:
    bare = text.strip()
    if match := _EXTENDED.fullmatch(bare):
        year, month, day, month_, day_, hour, minute, second, fraction, *offset = match.groups()
        parts = (year, month or month_, day or day_, hour or "0", minute or "0", second or "0", fraction or "")
        return _in_range(_of_parts(text, parts, offset), text)
    if match := _BASIC.fullmatch(bare):
        year, month, day, hour, minute, second, fraction, *offset = match.groups()
        parts = (year, month, day, hour, minute, second or "0", fraction or "")
        return _in_range(_of_parts(text, parts, offset), text)
    if match := _MONTH.fullmatch(bare):
        return _in_range(_of_parts(text, (match[1], match[2], "1", "0", "0", "0", ""), [None] * 4), text)
    if _WHOLE.fullmatch(bare):
        return _of_whole(int(bare), unit, text)
    if _FRACTION.fullmatch(bare):
        return _of_number(Decimal(bare), unit, text)
    if not bare:
        raise RefusedValueError("ds_out_of_range", f"found {shown(text)}, expected {EXPECTED}")
    if _AMERICAN.fullmatch(bare):
        raise RefusedValueError(
            "ds_out_of_range",
            f"found {shown(text)}, in which day and month may stand in either order; write it as 2024-05-31",
        )
    raise RefusedValueError("ds_out_of_range", f"found {shown(text)}, expected {EXPECTED}")


def _of_parts(text: str, parts: tuple[str, ...], offset: list[Any]) -> int:
    """Return milliseconds since the epoch, before the range is checked."""
    *whole, fraction = parts
    year, month, day, hour, minute, second = map(int, whole)
    leap = second == 60
    _zone, sign, hours, minutes = offset
    try:
        if hour == 24 and (minute or second or fraction.strip("0")):
            raise ValueError("24:00 is the only time in hour 24")
        date = dt.datetime(year, month, day, tzinfo=dt.UTC)
        dt.time(0 if hour == 24 else hour, minute, 59 if leap else second)
        if sign and not (int(hours) <= 23 and int(minutes or 0) <= 59):
            raise ValueError("the offset is not within a day")
    except ValueError as error:
        detail = f"found {shown(text)}, a time that does not exist: {error}"
        raise RefusedValueError("ds_out_of_range", detail) from error
    shift = (int(hours) * _HOUR_MS + int(minutes or 0) * _MINUTE_MS) * (-1 if sign == "-" else 1) if sign else 0
    begun = (date - _EPOCH) // _MILLISECOND + hour * _HOUR_MS + minute * _MINUTE_MS + second * 1_000 - shift
    if leap:
        _check_leap_second(text, begun)
        return begun
    return begun + _microseconds(fraction) // 1_000


def _check_leap_second(text: str, after_ms: int) -> None:
    after = _EPOCH + after_ms * _MILLISECOND
    if after_ms % _DAY_MS or (after.month, after.day) not in ((1, 1), (7, 1)):
        raise RefusedValueError(
            "ds_out_of_range",
            f"found {shown(text)}, a time that does not exist: leap seconds are 23:59:60 UTC at the end of June or "
            f"December",
        )


def _microseconds(fraction: str) -> int:
    """Return the microseconds of a fraction of a second; a seventh digit rounds, as in the decoder of JSON."""
    return (int((fraction + "0000000")[:7]) + 5) // 10 if fraction else 0


def _of_moment(moment: dt.datetime) -> int:
    return ((moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)) - _EPOCH) // _MILLISECOND


def _in_range(milliseconds: int, found: Any, unit: str | None = None) -> int:
    if MIN_DS_MS <= milliseconds <= MAX_DS_MS:
        return milliseconds
    hint, digits = "", str(found).strip()
    if unit is not None and _MOMENT_DIGITS.fullmatch(digits) and is_date_number(int(digits[:8])):
        text = f"{digits[:4]}-{digits[4:6]}-{digits[6:8]}T{digits[8:10]}:{digits[10:12]}:{digits[12:]}"
        raise RefusedValueError("ds_out_of_range", f"found {shown(found)}; write a date and time as {text}")
    if unit is not None:
        number = milliseconds * PER_MS[unit][1] // PER_MS[unit][0]
        for other in UNITS:
            times, per = PER_MS[other]
            if 631_152_000_000 <= number * times // per <= 4_102_444_800_000:
                at = _EPOCH + (number * times // per) * _MILLISECOND
                hint = f"; in {other} it would be {at:%Y-%m-%dT%H:%M:%SZ}, in {unit} it is not"
                break
    raise RefusedValueError(
        "ds_out_of_range", f"found {shown(found)}, expected a time from 1600 to 2200{hint}", "unit" if hint else None
    )


def _described(value: Any) -> str:
    if isinstance(value, dt.time):
        return f"{value} without a date"
    return f"{shown(value)} ({type(value).__name__})"
