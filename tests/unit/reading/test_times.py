"""Each form of a time with its right meaning, and the forms that have none or two."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pytest

from rillcast.reading.refusals import RefusedValueError
from rillcast.reading.times import read_time

NOON = 1_714_564_800_000  # 2024-05-01T12:00:00Z
MIDNIGHT = NOON - 12 * 3_600_000
ACCEPTED: list[tuple[Any, int]] = [
    (NOON, NOON),
    (str(NOON), NOON),
    (f" +{NOON} ", NOON),
    (float(NOON), NOON),
    ("1.7145648e12", NOON),
    (f"{NOON}.9", NOON),
    (Decimal(NOON), NOON),
    (0, 0),
    (-1, -1),
    (-0.5, -1),
    ("2024-05-01T12:00:00Z", NOON),
    ("2024-05-01T12:00:00", NOON),
    ("2024-05-01t12:00:00z", NOON),
    ("2024-05-01 12:00:00", NOON),
    (" 2024-05-01T12:00:00", NOON),
    ("2024-05-01  12:00", NOON),
    ("2024-05-01 12:00", NOON),
    ("2024-5-1 12:00", NOON),
    ("2024/05/01 12:00", NOON),
    ("20240501T120000Z", NOON),
    ("2024-05-01 14:00:00 +02:00", NOON),
    ("2024-05-01T14:00:00+0200", NOON),
    ("2024-05-01T14:00:00+02", NOON),
    ("2024-05-01T06:30:00-05:30", NOON),
    ("2024-05-01 12:00:00 UTC", NOON),
    ("2024-05-01T12:00:00.5Z", NOON + 500),
    ("2024-05-01T12:00:00,5Z", NOON + 500),
    ("2024-05-01T12:00:00.0019Z", NOON + 1),
    ("2024-05-01T12:00:00.9999996Z", NOON + 1_000),
    ("2024-05-01", MIDNIGHT),
    ("2024-05", MIDNIGHT),
    ("2024-04-30T24:00", MIDNIGHT),
    ("2016-12-31T23:59:60Z", 1_483_228_800_000),
    ("2017-01-01T05:29:60+05:30", 1_483_228_800_000),
    ("1749-01-01", -6_974_035_200_000),
    (dt.date(2024, 5, 1), MIDNIGHT),
    (dt.datetime(2024, 5, 1, 12), NOON),  # noqa: DTZ001  naive counts as UTC
    (dt.datetime(2024, 5, 1, 14, tzinfo=dt.timezone(dt.timedelta(hours=2))), NOON),
]


@pytest.mark.parametrize(("form", "right"), ACCEPTED, ids=lambda one: repr(one)[:40])
def test_a_form_with_one_meaning_has_it(form: Any, right: int) -> None:
    assert read_time(form) == right


@pytest.mark.parametrize(
    ("unit", "given"), [("s", NOON // 1_000), ("ms", NOON), ("us", NOON * 1_000 + 7), ("ns", NOON * 1_000_000 + 7)]
)
def test_a_number_has_the_unit_of_the_settings(unit: str, given: int) -> None:
    assert read_time(given, unit) == read_time(str(given), unit) == NOON


def test_a_fraction_of_a_second_is_kept() -> None:
    assert read_time(1_714_564_800.123, "s") == read_time("1714564800.123", "s") == NOON + 123


REFUSED: list[tuple[Any, str]] = [
    (None, "found nothing"),
    ("", "expected a time"),
    ("yesterday", "expected a time"),
    (True, r"True \(bool\)"),
    (dt.time(12), "12:00:00 without a date"),
    ("05/01/2024", "either order; write it as 2024-05-31"),
    ("01.05.2024 12:00", "either order"),
    ("20240501", "may be a date or ms since the epoch; write the date as 2024-05-01"),
    (20_240_501, "may be a date"),
    ("2024-02-30", "does not exist"),
    ("2024-05-01T12:60", "does not exist"),
    ("2024-05-01T12:00:60Z", "leap seconds are 23:59:60"),
    ("2024-05-01T24:01", "only time in hour 24"),
    ("2024-05-01T12:00+24:00", "within a day"),
    ("1599-12-31", "from 1600 to 2200"),
    (20_240_501_120_000, "write a date and time as 2024-05-01T12:00:00"),
    (NOON * 1_000, r"in us it would be 2024-05-01T12:00:00Z, in ms it is not"),
    (float("nan"), "expected a time"),
    (float("inf"), "expected a time"),
    ("\u0662\u0660\u0662\u0664-05-01", "expected a time"),
]


@pytest.mark.parametrize(("form", "message"), REFUSED, ids=lambda one: repr(one)[:40])
def test_a_form_without_one_meaning_is_refused_with_what_helps(form: Any, message: str) -> None:
    with pytest.raises(RefusedValueError, match=message):
        read_time(form)
