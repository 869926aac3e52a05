"""Rules by which kinds of streams are told apart."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rillcast.discovery.telling import Taken, by_id, by_member

IDS = st.sets(st.text("ab1/-*[?", min_size=1, max_size=6), min_size=1, max_size=8)


@given(st.lists(IDS, min_size=2, max_size=3))
@example([{"a1", "a2"}, {"a1b"}])
@example([{"a/1", "a/2"}, {"a//1"}])
@example([{"[a]/1", "[a]/2", "[a]/3", "[a]/4"}, {"a/1"}])
def test_a_pattern_takes_every_stream_of_its_kind_and_none_of_another(drawn: list[set[str]]) -> None:
    kinds = [mine - set[str]().union(*drawn[:number]) for number, mine in enumerate(drawn)]
    kinds = [mine for mine in kinds if mine]
    found = by_id(kinds)
    if found is None:
        assert max(map(len, kinds)) > 3  # few streams can always be named one by one
        return
    rest, tables = found
    assert sorted([rest, *tables]) == list(range(len(kinds)))
    for number, rules in tables.items():
        patterns = [str(rule.match) for rule in rules]
        assert len(patterns) <= 4
        for at, mine in enumerate(kinds):
            taken = {each for each in mine if any(fnmatchcase(each, pattern) for pattern in patterns)}
            assert taken == (mine if at == number else set())


@pytest.mark.parametrize(
    ("days", "pattern"),
    [
        (["shop/1", "shop/2", "shop/30"], "shop/*"),
        (["d0", "d1", "d2", "d3"], "d[0-9]*"),
        (["a/sold", "b/sold", "c-2/sold"], "*/sold"),
        (["all"], "all"),
        (["*a"], "[*]a"),
    ],
)
def test_a_pattern_is_a_beginning_or_an_end_up_to_a_separator(days: list[str], pattern: str) -> None:
    hours = {"h0", "h1", "room/shop/1", "shops", "sold/x", "al", "xa"}
    found = by_id([hours, set(days)])
    assert found == (0, {1: [Taken(match=pattern)]})


def test_the_kind_without_a_pattern_takes_the_rest() -> None:
    found = by_id([{"room/1", "room/2", "room/3", "room/4"}, {"xy", "yx", "zz", "zy"}])
    assert found == (1, {0: [Taken(match="room/*")]})
    assert by_id([{"ab", "bc", "cd", "de"}, {"xy", "yx", "zz", "zy"}]) is None


def test_a_member_tells_kinds_apart_if_no_text_is_in_two_of_them() -> None:
    kinds = [{"a", "b"}, {"c", "d"}]
    texts: dict[str, set[str | None]] = {"a": {"x"}, "b": {None}, "c": {"y", "z"}, "d": {"y"}, "unknown": {"y"}}
    assert by_member("kind", texts, kinds) == (0, {1: [Taken(only="kind=y|z")]})
    assert by_member("kind", texts | {"d": {"y", "x"}}, kinds) is None
    assert by_member("kind", texts | {"d": {"y", None}, "b": {"x"}}, kinds) is None  # one of many other texts
    assert by_member("kind", {"a": {"x"}, "b": {"x"}}, kinds) is None
