"""The notation of members in settings."""

from __future__ import annotations

import pytest

from rillcast.reading import paths
from rillcast.reading.paths import ABSENT, conditions, is_plain, parse
from rillcast.reading.values import entity_of, join_ids


@pytest.mark.parametrize(
    ("text", "steps", "array", "every"),
    [
        ("a", ("a",), None, False),
        ("tags.host", ("tags", "host"), None, False),
        (r"a\.b.c", ("a.b", "c"), None, False),
        (r"a\,b", ("a,b",), None, False),
        ("fields.*", ("fields",), None, True),
        (r"fields.\*", ("fields", "*"), None, False),
        ("readings[].t", ("t",), ("readings",), False),
        ("a.b[].c.d", ("c", "d"), ("a", "b"), False),
        ("[].t", ("t",), (), False),
        ("[].fields.*", ("fields",), (), True),
        ("values[]", (), ("values",), False),
        (r"a\[\]", ("a[]",), None, False),
    ],
)
def test_a_path_is_read(text: str, steps: tuple[str, ...], array: tuple[str, ...] | None, every: bool) -> None:
    path = parse(text)
    assert (path.steps, path.array, path.every) == (steps, array, every)
    assert is_plain(text) == (array is None and not every)


@pytest.mark.parametrize("text", ["", "a..b", ".a", "a.", "*", "a.*.b", "a[].b[].c", "a.[].b"])
def test_a_path_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"empty|arrays|stands before|expected the name"):
        parse(text)


def test_a_list_of_names_ends_at_commas_that_are_not_escaped() -> None:
    assert paths.names(r"a, b\,c ,d") == ["a", r"b\,c", "d"]
    assert not is_plain("a,b")


@pytest.mark.parametrize("name", ["a", "a.b", "a,b", "*", "a[]", "Temp, [C]", "a=b|c"])
def test_an_escaped_name_is_itself(name: str) -> None:
    path = parse(paths.escaped(name))
    assert (path.steps, path.array, path.every) == ((name,), None, False)
    assert len(paths.names(paths.escaped(name))) == 1


def test_a_path_that_ends_early_leads_to_nothing() -> None:
    path = parse("a.b")
    assert path.find({"a": {"b": 0}}) == 0
    assert path.find({"a": {"b": None}}) is None
    records: list[object] = [{}, {"a": None}, {"a": 1}, {"a": []}, [], None, 3]
    for record in records:
        assert path.find(record) is ABSENT


@pytest.mark.parametrize(
    ("value", "holds"),
    [("eu", True), ("us", True), ("x", False), (None, False), (ABSENT, False), (["eu"], False), ({"eu": 1}, False)],
)
def test_a_condition_holds_for_one_of_its_texts(value: object, holds: bool) -> None:
    (condition,) = conditions("tags.dc=eu|us")
    assert condition.holds(value) is holds


@pytest.mark.parametrize(
    ("value", "text"), [(1, "1"), (1.0, "1"), (1.5, "1.5"), (True, "true"), (None, ""), (ABSENT, ""), ("", "")]
)
def test_a_value_is_compared_as_text(value: object, text: str) -> None:
    (condition,) = conditions(f"a={text}")
    assert condition.holds(value)
    assert not condition.holds("z")


@pytest.mark.parametrize("text", ["a", "a=1,b", "a.*=1", "=1"])
def test_a_condition_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"MEMBER=TEXT|no single member|empty"):
        conditions(text)


@pytest.mark.parametrize("parts", [["a", "cpu"], ["a/b", "cpu"], ["a\\", "b/", "c"], ["x", "y", "z"]])
def test_the_entity_of_a_joined_id_is_that_of_its_first_parts(parts: list[str]) -> None:
    assert entity_of(join_ids(parts)) == join_ids(parts[:-1])
    assert entity_of("alone") == "alone"
