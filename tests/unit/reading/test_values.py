"""Each form of an id, a number, a category and a list with its right meaning, and the forms that are refused."""

from __future__ import annotations

import uuid
from decimal import Decimal
from typing import Any

import pytest

from rillcast.reading.refusals import RefusedValueError, listed, shown
from rillcast.reading.values import join_ids, read_category, read_id, read_number, read_numbers


@pytest.mark.parametrize(
    ("form", "right"),
    [
        ("web", "web"), (" web ", " web "), ("NA", "NA"), (7, "7"), (7.0, "7"), (Decimal("7.0"), "7"), (-7, "-7"),
        (b"caf\xc3\xa9", "caf\u00e9"), (uuid.UUID(int=7), "00000000-0000-0000-0000-000000000007"),
    ],
)  # fmt: skip
def test_an_id_is_text_or_a_whole_number(form: Any, right: str) -> None:
    assert read_id(form) == right


@pytest.mark.parametrize("form", ["", None, float("nan"), 7.5, True, Decimal("7.5"), b"\xff", ["a"], float("inf")])
def test_other_ids_are_refused(form: Any) -> None:
    with pytest.raises(RefusedValueError, match="expected a stream's name"):
        read_id(form)


MISSING = ["", " ", "NA", "na", "N/A", "#N/A", "<NA>", "null", "NULL", "None", "NaN", "-nan", "NaT", "\\N"]


@pytest.mark.parametrize("form", [None, float("nan"), Decimal("NaN"), *MISSING])
def test_a_missing_number_has_many_words(form: Any) -> None:
    assert read_number(form) is None


@pytest.mark.parametrize(
    ("form", "right"),
    [
        (1, 1.0), (1.5, 1.5), (Decimal("10.841"), 10.841), ("1.5", 1.5), (" +.5 ", 0.5), ("5.", 5.0), ("-1E3", -1000.0),
        (10**300, 1e300),
    ],
)  # fmt: skip
def test_a_number_is_read(form: Any, right: float) -> None:
    assert read_number(form) == right


def test_a_decimal_comma_is_read_where_it_is_named() -> None:
    assert read_number("-1,5e2", ",") == -150.0
    with pytest.raises(RefusedValueError, match="expected a number"):
        read_number("1.5", ",")
    with pytest.raises(RefusedValueError, match="a decimal comma") as refused:
        read_number("1,5")
    assert refused.value.explain({"decimal": "use --decimal ,"}).endswith("; use --decimal ,")


@pytest.mark.parametrize(
    "form",
    ["x", "inf", "-Infinity", "1e999", "1_000", "1,000.5", "12%", "0x10", "\u0661", True, float("inf"), 10**400, [1]],
)
def test_other_numbers_are_refused(form: Any) -> None:
    with pytest.raises(RefusedValueError, match="expected a"):
        read_number(form)


def test_a_category_is_text_without_the_blanks_around_it() -> None:
    assert [read_category(form) for form in (" north ", 7, 7.0, True, "", None)] == [
        "north",
        "7",
        "7",
        "true",
        None,
        None,
    ]
    with pytest.raises(RefusedValueError, match="expected a category"):
        read_category(7.5)


def test_a_list_has_numbers_and_nothings() -> None:
    assert read_numbers([1, None, "2.5", "NA"]) == [1.0, None, 2.5, None]
    assert read_numbers("[0, null]") == [0.0, None]
    assert read_numbers("") is None
    for form in (5, "soon", [["a"]]):
        with pytest.raises(RefusedValueError, match="expected a"):
            read_numbers(form)


def test_different_parts_make_different_ids() -> None:
    parts = [("a/b", "c"), ("a", "b/c"), ("a\\", "/b/c"), ("a", "b", "c"), ("a\\/b", "c")]
    assert len({join_ids(one) for one in parts}) == len(parts)
    assert join_ids(["north", "7"]) == "north/7"
    assert join_ids(["a/b"]) == "a/b", "one part alone stays as it is"


def test_messages_stay_short() -> None:
    assert len(shown("x" * 10_000_000)) < 80
    assert listed(["a"] * 10_000).endswith(", and 9,988 more]")
